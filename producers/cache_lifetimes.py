"""Cache lifetimes: the lifetimes of key classes that were set in the streams' Redis.

In: the hash that the cache lifetimes' job writes. Out: seconds per class, as last read.
Promise: read in the background, every 10 s; when Redis is away what was read last holds; a field that is not a
positive number is as if it were not there.
"""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from math import isfinite
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from contract.errors import error_text
from contract.redis_url import parse_redis_url
from contract.streams import CACHE_TTL_KEY
from producers.background import end
from producers.cluster import HashReader
from producers.event_log import EventLog
from producers.sender import client_options
from producers.settings import Settings, SettingsError

log = EventLog(__name__)

INTERVAL_S: Final = 10.0
DEADLINE_S: Final = 2.0
SENTINEL_TIMEOUT_S: Final = 0.5
AWAY: Final = (RedisError, OSError, TimeoutError)


class Follower(Protocol):
    """A class of keys that wants to know its lifetime."""

    @property
    def name(self) -> str:
        """Its field in the hash."""
        ...

    def say_lifetime(self) -> None:
        """Emit the lifetime that holds now."""
        ...


class Lifetimes:
    """What the hash said last of some classes."""

    def __init__(self, settings: Settings, interval_s: float = INTERVAL_S) -> None:
        self._settings = settings
        self._interval_s = interval_s
        self._seconds: Mapping[str, float] = {}
        self._task: asyncio.Task[None] | None = None
        self._is_away = False

    def open(self, classes: Iterable[Follower]) -> None:
        """Begin to read for these classes, which are looked at anew each time; returns at once."""
        link = _open_link(self._settings)
        self._task = asyncio.create_task(self._follow(link, classes), name="streamgauge - cache lifetimes")

    async def aclose(self) -> None:
        """Stop reading."""
        task, self._task = self._task, None
        if task is not None:
            await end(task)

    def get(self, key_class: str) -> float | None:
        """Return the lifetime of a class in seconds; None: none is set."""
        return self._seconds.get(key_class)

    async def _follow(self, link: Any, classes: Iterable[Follower]) -> None:
        try:
            while True:
                try:
                    await self._read(link, classes)
                except Exception:
                    # A bug of ours: what was read last holds, and the next reading may go well.
                    log.exception("cache_lifetimes_failed")
                await asyncio.sleep(self._interval_s)
        finally:
            await _close(link)

    async def _read(self, link: Any, classes: Iterable[Follower]) -> None:
        followers = list(classes)
        if not followers:
            return
        try:
            async with asyncio.timeout(DEADLINE_S):
                texts = await link.hmget(CACHE_TTL_KEY, [follower.name for follower in followers])
        except AWAY as error:
            if not self._is_away:
                log.warning("cache_lifetimes_unread", extra={"error": error_text(error), "try": "check REDIS_URL"})
            self._is_away = True
            return
        self._is_away = False
        read = {follower.name: _seconds(text) for follower, text in zip(followers, texts, strict=True)}
        self._seconds = {name: seconds for name, seconds in read.items() if seconds is not None}
        for follower in followers:
            follower.say_lifetime()


def _seconds(text: bytes | None) -> float | None:
    try:
        seconds = float(text) if text is not None else 0.0
    except ValueError:
        return None
    return seconds if isfinite(seconds) and seconds > 0 else None


async def _close(link: Any) -> None:
    # Closing a master's client leaves the connections to the Sentinels open.
    manager = getattr(getattr(link, "connection_pool", None), "sentinel_manager", None)
    for client in (link, *(manager.sentinels if manager is not None else ())):
        with suppress(*AWAY):
            await client.aclose()


def _open_link(settings: Settings) -> Redis | HashReader:
    """Return a client of the streams' Redis, not connected yet; SettingsError if its address is none."""
    timeouts = {"socket_timeout": DEADLINE_S, "socket_connect_timeout": DEADLINE_S}
    options: dict[str, Any] = {"protocol": 2, "retry": Retry(NoBackoff(), 0), **timeouts}
    try:
        address = parse_redis_url(settings.redis_url)
        if address.nodes:
            access = {"username": address.username, "password": address.password}
            return HashReader(address.nodes, client_options(settings) | timeouts | access)
        if not address.sentinels:
            return Redis.from_url(settings.redis_url, **options)
    except ValueError as error:
        raise SettingsError(f"REDIS_URL: {error}") from None
    # Sentinels answer at once or are skipped; the next is to be asked within the deadline.
    of_sentinels = {**options, "socket_timeout": SENTINEL_TIMEOUT_S, "socket_connect_timeout": SENTINEL_TIMEOUT_S}
    sentinel: Any = Sentinel(address.sentinels, sentinel_kwargs=of_sentinels | address.sentinel_access)
    access: dict[str, Any] = {"db": address.db, "username": address.username, "password": address.password}
    return sentinel.master_for(address.master, **options, **access)
