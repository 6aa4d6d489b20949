"""Publishing of cache lifetimes: what PostgreSQL says Redis shall hold, made so.

In: settings and Lifetimes. Out: fields of the hash `CACHE_TTL_KEY` in the streams' Redis.
Promise: only fields that we wrote are changed or removed; publishing again changes nothing.
"""

from collections.abc import Iterable

from contract.streams import CACHE_TTL_KEY
from database.cache_lifetimes import Lifetime
from database.redis_link import open_link
from database.settings import RedisSettings


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
