"""Failover: notices that PostgreSQL is not what acknowledgements refer to, or older, and restores what it lacks.

In: identity (system identifier, timeline) and newest commit, as Redis and PostgreSQL have them. Out: a fence in
PostgreSQL while the retained streams are folded again through the ledger.
Promise: a failover or a restored backup that lost a tail of commits loses nothing that the streams still hold; what
they do not hold any more is told; a database on an older timeline is refused. From before the folding on Redis takes
acknowledgements of commits to this database alone: what another one, that lives on, commits meanwhile stays pending.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from aggregator.committer import Committer
from aggregator.decode import Entry
from aggregator.lua import CLAIM, PUT
from aggregator.reader import READ_ENTRIES, divided
from aggregator.tallies import restore
from aggregator.trial import Trial
from contract.batch import decoded_bytes
from contract.crash import NEVER, CrashPoint
from contract.streams import COMMIT_KEY, DATABASE_KEY, FIELD, OWNER_KEY, stream_key
from database.connect import Pool, acquire
from database.hosts import OldTimeline
from database.queries import load
from database.redis_link import Link

log = logging.getLogger(__name__)


class Identity(NamedTuple):
    """Which database a server has."""

    system: int
    timeline: int

    def __str__(self) -> str:
        """As it stands in Redis."""
        return f"{self.system}/{self.timeline}"


class Commit(NamedTuple):
    """The newest commit of real traffic."""

    database: Identity
    newest: int
    at_s: float | None


class OtherDatabase(OSError):
    """What was committed, or restored, is not in the database whose commits are acknowledged."""


class Standing(NamedTuple):
    """What PostgreSQL and Redis say of each other."""

    commit: Commit
    stored: str | None
    """The database that acknowledgements refer to."""
    owner: str | None
    """The one whose commits may be acknowledged: another one while totals are being restored there."""
    acknowledged: int

    @property
    def now(self) -> Identity:
        """Which database the server has."""
        return self.commit.database

    @property
    def is_current(self) -> bool:
        """Whether this is the database, and has all that was acknowledged."""
        marks = {self.stored, self.owner} - {None}
        return marks <= {str(self.now)} and self.acknowledged <= self.commit.newest

    def require_newest(self) -> None:
        """Raise OldTimeline where a newer timeline of this database is known."""
        for mark in (self.stored, self.owner):
            system, _, timeline = (mark or "").partition("/")
            if system == str(self.now.system) and int(timeline or 0) > self.now.timeline:
                raise OldTimeline(*self.now, int(timeline))

    def __str__(self) -> str:
        """Say it for the fence."""
        return (
            f"database {self.now} at commit {self.commit.newest}; acknowledgements refer to {self.stored or self.now} "
            f"at commit {self.acknowledged}"
        )


async def read_commit(pool: Pool) -> Commit:
    """Return the newest commit of real traffic."""
    async with acquire(pool) as connection:
        row = await connection.fetchrow(load("newest_commit"))
    assert row is not None, "BUG: an aggregate has a row"
    return Commit(Identity(int(row["system_identifier"]), int(row["timeline"])), int(row["commit_id"]), row["at_s"])


async def read_standing(link: Link, pool: Pool) -> Standing:
    """Compare what both know; the first aggregator of all leaves a mark in Redis."""
    stored, owner = await link.get(DATABASE_KEY), await link.get(OWNER_KEY)
    # In this order: a commit made in between is newer than what was acknowledged, never older.
    acknowledged = int(await link.get(COMMIT_KEY) or 0)
    commit = await read_commit(pool)
    if stored is None:
        # Only then: a Redis that is out of memory refuses every SET, and commits must go on.
        await link.set(DATABASE_KEY, str(commit.database), nx=True)
        stored = await link.get(DATABASE_KEY)
    return Standing(commit, _text(stored), _text(owner), acknowledged)


def _text(mark: bytes | None) -> str | None:
    return None if mark is None else mark.decode()


async def check(
    link: Link, pool: Pool, committers: Sequence[Committer], shards: int, consumer: str, crash: CrashPoint = NEVER
) -> Identity:
    """Compare; on a change raise the fence, fold every retained stream again, lower the fence. Returns which it is."""
    standing = await read_standing(link, pool)
    if standing.is_current:
        if standing.owner is None:
            await _claim(link, standing.now)
        # Another check was through, and then this one or one of the dead raised its fence, and failed.
        await _lower_fences(pool, standing.now)
        return standing.now
    standing.require_newest()
    reason = f"{standing}{await _gap(link, shards, standing.commit.at_s)}"
    log.warning("database_changed", extra={"reason": reason})
    async with acquire(pool) as connection:
        is_again = bool(await connection.fetchval(load("fence_is_up")))
        await connection.execute(load("raise_fence"), reason, consumer)
    crash.reach("after_fence")
    # Before the folding: what is acknowledged from now on is committed here.
    await _claim(link, standing.now)
    await restore(link, pool)
    async with Trial() as trial:
        for shard in range(shards):
            # If somebody who did this has died meanwhile, then perhaps of an entry.
            await _replay(link, shard, committers[shard % len(committers)], trial if is_again else None)
    crash.reach("before_fence_falls")
    # In this order: whoever dies in between leaves work that the next check sees, never a fence that stays.
    await _lower_fences(pool, standing.now)
    crash.reach("after_fence_fell")
    if _text(await link.get(OWNER_KEY)) != str(standing.now):
        raise OtherDatabase(f"{standing.now} was restored, and another one meanwhile")
    await link.eval(PUT, 1, COMMIT_KEY, str((await read_commit(pool)).newest))
    await link.eval(PUT, 1, DATABASE_KEY, str(standing.now))
    log.warning("database_restored", extra={"now": str(standing.now)})
    return standing.now


async def _lower_fences(pool: Pool, identity: Identity) -> None:
    async with acquire(pool) as connection:
        await connection.execute(load("lower_fences"), str(identity))


async def _claim(link: Link, now: Identity) -> None:
    """Have Redis take acknowledgements of commits to this database alone."""
    owner: bytes = await link.eval(CLAIM, 1, OWNER_KEY, str(now.system), str(now.timeline))
    if owner.decode() != str(now):
        raise OldTimeline(*now, int(owner.rpartition(b"/")[2]))


async def _gap(link: Link, shards: int, newest_at_s: float | None) -> str:
    """Tell when the streams begin later than the database ends: what lies between cannot be restored."""
    for shard in range(shards):
        first = await link.xrange(stream_key(shard), count=1)
        begins_s = int(first[0][0].partition(b"-")[0]) / 1000 if first else None
        if begins_s is not None and newest_at_s is not None and begins_s > newest_at_s:
            return f"; {begins_s - newest_at_s:.0f} s between them are in no stream any more"
    return ""


async def _replay(link: Link, shard: int, committer: Committer, trial: Trial | None) -> None:
    """Fold all that a stream retains; the ledger leaves out what the database has."""
    after = "-"
    while True:
        raw = await link.xrange(stream_key(shard), min=after, max="+", count=READ_ENTRIES)
        if not raw:
            return
        held = [(i.decode(), fields.get(FIELD, b"")) for i, fields in raw]
        entries = [Entry(shard, stream_id, data, decoded_bytes(data)) for stream_id, data in held]
        if trial is not None:
            entries = await committer.try_out(entries, trial)
        for group in divided(entries):
            await committer.settle(group)
        after = "(" + raw[-1][0].decode()
