"""Reach: the store and the streams, for a command that looks at them and ends.

In: the environment, else what `streamgauge up` runs in this home. Out: a pool on one schema, and a Redis client.
Promise: both are closed when the command ends; a run that is not there is a StartError that says so.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from database.connect import SCHEMA, Pool, acquire, open_pool
from database.migrate import check
from database.queries import load
from database.redis_link import open_link
from database.settings import PostgresSettings, RedisSettings, read_settings
from streamgauge.processes import StartError
from streamgauge.stack import names_any
from streamgauge.state import home_of, read_state


class Reach(NamedTuple):
    """What a command works with."""

    pool: Pool
    link: Any


@asynccontextmanager
async def reach(run_id: str | None = None) -> AsyncGenerator[Reach, None]:
    """Open the schema of real traffic or of a load-test run, and Redis."""
    environ = environment()
    settings = read_settings(PostgresSettings, environ)
    link = open_link(read_settings(RedisSettings, environ))
    pool = await open_pool(settings, application="streamgauge-cli", size=2)
    try:
        async with acquire(pool) as connection:
            await check(connection)
            schema = SCHEMA if run_id is None else await connection.fetchval(load("load_schema"), run_id)
        if schema is None:
            raise StartError(f"there is no load-test run {run_id}")
        if schema != SCHEMA:
            await pool.close()
            pool = await open_pool(settings, schema, application="streamgauge-cli", size=2)
        yield Reach(pool, link)
    finally:
        await pool.close()
        await link.aclose()


@asynccontextmanager
async def reach_streams(block_s: float = 0.0) -> AsyncGenerator[Any, None]:
    """Open Redis alone, for commands that block on it for at most `block_s`."""
    link = open_link(read_settings(RedisSettings, environment()), block_s=block_s)
    try:
        yield link
    finally:
        await link.aclose()


def environment() -> dict[str, str]:
    """Return the environment, with the addresses of what `up` runs here where it names none."""
    environ = dict(os.environ)
    up = read_state(home_of(environ))
    if up is None:
        return environ
    if not names_any(environ, "REDIS_URL") and "redis" in up.addresses:
        environ["REDIS_URL"] = up.addresses["redis"]
    if not names_any(environ, "POSTGRES_DSN", "POSTGRES_HOST") and "postgres" in up.addresses:
        environ["POSTGRES_DSN"] = up.addresses["postgres"]
    return environ
