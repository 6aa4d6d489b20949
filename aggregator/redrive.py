"""Redrive: folds parked entries that this version knows, and removes them once they are settled.

In: rows of `parked`. Out: the same as for stream entries. Promise: the ledger makes a second attempt harmless.
"""

import logging

from aggregator.committer import Committer
from aggregator.decode import Entry
from contract.batch import VERSION
from contract.reasons import Parked
from database.connect import Pool, acquire
from database.queries import load

log = logging.getLogger(__name__)


async def redrive_parked(pool: Pool, committer: Committer) -> int:
    """Settle entries parked for a version that this program has; returns how many there were."""
    async with acquire(pool) as connection:
        rows = await connection.fetch(load("parked_of_version"), VERSION, Parked.UNKNOWN_VERSION)
    for row in rows:
        await committer.settle([Entry(row["shard"], row["stream_id"], row["payload"])])
        async with acquire(pool) as connection:
            await connection.execute(load("unpark"), row["parked_id"], Parked.UNKNOWN_VERSION)
    if rows:
        log.info("parked_entries_redriven", extra={"entries": len(rows)})
    return len(rows)
