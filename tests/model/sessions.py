"""Connections: what the services take for asyncpg's pool, each statement that others could notice a request.

In: SQL as production sends it. Out: asyncpg's results and errors. Promise: BEGIN, ROLLBACK, COPY and what a
transaction reads of rows that it holds are no steps of their own, for nobody can tell when they happen; COMMIT is one.
"""

from collections.abc import AsyncIterable, Callable, Generator, Sequence
from types import SimpleNamespace
from typing import Any, Final

import asyncpg

from database.queries import load
from tests.model.statements import DIRECT, WAITING
from tests.model.store import Session, Statement, Store, Transaction
from tests.model.tasks import BLOCKED, Gate, Process, Request, ask

MAX_CONNECTIONS: Final = 3
COMMIT: Final = 4
"""Label of a COMMIT."""
QUIET: Final = frozenset(
    load(name)
    for name in ("admit_metric", "admit_layout", "find_series", "metric_active", "add_series", "register_producers")
)
"""Under the lock of admissions."""
IMMEDIATE: Final = QUIET | {load("clock")}


class Call(Request):
    """One statement on its way, or at work."""

    can_break = True

    def __init__(self, session: Session, statement: Callable[[], Statement], label: int, sql: str) -> None:
        self._sql = sql
        self.session = session
        self.statement: Callable[[], Statement] | None = statement
        """None: the server has it."""
        self.label = label

    def perform(self) -> Any:
        """Have the server work on it."""
        session = self.session
        if not session.is_open or not session.store.is_up:
            session.end()
            raise _gone()
        if self.statement is not None:
            session.statement, self.statement = self.statement(), None
        is_through, result = session.advance()
        if is_through:
            return result
        self.wake, self.holds = session.wake, session.holds
        return BLOCKED

    def may_abort(self) -> bool:
        """Whether it is the COMMIT, not begun, of a sound transaction."""
        tx = self.session.transaction
        return self.label == COMMIT and self.statement is not None and tx is not None and not tx.is_aborted

    def abort(self) -> None:
        """Abort the transaction without a word to who drives it."""
        if self.session.transaction is not None:
            self.session.transaction.is_aborted = True

    def text(self) -> str:
        """Say the statement's first line."""
        return next(line for line in self._sql.splitlines() if not line.startswith("--"))[:80]

    def broken(self) -> Exception:
        """End the connection; the server rolls back what is not committed."""
        self.session.end()
        return _gone()


class Connect(Request):
    """A new connection on its way."""

    label = 3
    can_break = True

    def __init__(self, store: Store) -> None:
        self._store = store

    def perform(self) -> Session:
        """Connect."""
        if not self._store.is_up:
            raise ConnectionRefusedError
        return Session(self._store)

    def text(self) -> str:
        """Say so."""
        return "connect to PostgreSQL"

    def broken(self) -> Exception:
        """Fail."""
        return ConnectionResetError()


def _gone() -> Exception:
    return asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


class Connection:
    """One connection of a pool."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.is_expired = False
        self._listeners: list[Callable[[Any, Any], None]] = []

    def is_closed(self) -> bool:
        """Whether the client knows that it is gone."""
        return not (self.session.is_open and self.session.has_client)

    def close(self) -> None:
        """End the session, unless the process is dead: then its world decides what becomes of it."""
        if self.session.has_client:
            self.session.end()

    def get_server_version(self) -> Any:
        """PostgreSQL 15: no setting to make at each start."""
        return SimpleNamespace(major=15)

    def add_log_listener(self, listener: Callable[[Any, Any], None]) -> None:
        """Be told of warnings."""
        self._listeners.append(listener)

    def remove_log_listener(self, listener: Callable[[Any, Any], None]) -> None:
        """Be told no more."""
        self._listeners.remove(listener)

    async def execute(self, sql: str, *arguments: Any, timeout: float | None = None) -> str:
        """Run a statement; returns its tag."""
        session = self.session
        if sql == "COMMIT":
            return await self._commit()
        if sql.startswith("BEGIN") or sql == "ROLLBACK":
            if self.is_closed():
                raise _gone()
            session.begin() if sql[0] == "B" else session.roll_back()
            return sql
        await self.fetch(sql, *arguments)
        return "OK"

    async def _commit(self) -> str:
        tx = self.session.transaction
        if tx is None:
            raise _gone()
        tag: str = await ask(Call(self.session, lambda: self._end(tx), COMMIT, "COMMIT"))
        if tx.warning:
            message = SimpleNamespace(severity_en="WARNING", message="canceling wait for synchronous replication")
            for listener in tuple(self._listeners):
                listener(self, message)
        return tag

    def _end(self, tx: Transaction) -> Statement:
        tag = yield from self.session.store.commit(tx)
        self.session.transaction = None
        return tag

    async def executemany(self, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run a statement for each row."""
        for row in rows:
            await self.fetch(sql, *row)

    async def fetch(self, sql: str, *arguments: Any) -> list[Any]:
        """Run a statement; returns its rows."""
        if sql in IMMEDIATE:
            return self._now(sql, arguments)
        label = hash((sql, *(a for a in arguments if isinstance(a, str | int))))
        return await ask(Call(self.session, lambda: self._run(sql, arguments), label, sql))

    async def fetchrow(self, sql: str, *arguments: Any) -> Any:
        """Return the first row."""
        rows = await self.fetch(sql, *arguments)
        return rows[0] if rows else None

    async def fetchval(self, sql: str, *arguments: Any) -> Any:
        """Return the first value of the first row."""
        row = await self.fetchrow(sql, *arguments)
        return next(iter(row.values())) if row else None

    async def copy_to_table(
        self,
        table: str,
        *,
        source: AsyncIterable[bytes],
        columns: Sequence[str],
        format: str,  # noqa: A002
    ) -> None:
        """Take in parts."""
        assert table == "parts" and self.session.transaction is not None
        async for data in source:
            self.session.transaction.copied.append(data)

    def _now(self, sql: str, arguments: Sequence[Any]) -> list[Any]:
        session = self.session
        if not session.is_open:
            raise _gone()
        tx = session.transaction or Transaction()
        _require_sound(tx)
        return DIRECT[sql](session.store, tx, *arguments)

    def _run(self, sql: str, arguments: Sequence[Any]) -> Statement:
        session = self.session
        tx = session.transaction
        if tx is not None:
            _require_sound(tx)
            return (yield from _rows(session.store, tx, sql, arguments))
        tx = Transaction(session)
        result = yield from self._alone(tx, sql, arguments)
        return result

    def _alone(self, tx: Transaction, sql: str, arguments: Sequence[Any]) -> Statement:
        """A transaction of one statement."""
        store = self.session.store
        try:
            result = yield from _rows(store, tx, sql, arguments)
            yield from store.commit(tx)
        except BaseException:
            if not tx.is_over:
                store.end(tx)
            raise
        return result


def _rows(store: Store, tx: Transaction, sql: str, arguments: Sequence[Any]) -> Generator[Any, Any, Any]:
    direct = DIRECT.get(sql)
    if direct is not None:
        return direct(store, tx, *arguments)
    assert sql in WAITING, f"BUG: the model does not know the statement {sql[:200]!r}"
    return (yield from WAITING[sql](store, tx, *arguments))


def _require_sound(tx: Transaction) -> None:
    if tx.is_aborted:
        raise asyncpg.InFailedSQLTransactionError("current transaction is aborted")


class Pool:
    """Connections of one process."""

    def __init__(self, store: Store, process: Process, connected: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._process = process
        self._connected = connected
        self._idle: list[Connection] = []
        self._in_use: list[Connection] = []

    async def acquire(self, *, timeout: float) -> Connection:
        """Lend a connection, a new one if none is idle."""
        if len(self._in_use) >= MAX_CONNECTIONS:
            await ask(Gate(lambda: len(self._in_use) < MAX_CONNECTIONS))
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed() and not connection.is_expired:
                self._in_use.append(connection)
                return connection
            connection.close()
        session = await ask(Connect(self._store))
        self._process.sessions.append(session)
        connection = Connection(session)
        self._in_use.append(connection)
        self._connected()
        return connection

    async def release(self, connection: Connection, *, timeout: float) -> None:
        """Take it back; a transaction that is open is rolled back."""
        self._in_use.remove(connection)
        if connection.is_closed() or connection.is_expired:
            connection.close()
            return
        connection.session.roll_back()
        self._idle.append(connection)

    async def expire_connections(self) -> None:
        """Use none of those there are again."""
        for connection in (*self._idle, *self._in_use):
            connection.is_expired = True

    def terminate(self) -> None:
        """End all of them."""
        for connection in (*self._idle, *self._in_use):
            connection.close()

    async def close(self) -> None:
        """Do the same."""
        self.terminate()
