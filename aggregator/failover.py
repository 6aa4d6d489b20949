"""Failover: notices that PostgreSQL is another one than acknowledgements refer to, and restores what it lacks.

In: the identity (system identifier, timeline) in Redis and in PostgreSQL. Out: a fence in PostgreSQL while the
retained streams are folded again through the ledger.
Promise: an asynchronous failover that lost a tail of commits loses nothing that the streams still hold; a
database on an older timeline is refused.
"""

import logging
from collections.abc import Sequence
from typing import Final

from aggregator.committer import Committer
from aggregator.decode import Entry
from aggregator.link import Link
from contract.streams import DATABASE_KEY, FIELD, stream_key
from database.connect import Pool, acquire
from database.queries import load

log = logging.getLogger(__name__)

REPLAY_ENTRIES: Final = 200


class OldTimeline(OSError):
    """The server is behind the one whose commits were acknowledged: writing to it would fork history."""


async def database_identity(pool: Pool) -> tuple[int, int]:
    """Return system identifier and timeline of the server."""
    async with acquire(pool) as connection:
        row = await connection.fetchrow(load("database_identity"))
    if row is None:
        raise OldTimeline("the server does not tell its identity")
    return int(row["system_identifier"]), int(row["timeline"])


async def check(link: Link, pool: Pool, committers: Sequence[Committer], shards: int, consumer: str) -> None:
    """Compare identities; on a change raise the fence, fold every retained stream again, lower the fence."""
    system, timeline = await database_identity(pool)
    now = f"{system}/{timeline}".encode()
    await link.set(DATABASE_KEY, now, nx=True)
    stored = await link.get(DATABASE_KEY)
    if stored == now or stored is None:
        return
    old_system, _, old_timeline = stored.decode().partition("/")
    if old_system == str(system) and int(old_timeline or 0) > timeline:
        raise OldTimeline(f"database is on timeline {timeline}, acknowledgements refer to {old_timeline}")
    reason = f"database changed from {stored.decode()} to {now.decode()}"
    log.warning("database_changed", extra={"before": stored.decode(), "now": now.decode()})
    async with acquire(pool) as connection:
        fence_id = int(await connection.fetchval(load("raise_fence"), reason, consumer))
    for shard in range(shards):
        await _replay(link, shard, committers[shard % len(committers)])
    # In this order: whoever dies in between leaves work that the next check sees, never a fence that stays.
    async with acquire(pool) as connection:
        await connection.execute(load("lower_fences"), fence_id)
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
