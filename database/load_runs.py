"""Load-test runs: each has a schema of its own; a purged one leaves a tombstone.

In: a run id from a batch. Out: the schema its rows go to. Promise: a purged run takes nothing more; there are never
more schemas than are asked for, whatever batches say.
"""

from datetime import datetime
from typing import NamedTuple

from database import partitions
from database.connect import Pool, acquire, transaction
from database.migrate import migrate_schema
from database.queries import load


class TooManyRuns(Exception):
    """As many runs are kept as may be; the text says what to do."""


class LoadRun(NamedTuple):
    """A run whose rows are still there."""

    run_id: str
    schema_name: str
    created_at: datetime


async def ensure_run(pool: Pool, run_id: str, events: int, most: int) -> str | None:
    """Return the schema of a run, made at its first batch; None (and `events` counted) if it was purged.

    TooManyRuns: it is new, and there are `most` that were not purged.
    """
    async with acquire(pool) as connection:
        row = await connection.fetchrow(load("find_run"), run_id)
        if row is not None and row["purged_at"] is not None:
            await connection.execute(load("refuse_run"), run_id, events)
            return None
        if row is not None and row["ready"]:
            return str(row["schema_name"])
        schema: str | None = await connection.fetchval(load("add_run"), run_id, most)
        if schema is None:
            raise TooManyRuns(f"run {run_id!r} is one more than the {most} that are kept: `streamgauge purge` others")
        await migrate_schema(connection, schema)
        # The pool resets it when the connection goes back.
        await connection.execute(f'SET search_path = "{schema}"')
        await partitions.ensure(connection)
        return schema


async def list_runs(pool: Pool) -> list[LoadRun]:
    """Return the runs that were not purged, oldest first."""
    async with acquire(pool) as connection:
        return [LoadRun(*row.values()) for row in await connection.fetch(load("list_runs"))]


async def migrate_runs(pool: Pool) -> list[str]:
    """Bring the schema of every run to the newest version; returns what was applied."""
    applied: list[str] = []
    for run in await list_runs(pool):
        async with acquire(pool) as connection:
            applied += [f"{run.run_id}: {name}" for name in await migrate_schema(connection, run.schema_name)]
    return applied


async def purge(pool: Pool, run_id: str) -> bool:
    """Drop a run's schema and leave the tombstone; False if there is no such run."""
    async with acquire(pool) as connection, transaction(connection):
        row = await connection.fetchrow(load("purge_run"), run_id)
        if row is None:
            return False
        await connection.execute(load("upkeep_lock_of"), row["schema_name"])
        await connection.execute(f'DROP SCHEMA IF EXISTS "{row["schema_name"]}" CASCADE')
    return True
