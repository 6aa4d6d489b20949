"""Load-test runs: each has a schema of its own; a purged one leaves a tombstone.

In: a run id from a batch. Out: the schema its rows go to. Promise: a purged run takes nothing more.
"""

from database.connect import Pool, acquire, transaction
from database.migrate import migrate_schema
from database.queries import load


async def ensure_run(pool: Pool, run_id: str, events: int) -> str | None:
    """Return the schema of a run, made at its first batch; None (and `events` counted) if it was purged."""
    async with acquire(pool) as connection:
        row = await connection.fetchrow(load("find_run"), run_id)
        if row is not None and row["purged_at"] is not None:
            await connection.execute(load("refuse_run"), run_id, events)
            return None
        if row is not None:
            return str(row["schema_name"])
        schema = str(await connection.fetchval(load("add_run"), run_id))
        await migrate_schema(connection, schema)
        return schema


async def purge(pool: Pool, run_id: str) -> bool:
    """Drop a run's schema and leave the tombstone; False if there is no such run."""
    async with acquire(pool) as connection, transaction(connection):
        row = await connection.fetchrow(load("purge_run"), run_id)
        if row is None:
            return False
        await connection.execute(f'DROP SCHEMA IF EXISTS "{row["schema_name"]}" CASCADE')
    return True
