"""Names of everything streamgauge keeps in Redis, and the choice of a shard.

Promise: both sides compute the same names; all keys of one shard share its hash tag, so that one Lua call
or one cluster node serves them.
"""

from typing import Final

GROUP: Final = "aggregator"
FIELD: Final = b"b"
"""The one field of a stream entry: the batch bytes."""

SHARD_COUNT_KEY: Final = "sg:shards"
"""Write-once (it may only grow): how many shards there are. Both sides check it."""

DATABASE_KEY: Final = "sg:database"
"""`<system identifier>/<timeline>` of the PostgreSQL that the group's acknowledgements refer to."""

OWNER_KEY: Final = "sg:{sg:committed}:owner"
"""The same of the one whose commits may be acknowledged: while it differs, totals are being restored there. In the hash
slot of COMMIT_KEY, so that one Lua call sees both."""

COMMIT_KEY: Final = "sg:committed"
"""The newest commit of real traffic that acknowledgements refer to: a database without it was restored from before."""

DEFAULT_SHARDS: Final = 2
MAX_SHARDS: Final = 64


def stream_key(shard: int) -> str:
    """Return the stream of a shard: `sg:{00}`."""
    return f"sg:{{{shard:02d}}}"


def full_key(shard: int) -> str:
    """Return the back-pressure flag of a shard: while it exists producers merge instead of send."""
    return f"sg:{{{shard:02d}}}:full"


def lease_key(shard: int) -> str:
    """Return the soft lease of a shard: which aggregator reads it (for speed, never for correctness)."""
    return f"sg:{{{shard:02d}}}:lease"


def shard_of(producer_id: bytes, shards: int) -> int:
    """Return the shard that a producer keeps to; `producer_id` is 16 uniformly random bytes."""
    return int.from_bytes(producer_id[:8], "little") % shards


AGGREGATORS_KEY: Final = "sg:aggregators"
"""Sorted set of consumer -> Redis time (ms) of its last heartbeat: how many share the shards."""

TALLIES_KEY: Final = "sg:tallies"
"""Hash of counts that are in no stream (text): never less than PostgreSQL ever had."""

CACHE_TTL_KEY: Final = "sg:cache_ttl"
"""Hash of key class -> seconds (text): lifetimes that replace the caches' own, which hold where none is set."""
