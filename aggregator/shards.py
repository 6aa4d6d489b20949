"""Shards: how many there are, as Redis has it on record for everybody."""

from contract.streams import MAX_SHARDS, SHARD_COUNT_KEY
from database.redis_link import Link
from database.settings import SettingsError


async def shard_count(link: Link, wanted: int) -> int:
    """Return how many shards there are, recording `wanted` if it is more; the count never shrinks."""
    known = await link.get(SHARD_COUNT_KEY)
    if known is None:
        # Only then: a Redis that is out of memory refuses every SET.
        await link.set(SHARD_COUNT_KEY, wanted, nx=True)
        known = await link.get(SHARD_COUNT_KEY)
    stored = int(known or wanted)
    if not 1 <= stored <= MAX_SHARDS:
        raise SettingsError(f"STREAMGAUGE_SHARDS: Redis says {stored}; 1 to {MAX_SHARDS} are possible")
    if wanted > stored:
        await link.set(SHARD_COUNT_KEY, wanted)
        return wanted
    return stored
