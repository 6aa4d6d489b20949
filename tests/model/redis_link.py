"""Links to the simulated Redis: what the services take for redis-py's asyncio client.

In: commands as the services give them. Out: replies, once somebody chose the request. Promise: each command is one
request; a read that blocks is ready when there is something to read, or its time is over.
"""

from typing import Any

from redis.exceptions import ConnectionError as Closed

from aggregator.lua import DROP_IDLE_CONSUMERS, WEIGH
from contract.streams import GROUP
from tests.model.redis_server import Server
from tests.model.tasks import CLOCK, Request, ask


class Call(Request):
    """One command on its way."""

    can_break = True

    def __init__(self, server: Server, name: str, arguments: tuple[Any, ...], block_s: float | None = None) -> None:
        self._server = server
        self._name = name
        self._arguments = arguments
        self.wake = 0.0 if block_s is None else CLOCK.now + block_s
        self.holds = None if block_s is None else server.has_news
        self.label = hash((name, *(a for a in arguments if isinstance(a, str | bytes))))

    def perform(self) -> Any:
        """Execute it."""
        return self._server.call(self._name, *self._arguments)

    def text(self) -> str:
        """Say the command."""
        return f"{self._name.upper()} {' '.join(str(a)[:40] for a in self._arguments)}"

    def broken(self) -> Exception:
        """Say that the connection is gone."""
        return Closed("closed")


class Link:
    """What the services take for redis-py's client: each command is a request."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def _ask(self, name: str, *arguments: Any, block_s: float | None = None) -> Any:
        return await ask(Call(self._server, name, arguments, block_s))

    async def xreadgroup(
        self, group: str, consumer: str, streams: dict[str, str], *, count: int, block: int | None
    ) -> Any:
        """Read."""
        assert group == GROUP
        (start,) = streams.values()
        return await self._ask("xreadgroup", consumer, start, count, block_s=block / 1000 if block else None)

    async def xgroup_create(self, key: str, group: str, *, id: str, mkstream: bool) -> Any:  # noqa: A002
        """Make the group."""
        return await self._ask("xgroup_create")

    async def xautoclaim(
        self, key: str, group: str, consumer: str, idle_ms: int, cursor: str, *, count: int
    ) -> list[Any]:
        """Take over."""
        return await self._ask("xautoclaim", consumer, idle_ms, cursor, count)

    async def xpending_range(
        self,
        key: str,
        group: str,
        *,
        min: str,  # noqa: A002 - redis-py's name
        max: str,  # noqa: A002
        count: int,
    ) -> list[dict[str, Any]]:
        """List what is pending."""
        return await self._ask("xpending_range", min, max, count)

    async def xrange(self, key: str, *, min: str = "-", max: str = "+", count: int | None = None) -> list[Any]:  # noqa: A002
        """Read without the group."""
        return await self._ask("xrange", min, count)

    async def xack(self, key: str, group: str, *ids: str) -> int:
        """Acknowledge."""
        return await self._ask("xack", ids)

    async def get(self, key: str) -> bytes | None:
        """Read a key."""
        return await self._ask("get", key)

    async def hgetall(self, key: str) -> dict[bytes, bytes]:
        """Read a hash."""
        return await self._ask("hgetall", key)

    async def set(self, key: str, value: Any, *, nx: bool = False, px: int | None = None) -> Any:
        """Write a key; none lives long enough to expire."""
        return await self._ask("set", key, value, nx)

    async def delete(self, key: str) -> int:
        """Remove a key."""
        return await self._ask("delete", key)

    async def time(self) -> tuple[int, int]:
        """Read the clock: where time does not pass, that is no step of its own."""
        return self._server.call("time")

    async def eval(self, script: str, keys: int, *arguments: str) -> Any:
        """Run one of our scripts; no consumer is idle for as long as one must be to be dropped."""
        if script is DROP_IDLE_CONSUMERS:
            return 0
        if script is WEIGH:
            # It changes nothing, and what it tells is no more than a guess when it is used: no step of its own.
            return self._server.call("eval", script, *arguments)
        return await self._ask("eval", script, *arguments)
