"""Listings: a JSON cache on Redis in front of a table in PostgreSQL.

In: a listing's number. Out: its JSON, NotThere, or Unavailable.
Promise: starting waits for no server; while Redis is away PostgreSQL answers, while PostgreSQL is away what is
cached answers; both are used again as soon as they are back, with nobody's help.
"""

import asyncio
import logging
from contextlib import suppress
from functools import partial
from importlib.resources import files
from time import perf_counter
from typing import Final

import asyncpg
import msgspec
import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from producers.cache import Cache, KeyClass
from producers.reference.measures import QUERY_MS, SERIALIZATION_MS, UNAVAILABLE
from producers.reference.models import DATA
from producers.reference.settings import Settings

log: Final = logging.getLogger(__name__)

CACHE_DEADLINE_S: Final = 0.5
MAX_CACHE_TTL_S: Final = 3600.0
"""A listing that was changed is served as it was for an hour at most, whatever lifetime is set."""
QUERY_DEADLINE_S: Final = 2.0
CONNECT_DEADLINE_S: Final = 5.0
SETUP_DEADLINE_S: Final = 15.0
CLOSE_DEADLINE_S: Final = 2.0
RETRY_S: Final = 2.0

SETUP_LOCK: Final = 0x7265666C
"""Advisory lock ("refl"): replicas that start together make the table once."""

AWAY: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)


def sql(name: str) -> str:
    """Return a statement of the application, from its file."""
    return files("producers.reference").joinpath(f"sql/{name}.sql").read_text()


LOOK_UP: Final = sql("look_up")
_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")


class NotThere(LookupError):
    """No listing has this number."""


class Unavailable(RuntimeError):
    """PostgreSQL is away and the listing is not cached."""


class Listings:
    """The look-up; `open` and `aclose` belong to the application's lifespan."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.pool: asyncpg.Pool[asyncpg.Record] | None = None
        self.cache: Cache | None = None
        self._listings: KeyClass | None = None
        self._redis: redis.Redis | None = None
        self._opening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Start connecting; returns at once."""
        if self.settings.cache_url:
            self._redis = redis.Redis.from_url(
                self.settings.cache_url,
                protocol=2,
                socket_timeout=CACHE_DEADLINE_S,
                socket_connect_timeout=CACHE_DEADLINE_S,
                retry=Retry(NoBackoff(), 0),
            )
        self.cache = Cache(self._redis, "reference_app")
        ttl_s = float(self.settings.cache_ttl_s)
        self._listings = self.cache.key_class("listing", ttl_s, max_ttl_s=max(ttl_s, MAX_CACHE_TTL_S))
        await self.cache.open()
        if self.settings.postgres is not None:
            self._opening = asyncio.create_task(self._open_pool(), name="open-listings")

    async def aclose(self) -> None:
        """Close what is open."""
        if self._opening is not None:
            self._opening.cancel()
            with suppress(asyncio.CancelledError):
                await self._opening
        if self.cache is not None:
            await self.cache.aclose()
        if self.pool is not None:
            try:
                await asyncio.wait_for(self.pool.close(), CLOSE_DEADLINE_S)
            except (*AWAY, asyncio.CancelledError):
                self.pool.terminate()
        if self._redis is not None:
            with suppress(RedisError, OSError):
                await self._redis.aclose()

    async def get(self, number: int) -> bytes:
        """Return a listing as JSON; raises NotThere or Unavailable."""
        if self._listings is None:
            raise Unavailable("not opened yet")
        return await self._listings.get_or_compute(str(number), partial(self._read, number))

    async def _read(self, number: int) -> bytes:
        return serialize(await self._look_up(number))

    async def _look_up(self, number: int) -> asyncpg.Record:
        try:
            if self.pool is None:
                raise ConnectionError("not connected yet")
            started_at = perf_counter()
            async with self.pool.acquire(timeout=QUERY_DEADLINE_S) as connection:
                row = await connection.fetchrow(LOOK_UP, number, timeout=QUERY_DEADLINE_S)
            QUERY_MS.labels().observe((perf_counter() - started_at) * 1000)
        except AWAY as error:
            UNAVAILABLE.labels().inc()
            raise Unavailable(str(error) or type(error).__name__) from error
        if row is None:
            raise NotThere(number)
        return row

    async def _open_pool(self) -> None:
        """Connect, make the table, and leave the pool for look-ups; again until it succeeds."""
        has_warned = False
        while self.pool is None:
            try:
                await asyncio.wait_for(set_up(self.settings), SETUP_DEADLINE_S)
                self.pool = await asyncpg.create_pool(
                    **(self.settings.postgres or {}),
                    min_size=0,
                    max_size=4,
                    timeout=CONNECT_DEADLINE_S,
                    command_timeout=QUERY_DEADLINE_S,
                    server_settings={"application_name": "reference_api"},
                )
            except AWAY as error:
                if not has_warned:
                    log.warning("listings_unavailable", extra={"error": str(error), "try": "check POSTGRES_*"})
                    has_warned = True
                await asyncio.sleep(RETRY_S)


async def set_up(settings: Settings) -> None:
    """Make the schema and fill the table, if another replica has not."""
    connection = await asyncpg.connect(**(settings.postgres or {}), timeout=CONNECT_DEADLINE_S)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", SETUP_LOCK)
            await connection.execute(sql("create"))
            await connection.execute(sql("fill"), shipped_listings())
    finally:
        await connection.close(timeout=CLOSE_DEADLINE_S)


def shipped_listings() -> str:
    """Return the shipped listings as one JSON array."""
    return f"[{','.join(DATA.joinpath('listings.jsonl').read_text().splitlines())}]"


def serialize(row: asyncpg.Record) -> bytes:
    """Write a listing as JSON."""
    started_at = perf_counter()
    found = _ENCODER.encode(dict(row))
    SERIALIZATION_MS.labels().observe((perf_counter() - started_at) * 1000)
    return found
