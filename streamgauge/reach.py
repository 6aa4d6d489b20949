"""Reach: the store and the streams, for a command that looks at them and ends.

In: the environment, else what `streamgauge up` runs in this home. Out: a pool on one schema, and a Redis client.
Promise: both are closed when the command ends; a run that is not there is a StartError that says so.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

from redis.exceptions import RedisError

from database.connect import SCHEMA, Pool, acquire, open_pool
from database.migrate import check
from database.queries import load
from database.redis_link import open_link
from database.settings import PostgresSettings, RedisSettings, read_settings
from streamgauge.processes import StartError
from streamgauge.stack import names_any, postgres_address
from streamgauge.state import home_of, read_state

SERVERS: Final = {"PostgreSQL": ("POSTGRES_DSN", "POSTGRES_HOST"), "Redis": ("REDIS_URL",)}
"""Which settings name a server."""


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


def describe_away(error: BaseException) -> str:
    """Say which server failed a call, where it is, which setting says so, and how; no user and no password."""
    said = f"{type(error).__name__}: {error}".rstrip(": ")
    server = _server_of(error)
    if server is None:
        return said
    environ = environment()
    setting = next((name for name in SERVERS[server] if names_any(environ, name)), SERVERS[server][0])
    hint = ""
    if not names_any(environ, *SERVERS[server]):
        hint = f"; nothing is up in {home_of(environ)}, and {setting} is not set"
    return f"{server} at {_place(server, environ)} ({setting}): {said}{hint}"


def _server_of(error: BaseException) -> str | None:
    if isinstance(error, RedisError):
        return "Redis"
    at = error.__traceback__
    while at is not None:
        name = str(at.tb_frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] == "asyncpg" or name == "database.connect":
            return "PostgreSQL"
        at = at.tb_next
    return None


def _place(server: str, environ: dict[str, str]) -> str:
    if server == "Redis":
        url, port = read_settings(RedisSettings, environ).redis_url.get_secret_value(), "6379"
    else:
        named = {name: value for name, value in environ.items() if name.startswith("POSTGRES_")}
        url, port = postgres_address(named), "5432"
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return parts.path
    query = parse_qs(parts.query)
    hosts = parts.netloc.rpartition("@")[2] or query.get("host", ["localhost"])[0]
    port = query.get("port", [port])[0]
    return ",".join(f"{host}:{port}" if host.endswith("]") or ":" not in host else host for host in hosts.split(","))
