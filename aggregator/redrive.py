"""Redrive: folds parked entries that this version knows, and removes them once they are settled.

In: rows of `parked`. Out: the same as for stream entries. Promise: the ledger makes a second attempt harmless; an
entry that ends who decodes it ends a child process.
"""

import logging
from typing import Final

import asyncpg

from aggregator.committer import Committer
from aggregator.decode import Entry
from aggregator.trial import Trial
from contract.batch import VERSION
from contract.reasons import Parked
from database.connect import Pool, acquire
from database.queries import load

log = logging.getLogger(__name__)


PAGE: Final = 32
"""Entries read at once: each may be as long as a batch may be."""


async def redrive_parked(pool: Pool, committer: Committer) -> int:
    """Settle entries parked for a version that this program has; returns how many there were."""
    redriven = after = 0
    async with Trial() as trial:
        while rows := await _parked(pool, after):
            for row in rows:
                entry = Entry(row["shard"], row["stream_id"], row["payload"])
                # Who parked it did not decode it.
                await committer.settle(await committer.try_out([entry], trial))
                async with acquire(pool) as connection:
                    await connection.execute(load("unpark"), row["parked_id"], Parked.UNKNOWN_VERSION)
            redriven, after = redriven + len(rows), rows[-1]["parked_id"]
    if redriven:
        log.info("parked_entries_redriven", extra={"entries": redriven})
    return redriven


async def _parked(pool: Pool, after: int) -> list[asyncpg.Record]:
    async with acquire(pool) as connection:
        return await connection.fetch(load("parked_of_version"), VERSION, Parked.UNKNOWN_VERSION, after, PAGE)
