"""Connections: pools whose every call has a deadline, that refuse a read-only server and expire after failover.

In: PostgresSettings and a schema. Out: an asyncpg pool with search_path set to that schema.
Promise: no connection outlives a demotion of its server by more than one failed statement (`is_failover`).
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from database.hosts import Hosts, host_names
from database.settings import PostgresSettings, SettingsError

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]
else:
    Pool = asyncpg.Pool
    Connection = asyncpg.Connection

SCHEMA: Final = "streamgauge"
ACQUIRE_TIMEOUT_S: Final = 10.0
TRANSACTION_TIMEOUT_S: Final = 60
IDLE_IN_TRANSACTION_TIMEOUT_S: Final = 10
LOCK_TIMEOUT_S: Final = 10


class NotCommitted(Exception):
    """COMMIT was answered with another tag, so that nothing is stored; or with a warning: stored here, perhaps lost."""


AWAY: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what asyncpg raises when a server dies under a call that had just begun
    OSError,
    TimeoutError,
    NotCommitted,
)
"""What a call raises when the server failed it: nothing is said about the program or its data."""

ACCESS_SQLSTATES: Final = ("28", "3D000", "42501")
"""Wrong role, wrong password, no such database, missing privileges: waiting does not help."""


def require_access(error: BaseException) -> None:
    """Raise SettingsError when the server answered, and refused what the settings say."""
    if isinstance(error, asyncpg.exceptions.ClientConfigurationError):
        raise SettingsError(f"POSTGRES_DSN: {error}") from None
    state = getattr(error, "sqlstate", None) or ""
    if "unsupported startup parameter" in str(error):
        raise SettingsError(f"POSTGRES_DSN: a pooler answers ({error}): name it by POSTGRES_POOLED_DSN") from None
    if state.startswith(ACCESS_SQLSTATES):
        raise SettingsError(f"POSTGRES_DSN (or POSTGRES_USER, _PASSWORD, _DB): PostgreSQL says {error}") from None


OPERATIONAL_SQLSTATES: Final = ("40", "53", "55", "57", "08", "25", "58", "XX")
"""Classes of errors that say nothing about the data: retried for ever, never counted against a batch."""

DATA_SQLSTATES: Final = ("22", "21000", "54")
"""Errors that the data causes: reproduced alone they quarantine a batch."""


def is_failover(error: BaseException) -> bool:
    """Whether the error says that this server is no longer the one to write to."""
    state = getattr(error, "sqlstate", None) or ""
    return state == "25006" or state.startswith(("57P0", "08"))


def is_data_fault(error: BaseException) -> bool:
    """Whether PostgreSQL refused the values themselves (or asyncpg could not encode them)."""
    if isinstance(error, asyncpg.exceptions.DataError):
        return True
    state = getattr(error, "sqlstate", None) or ""
    return state.startswith(DATA_SQLSTATES)


def server_settings(settings: PostgresSettings, schema: str, application: str) -> dict[str, str]:
    """Return the session settings of every connection (values in milliseconds as PostgreSQL reads them)."""
    return {
        "application_name": application,
        "search_path": f'"{schema}"',
        "statement_timeout": str(int(settings.streamgauge_statement_timeout_s * 1000)),
        "lock_timeout": str(LOCK_TIMEOUT_S * 1000),
        "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_S * 1000),
        "timezone": "UTC",
    }


def dsn_parts(settings: PostgresSettings) -> dict[str, Any]:
    """Return the asyncpg connect arguments that say where the server is."""
    if settings.postgres_dsn is not None:
        return {"dsn": settings.postgres_dsn.get_secret_value()}
    return {
        "host": host_names(settings),
        "port": settings.postgres_port,
        "database": settings.postgres_db,
        "user": settings.postgres_user,
        "password": settings.postgres_password.get_secret_value() if settings.postgres_password else None,
    }


async def open_pool(
    settings: PostgresSettings,
    schema: str = SCHEMA,
    *,
    application: str = "streamgauge",
    size: int = 4,
    connected: Callable[[], None] = lambda: None,
    hosts: Hosts | None = None,
) -> Pool:
    """Open a pool of at most `size` read-write connections whose names resolve in `schema`.

    `connected` is called for each new connection: the server behind it may be another one. Once one is found that is
    on a newer timeline, connections to others are not used again.
    """
    hosts = hosts or Hosts(settings)
    known = hosts.changes

    async def init(_: Connection) -> None:
        nonlocal known
        connected()
        if hosts.changes != known:
            known = hosts.changes
            await pool.expire_connections()

    pool: Pool = await asyncpg.create_pool(
        **dsn_parts(settings),
        connect=hosts.connect,
        min_size=0,
        max_size=size,
        timeout=settings.streamgauge_postgres_connect_timeout_s,
        command_timeout=settings.streamgauge_statement_timeout_s + 5,
        target_session_attrs=SessionAttribute.read_write,
        server_settings=server_settings(settings, schema, application),
        init=init,
        setup=_limit_transactions,
        max_inactive_connection_lifetime=300,
    )
    return pool


async def _limit_transactions(connection: Connection) -> None:
    # PostgreSQL 17 and newer; set after connecting because an older server refuses an unknown start-up setting.
    if connection.get_server_version().major >= 17:
        await connection.execute(f"SET transaction_timeout = '{TRANSACTION_TIMEOUT_S}s'")


@asynccontextmanager
async def acquire(pool: Pool) -> AsyncGenerator[Connection, None]:
    """Borrow a connection with a deadline; expire the whole pool when its server turns out to be demoted."""
    connection = await pool.acquire(timeout=ACQUIRE_TIMEOUT_S)
    try:
        yield connection
    except (asyncpg.PostgresError, OSError) as error:
        if is_failover(error):
            await pool.expire_connections()
        raise
    finally:
        await pool.release(connection, timeout=ACQUIRE_TIMEOUT_S)


async def commit(connection: Connection) -> None:
    """COMMIT and require its tag, and no warning with it.

    PostgreSQL answers ROLLBACK, without an error, for an aborted transaction; and COMMIT with a warning when its wait
    for a synchronous standby was cancelled: it is committed here and may be nowhere else.
    """
    warnings: list[str] = []

    def note(_: object, message: asyncpg.PostgresLogMessage) -> None:
        if message.severity_en == "WARNING":
            warnings.append(message.message)

    connection.add_log_listener(note)
    try:
        tag = await connection.execute("COMMIT")
    finally:
        if not is_lost(connection):
            connection.remove_log_listener(note)
    if tag != "COMMIT" or warnings:
        raise NotCommitted("; ".join([tag, *warnings]))


def is_lost(connection: Connection) -> bool:
    """Whether nothing can be asked of a connection any more; a pool's proxy of one that died raises when asked."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


async def roll_back(connection: Connection) -> None:
    """ROLLBACK where that is possible; whatever comes of it never hides the error that led here."""
    with suppress(*AWAY):
        if not is_lost(connection):
            await connection.execute("ROLLBACK")


@asynccontextmanager
async def transaction(connection: Connection, isolation: str = "READ COMMITTED") -> AsyncGenerator[Connection, None]:
    """Run the block in one transaction and require the tag COMMIT at its end; never catch SQL errors inside.

    `asyncpg.Connection.transaction` is not used because it ignores the tag of COMMIT.
    """
    await connection.execute(f"BEGIN ISOLATION LEVEL {isolation}")
    try:
        yield connection
    except BaseException:
        await roll_back(connection)
        raise
    await commit(connection)
