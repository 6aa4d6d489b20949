"""Jobs: the schedule's tables: whose slot is whose, how every attempt ended, what was asked for by hand.

In: a pool or the connection that holds a job's lock. Out: runs to do, and rows of what was done.
Promise: a run is begun by one aggregator and ended by the one that holds it; the clock is the database's.
"""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from database.connect import Connection, Pool, acquire, is_lost, transaction
from database.queries import load

MAX_CRASHES: Final = 3
"""A run whose process died so often is given up."""
AGGREGATOR_CURRENT_S: Final = 15.0
"""An aggregator whose heartbeat is older is taken for dead."""
EARLY_S: Final = 0.25
"""Clocks differ and timers fire early: this close to a slot, and a tenth of the interval at most, it has begun."""
LONGEST_DETAIL: Final = 2000


class Claim(NamedTuple):
    """A run that is ours, until its attempt ends or its beat stops."""

    job: str
    scheduled_for: datetime
    attempt: int


class Planned(NamedTuple):
    """A job as aggregators have it in their schedules."""

    job: str
    title: str
    every_s: float
    judges_data: bool


Keep = Callable[[Connection], Awaitable[None]]
"""Called in a transaction that counts an end or a crash of a run, before its COMMIT."""


class NoSuchJob(LookupError):
    """No aggregator has a job of this name; the text names those there are."""


class NoAggregator(Exception):
    """Nobody would do what was asked for."""


async def register(pool: Pool, jobs: Sequence[Planned]) -> None:
    """Write down what is in our schedule; jobs that nobody has had for an hour are forgotten."""
    columns = [list(column) for column in zip(*jobs, strict=True)]
    async with acquire(pool) as connection:
        await connection.execute(load("register_jobs"), *columns)
        await connection.execute(load("forget_jobs"))


@asynccontextmanager
async def locked(pool: Pool, job: str) -> AsyncGenerator[Connection | None, None]:
    """Borrow a connection that holds the lock of a job; None if another session has it."""
    async with acquire(pool) as connection:
        if not await connection.fetchval(load("job_lock"), job):
            yield None
            return
        try:
            yield connection
        finally:
            if not is_lost(connection):
                await connection.fetchval(load("job_unlock"), job)


async def evict(pool: Pool, job: str, stale_s: float) -> None:
    """End the session that holds the lock of a job, if the beat of its run has stopped."""
    async with acquire(pool) as connection:
        await connection.execute(load("job_evict"), job, stale_s)


async def open_runs(pool: Pool, jobs: Sequence[str], stale_s: float) -> dict[str, bool]:
    """Return the jobs with a run to begin again or that was asked for; True where somebody had begun it."""
    async with acquire(pool) as connection:
        rows = await connection.fetch(load("open_runs"), list(jobs), stale_s)
    return {row["job"]: row["crashed"] for row in rows}


async def take(connection: Connection, job: str, consumer: str, stale_s: float, keep: Keep) -> Claim | None:
    """Begin the oldest run that was asked for, handed back or left by a crash; on the connection with the lock."""
    return await _begin(connection, job, keep, load("take_run"), job, consumer, stale_s, MAX_CRASHES)


async def claim_slot(
    connection: Connection, job: str, every_s: float, consumer: str, *, grace_s: float, coalesce: bool, keep: Keep
) -> Claim | None:
    """Begin the newest slot unless it has an owner; one that is later than the grace is written down as skipped."""
    early_s = min(EARLY_S, every_s / 10)
    given = (job, every_s, consumer, grace_s, coalesce, early_s)
    return await _begin(connection, job, keep, load("claim_slot"), *given)


async def _begin(connection: Connection, job: str, keep: Keep, sql: str, *given: Any) -> Claim | None:
    """Run a statement that begins a run, or ends one that is not to begin."""
    async with transaction(connection):
        row = await connection.fetchrow(sql, *given)
        if row is None:
            return None
        if row["outcome"] is not None or row["crashes"]:
            await keep(connection)
    if row["outcome"] is not None:
        return None
    return Claim(job, row["scheduled_for"], row["attempt"])


async def is_open(connection: Connection, job: str) -> bool:
    """Whether a run was begun that has not ended."""
    return bool(await connection.fetchval(load("has_open_run"), job))


async def beat(connection: Connection, claim: Claim, consumer: str) -> bool:
    """Say that a run goes on; False when it is no longer ours."""
    return bool(
        await connection.fetchval(load("beat_run"), claim.job, claim.scheduled_for, consumer, claim.attempt, timeout=10)
    )


async def finish(
    pool: Pool, claim: Claim, consumer: str, outcome: str, detail: str, facts: Mapping[str, Any], keep: Keep
) -> bool:
    """Write down how a run ended; False when it is no longer ours."""
    text = detail.replace("\0", "")[:LONGEST_DETAIL] or None
    known = msgspec.json.encode(dict(facts)).decode().replace("\\u0000", "")
    async with acquire(pool) as connection, transaction(connection):
        ended = await connection.fetchval(
            load("finish_run"), claim.job, claim.scheduled_for, consumer, claim.attempt, outcome, text, known
        )
        if ended:
            await keep(connection)
    return bool(ended)


async def release(pool: Pool, claim: Claim, consumer: str) -> None:
    """Hand a run back: another aggregator begins it again."""
    async with acquire(pool) as connection:
        await connection.execute(load("release_run"), claim.job, claim.scheduled_for, consumer, claim.attempt)


async def request(pool: Pool, job: str, trigger: str, who: str) -> datetime:
    """Ask for a run now and return its slot. Raises NoSuchJob or NoAggregator."""
    async with acquire(pool) as connection:
        names = [row["job"] for row in await connection.fetch(load("list_jobs"))]
        if not await _is_aggregator_alive(connection):
            raise NoAggregator("no aggregator is running: nothing would be done")
        if job not in names:
            raise NoSuchJob(f"there is no job {job}; there are {', '.join(names) or 'none'}")
        slot: datetime = await connection.fetchval(load("request_run"), job, trigger, who)
    return slot


async def find_ended(pool: Pool, job: str, slot: datetime) -> dict[str, Any] | None:
    """Return a run that has ended; None while it waits or goes on."""
    found = await history(pool, job, limit=1, slot=slot)
    return found[0] if found and found[0]["outcome"] is not None else None


async def is_aggregator_alive(pool: Pool) -> bool:
    """Whether any aggregator's heartbeat is current."""
    async with acquire(pool) as connection:
        return await _is_aggregator_alive(connection)


async def _is_aggregator_alive(connection: Connection) -> bool:
    age_s: float | None = await connection.fetchval(load("heartbeat_age"))
    return age_s is not None and age_s <= AGGREGATOR_CURRENT_S


async def list_jobs(pool: Pool) -> list[dict[str, Any]]:
    """Return every job with its newest run: `last` is null when there was none."""
    async with acquire(pool) as connection:
        rows = await connection.fetch(load("list_jobs"))
    of_job = ("job", "title", "every_s", "judges_data", "next_run", "last_success_at", "is_overdue")
    of_run = (
        "scheduled_for",
        "started_at",
        "finished_at",
        "outcome",
        "detail",
        "duration_s",
        "consumer",
        "attempt",
        "trigger",
    )
    return [
        {name: row[name] for name in of_job}
        | {"last": {name: row[name] for name in of_run} if row["scheduled_for"] else None}
        for row in rows
    ]


async def history(
    pool: Pool, job: str | None = None, *, limit: int = 50, slot: datetime | None = None
) -> list[dict[str, Any]]:
    """Return runs, newest first, each with all its attempts that ended."""
    async with acquire(pool) as connection:
        rows = await connection.fetch(load("job_history"), job, limit, slot)
    return [
        {**row, "attempts": json.loads(row["attempts"]), "facts": json.loads(row["facts"]) if row["facts"] else None}
        for row in rows
    ]
