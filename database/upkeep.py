"""Upkeep: everything the store needs regularly, as one function."""

from database.connect import Pool, acquire
from database.partitions import ensure
from database.queries import load
from database.settings import PostgresSettings


async def claim(pool: Pool, job: str, slot_s: float, consumer: str) -> bool:
    """Insert this job's current slot; False if somebody else did."""
    async with acquire(pool) as connection:
        row = await connection.fetchrow(load("claim_slot"), job, slot_s, consumer)
    return row is not None


async def run(pool: Pool, settings: PostgresSettings, *, drained: bool) -> None:
    """Do all of it, in order."""
    async with acquire(pool) as connection:
        await ensure(connection)
