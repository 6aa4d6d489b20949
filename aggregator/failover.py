"""Failover: notices that PostgreSQL is not what acknowledgements refer to, or older, and restores what it lacks.

In: identity (system identifier, timeline) and newest commit, as Redis and PostgreSQL have them. Out: a fence in
PostgreSQL while the retained streams are folded again through the ledger.
Promise: a failover or a restored backup that lost a tail of commits loses nothing that the streams still hold; what
they do not hold any more is told; a database on an older timeline is refused.
"""

import logging
from collections.abc import Sequence
from typing import Final

from aggregator.committer import Committer
from aggregator.decode import Entry
from contract.crash import NEVER, CrashPoint
from contract.streams import COMMIT_KEY, DATABASE_KEY, FIELD, stream_key
from database.connect import Pool, acquire
from database.hosts import OldTimeline
from database.queries import load
from database.redis_link import Link

log = logging.getLogger(__name__)

REPLAY_ENTRIES: Final = 200


async def database_identity(pool: Pool) -> tuple[int, int]:
    """Return system identifier and timeline of the server."""
    async with acquire(pool) as connection:
        row = await connection.fetchrow(load("database_identity"))
    assert row is not None, "BUG: a query without FROM has a row"
    return int(row["system_identifier"]), int(row["timeline"])


async def newest_commit(pool: Pool) -> tuple[int, float | None]:
    """Return the newest commit of real traffic and when it was made."""
    async with acquire(pool) as connection:
        row = await connection.fetchrow(load("newest_commit"))
    assert row is not None, "BUG: an aggregate has a row"
    return int(row["commit_id"]), row["at_s"]


async def _gap(link: Link, shards: int, newest_at_s: float | None) -> str:
    """Tell when the streams begin later than the database ends: what lies between cannot be restored."""
    for shard in range(shards):
        first = await link.xrange(stream_key(shard), count=1)
        begins_s = int(first[0][0].partition(b"-")[0]) / 1000 if first else None
        if begins_s is not None and newest_at_s is not None and begins_s > newest_at_s:
            return f"; {begins_s - newest_at_s:.0f} s between them are in no stream any more"
    return ""


async def check(
    link: Link, pool: Pool, committers: Sequence[Committer], shards: int, consumer: str, crash: CrashPoint = NEVER
) -> None:
    """Compare identities; on a change raise the fence, fold every retained stream again, lower the fence."""
    system, timeline = await database_identity(pool)
    now = f"{system}/{timeline}".encode()
    stored = await link.get(DATABASE_KEY)
    if stored is None:
        # Only then: a Redis that is out of memory refuses every SET, and commits must go on.
        await link.set(DATABASE_KEY, now, nx=True)
        stored = await link.get(DATABASE_KEY)
    # In this order: a commit made in between is newer than what was acknowledged, never older.
    acknowledged = int(await link.get(COMMIT_KEY) or 0)
    newest, newest_at_s = await newest_commit(pool)
    if stored in (now, None) and acknowledged <= newest:
        return
    old_system, _, old_timeline = (stored or now).decode().partition("/")
    if old_system == str(system) and int(old_timeline or 0) > timeline:
        raise OldTimeline(system, timeline, int(old_timeline))
    reason = (
        f"database {now.decode()} at commit {newest}; acknowledgements refer to {(stored or now).decode()} at commit "
    )
    reason += f"{acknowledged}{await _gap(link, shards, newest_at_s)}"
    log.warning("database_changed", extra={"reason": reason})
    async with acquire(pool) as connection:
        fence_id = int(await connection.fetchval(load("raise_fence"), reason, consumer))
    crash.reach("after_fence")
    for shard in range(shards):
        await _replay(link, shard, committers[shard % len(committers)])
    crash.reach("before_fence_falls")
    # In this order: whoever dies in between leaves work that the next check sees, never a fence that stays.
    async with acquire(pool) as connection:
        await connection.execute(load("lower_fences"), fence_id)
    crash.reach("after_fence_fell")
    await link.set(COMMIT_KEY, (await newest_commit(pool))[0])
    await link.set(DATABASE_KEY, now)
    log.warning("database_restored", extra={"now": now.decode()})


async def _replay(link: Link, shard: int, committer: Committer) -> None:
    """Fold all that a stream retains; the ledger leaves out what the database has."""
    after = "-"
    while True:
        raw = await link.xrange(stream_key(shard), min=after, max="+", count=REPLAY_ENTRIES)
        if not raw:
            return
        await committer.settle([Entry(shard, i.decode(), fields.get(FIELD, b"")) for i, fields in raw])
        after = "(" + raw[-1][0].decode()
