"""Cache memory: how full the Redis of a cache is, emitted once a minute.

In: the cache's client, its classes of keys. Out: two gauges per class: classes may live in different servers.
Promise: in the background, never in a look-up; what Redis does not tell is not emitted, and a refusal is said once.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from contract.errors import error_text
from producers.background import end
from producers.event_log import EventLog

log = EventLog(__name__)

INTERVAL_S: Final = 60.0
DEADLINE_S: Final = 2.0
AWAY: Final = (RedisError, OSError, TimeoutError)

Say = Callable[[float, float], None]
"""Takes bytes used, and allowed (0: no limit)."""


class MemoryWatch:
    """Asks one Redis while it runs."""

    def __init__(self, client: Redis, interval_s: float = INTERVAL_S) -> None:
        self._client: Any = client  # redis-py types each reply as a union of all
        self._interval_s = interval_s
        self._task: asyncio.Task[None] | None = None

    def open(self, classes: Collection[Say]) -> None:
        """Begin to ask for these classes, which are looked at anew each time; returns at once."""
        self._task = asyncio.create_task(self._watch(classes), name="streamgauge - cache memory")

    async def aclose(self) -> None:
        """Stop asking."""
        task, self._task = self._task, None
        if task is not None:
            await end(task)

    async def _watch(self, classes: Collection[Say]) -> None:
        while True:
            told: dict[str, Any] = {}
            try:
                async with asyncio.timeout(DEADLINE_S):
                    told = await self._client.info("memory")
            except ResponseError as error:
                hint = "allow INFO to the cache's user; until then no lifetime is shortened for memory"
                log.warning("cache_memory_unread", extra={"error": error_text(error), "try": hint})
                return
            except AWAY:
                pass  # its look-ups say so
            if "used_memory" in told and "maxmemory" in told:
                for say in list(classes):
                    say(float(told["used_memory"]), float(told["maxmemory"]))
            await asyncio.sleep(self._interval_s)
