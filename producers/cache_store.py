"""Cache store: what a cache keeps in Redis, and a Redis that may be away.

In: keys, values with what is known of them. Out: entries, None for none, or Unanswered.
Promise: no call takes longer than the deadline; while Redis does not answer, one call a second asks it and the others
are told at once; what cannot be read as an entry is Unanswered, never a value.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from contract.errors import error_text
from producers.event_log import EventLog

log = EventLog(__name__)

PAUSE_S: Final = 1.0
COMPLAIN_INTERVAL_S: Final = 60.0
AWAY: Final = (RedisError, OSError, TimeoutError)


class Unanswered(Exception):
    """Redis is away, too slow, refuses, or holds what is no entry."""


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A value as it is kept. Times are Unix seconds by the clock of the one that filled it."""

    filled_at_s: float
    expires_at_s: float
    recompute_s: float
    digest: bytes
    value: bytes


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Entry)


class Store:
    """Entries in one Redis, of a client that the application opens and closes."""

    def __init__(self, client: Redis, deadline_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._client: Any = client  # redis-py types each reply as a union of all
        self._deadline_s = deadline_s
        self._monotonic = monotonic
        self._ask_again_at_s: float | None = None
        """Set while Redis does not answer."""
        self._complain_at_s = 0.0

    async def get(self, key: str) -> Entry | None:
        """Return the entry of a key; Unanswered if it is not known whether there is one."""
        data = await self._ask(lambda: self._client.get(key))
        if data is None:
            return None
        try:
            return _decoder.decode(data)
        except (msgspec.MsgspecError, TypeError) as error:
            raise Unanswered("not an entry") from error

    async def put(self, key: str, entry: Entry, lifetime_s: float) -> None:
        """Keep an entry for its lifetime; Unanswered if it is not known whether it is kept."""
        data = _encoder.encode(entry)
        await self._ask(lambda: self._client.set(key, data, px=max(1, round(lifetime_s * 1000))))

    async def _ask(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        if self._ask_again_at_s is not None:
            now_s = self._monotonic()
            if now_s < self._ask_again_at_s:
                raise Unanswered("away")
            # This call finds out whether Redis is back; the others do not wait with it.
            self._ask_again_at_s = now_s + self._deadline_s
        try:
            async with asyncio.timeout(self._deadline_s):
                reply = await ask()
        except AWAY as error:
            self._note(error)
            raise Unanswered(str(error) or type(error).__name__) from error
        if self._ask_again_at_s is not None:
            self._ask_again_at_s = None
            log.info("cache_is_back")
        return reply

    def _note(self, error: Exception) -> None:
        now_s = self._monotonic()
        # A server that refuses one command (memory is full, a replica) answers others.
        if not isinstance(error, ResponseError):
            self._ask_again_at_s = now_s + PAUSE_S
        if now_s >= self._complain_at_s:
            self._complain_at_s = now_s + COMPLAIN_INTERVAL_S
            hint = "check the cache's Redis; values are computed without it"
            log.warning("cache_refuses_or_is_away", extra={"error": error_text(error), "try": hint})
