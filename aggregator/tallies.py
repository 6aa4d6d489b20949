"""Tallies: counts that PostgreSQL alone would have, kept in Redis too: a failover may lose one that was shown already.

In: the transaction that raises one. Out: Redis has it before PostgreSQL commits; the larger one is restored.
Promise: nothing waits long while Redis is away; what it lacks then it has with the next tally that is raised.
"""

import asyncio
import logging
from typing import Final

from redis.exceptions import RedisError

from aggregator.lua import RAISE_FIELDS
from contract.errors import error_text
from contract.streams import TALLIES_KEY
from database.connect import Connection, Pool, acquire
from database.queries import load
from database.redis_link import Link

log = logging.getLogger(__name__)

KEEP_S: Final = 2.0
"""How long a transaction waits for Redis."""


async def keep(link: Link, connection: Connection) -> None:
    """Tell Redis the tallies as this transaction will leave them; call it before the COMMIT."""
    rows = await connection.fetch(load("tallies_kept"))
    fields = [text for row in rows for text in (row["name"], str(row["n"]))]
    try:
        async with asyncio.timeout(KEEP_S):
            await link.eval(RAISE_FIELDS, 1, TALLIES_KEY, *fields)
    except (RedisError, OSError) as error:
        log.warning("tallies_not_kept", extra={"error": error_text(error)})


async def restore(link: Link, pool: Pool) -> None:
    """Give PostgreSQL the tallies that Redis has, where they are larger."""
    kept: dict[bytes, bytes] = await link.hgetall(TALLIES_KEY)
    if not kept:
        return
    async with acquire(pool) as connection:
        names = [name.decode() for name in kept]
        await connection.execute(load("tallies_restore"), names, [int(n) for n in kept.values()])
