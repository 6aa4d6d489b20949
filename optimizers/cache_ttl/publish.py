"""Publishing of cache lifetimes: what PostgreSQL says Redis shall hold, made so.

In: settings and Lifetimes. Out: fields of the hash `CACHE_TTL_KEY`; how full Redis is.
Promise: only fields that we wrote are changed or removed; publishing again changes nothing.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from contract.streams import CACHE_TTL_KEY
from database.cache_lifetimes import Lifetime
from database.redis_link import open_link
from database.settings import RedisSettings


class Memory(NamedTuple):
    """How full a Redis is."""

    used_bytes: int
    max_bytes: int
    """0: no limit."""

    @property
    def share(self) -> float | None:
        """Used of the limit; None without one."""
        return self.used_bytes / self.max_bytes if self.max_bytes else None


async def read_memory(settings: RedisSettings) -> Memory:
    """Return how full Redis is."""
    link = open_link(settings)
    try:
        found: dict[str, Any] = await link.info("memory")
        return Memory(int(found["used_memory"]), int(found["maxmemory"]))
    finally:
        await link.aclose()


async def publish(settings: RedisSettings, lifetimes: Iterable[Lifetime]) -> list[str]:
    """Make the hash hold what is applied and nothing else of ours; return the classes this was about."""
    ours = [one for one in lifetimes if one.is_ours]
    if not ours:
        return []
    applied = {one.key_class: f"{one.applied_s:.6g}" for one in ours if one.applied_s is not None}
    removed = [one.key_class for one in ours if one.applied_s is None]
    link = open_link(settings)
    try:
        if applied:
            await link.hset(CACHE_TTL_KEY, mapping=applied)
        if removed:
            await link.hdel(CACHE_TTL_KEY, *removed)
    finally:
        await link.aclose()
    return [one.key_class for one in ours]
