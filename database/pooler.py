"""Pooler: connections through PgBouncer in transaction mode, for what needs no session: commits and scrapes.

In: PostgresSettings. Out: a pool by POSTGRES_POOLED_DSN, or the ordinary one where that is not set.
Promise: nothing is kept in a session: no prepared statement, no setting, no lock; a role without the search_path is
refused by name. Timeouts come from the role, since PgBouncer takes no settings at the start of a connection.
"""

from collections.abc import Callable

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from database.connect import SCHEMA, Connection, Pool, dsn_parts, open_pool
from database.hosts import Hosts
from database.settings import PostgresSettings, SettingsError


async def open_pooled(
    settings: PostgresSettings,
    *,
    application: str,
    size: int,
    connected: Callable[[], None] = lambda: None,
    hosts: Hosts | None = None,
) -> Pool:
    """Open a pool in the main schema for transactions and single statements; `hosts` are those without a pooler."""
    if settings.postgres_pooled_dsn is None:
        return await open_pool(settings, application=application, size=size, connected=connected, hosts=hosts)
    through = settings.model_copy(update={"postgres_dsn": settings.postgres_pooled_dsn})

    async def init(connection: Connection) -> None:
        connected()
        await _require_search_path(connection)

    return await asyncpg.create_pool(
        **dsn_parts(through),
        connect=Hosts(through).connect,
        min_size=0,
        max_size=size,
        timeout=settings.streamgauge_postgres_connect_timeout_s,
        command_timeout=settings.streamgauge_statement_timeout_s + 5,
        target_session_attrs=SessionAttribute.read_write,
        server_settings={"application_name": application},
        # A statement prepared in one transaction is unknown to the server that has the next one.
        statement_cache_size=0,
        init=init,
        # There is nothing to reset, and it would be done to a server connection that is somebody else's by then.
        reset=_nothing,
        max_inactive_connection_lifetime=300,
    )


async def _require_search_path(connection: Connection) -> None:
    found = await connection.fetchrow("SELECT current_schema() AS schema, current_user AS role")
    assert found is not None, "BUG: a query without FROM has a row"
    if found["schema"] != SCHEMA:
        raise SettingsError(
            f"POSTGRES_POOLED_DSN: names resolve in {found['schema']}: "
            f'ALTER ROLE "{found["role"]}" SET search_path = {SCHEMA}'
        )


async def _nothing(_: Connection) -> None:
    return
