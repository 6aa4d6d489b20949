"""A simulated PostgreSQL cluster: tables, transactions with row locks, a WAL, and a standby that holds a prefix of it.

In: statements as generators, which yield what they wait for. Out: their results; after a failover, the state that a
prefix of the WAL gives. Promise: a transaction sees what is committed and its own rows; a changed row is locked until
the end; COMMIT of an aborted transaction answers ROLLBACK, and one that wrote nothing waits for no standby.
"""

from collections.abc import Callable, Generator, Hashable
from math import inf
from typing import Any, Final

import asyncpg

from tests.model.tasks import CLOCK

LOCK_TIMEOUT_S: Final = 10.0
IDLE_IN_TRANSACTION_S: Final = 10.0
PREFETCHED: Final = 32
"""Values of a sequence that a crash may skip."""

Key = tuple[Any, ...]
Statement = Generator["Wait", None, Any]
Record = tuple[tuple[tuple[str, Any, Any], ...], dict[str, int]]
"""One commit in the WAL: table, key and new value (None: deleted) of each row, and where the sequences stood."""


class Wait:
    """What a statement waits for: another transaction's end, or the standby."""

    __slots__ = ("commits", "holds", "owner")

    def __init__(
        self, holds: Callable[[], bool], owner: "Transaction | None" = None, commits: "Transaction | None" = None
    ) -> None:
        self.holds = holds
        self.owner = owner
        self.commits = commits
        """What is in the WAL already, and waits for the standby."""


class Transaction:
    """Rows changed and locks held."""

    __slots__ = (
        "copied",
        "is_aborted",
        "is_cancelled",
        "is_over",
        "locks",
        "number",
        "rows",
        "session",
        "shares",
        "warning",
    )

    def __init__(self, session: "Session | None" = None) -> None:
        self.rows: dict[tuple[str, Any], Any] = {}
        self.locks: list[Key] = []
        self.copied: list[bytes] = []
        """Parts, as they were sent."""
        self.shares = False
        """Holds the lock that a change of the generation waits for."""
        self.is_aborted = self.is_over = self.is_cancelled = False
        self.warning = False
        """Its wait for the standby was cancelled."""
        self.session = session
        self.number = 0
        """Its place in the WAL."""


class Store:
    """The primary, what its standby has, and nothing of a primary that was failed over."""

    has_row_locks = True
    """False in a mutant."""

    def __init__(self) -> None:
        self.is_up = True
        self.offset_s = 0.0
        self.timeline = 1
        self.started = 1
        """Tells servers and their restarts apart."""
        self.is_synchronous = False
        self.standby: int | None = 0
        """How many records of the WAL the standby has flushed; None: there is none."""
        self.wal: list[Record] = []
        self.locks: dict[Key, Transaction] = {}
        self._unseen: dict[int, Transaction] = {}
        """Commits that wait for the standby, or are not seen yet, by their number in the WAL."""
        self.sessions: list[Session] = []
        self.hash = 0
        self.deadlocks = 0
        self.on_commit: Callable[[Transaction, dict[tuple[str, Any], Any]], None] = lambda tx, before: None
        self._clear()

    def _clear(self) -> None:
        self.tables: dict[str, dict[Any, Any]] = {}
        self.sequences: dict[str, int] = {}
        self.hash = 0
        self._put("state", 0, 1)

    def _put(self, table: str, key: Any, value: Any) -> None:
        rows = self.tables.setdefault(table, {})
        if key in rows:
            self.hash ^= hash((table, key, rows[key]))
        if value is None:
            rows.pop(key, None)
            return
        rows[key] = value
        self.hash ^= hash((table, key, value))

    # Reading and writing, by statements

    def get(self, tx: Transaction, table: str, key: Any) -> Any:
        """Return a row as a transaction sees it; None: there is none."""
        if (table, key) in tx.rows:
            return tx.rows[table, key]
        return self.tables.get(table, {}).get(key)

    def scan(self, tx: Transaction, table: str) -> dict[Any, Any]:
        """Return all rows of a table as a transaction sees them."""
        rows = dict(self.tables.get(table, {}))
        for (name, key), value in tx.rows.items():
            if name == table:
                rows[key] = value
        return {key: value for key, value in rows.items() if value is not None}

    def next_value(self, sequence: str) -> int:
        """Take a number; it is taken also when the transaction fails."""
        self.sequences[sequence] = self.sequences.get(sequence, 0) + 1
        return self.sequences[sequence]

    def lock(self, tx: Transaction, *key: Hashable) -> Statement:
        """Lock a row, or what stands for one, once its owner is done."""
        if not self.has_row_locks and key[0] == "producers":
            return
        while (owner := self.locks.get(key)) is not None and owner is not tx:
            self._look_for_deadlock(tx, owner)
            yield Wait(lambda owner=owner: owner.is_over, owner)
        if owner is None:
            self.locks[key] = tx
            tx.locks.append(key)

    def _look_for_deadlock(self, tx: Transaction, owner: Transaction) -> None:
        seen: Transaction | None = owner
        # Whoever waits for one that is over may go on, and looks for itself then.
        while seen is not None and not seen.is_over and seen.session is not None and seen.session.waiting is not None:
            seen = seen.session.waiting.owner
            if seen is tx:
                self.deadlocks += 1
                raise asyncpg.DeadlockDetectedError("deadlock detected")

    # Ends of transactions

    def commit(self, tx: Transaction) -> Statement:
        """COMMIT; returns its tag."""
        if tx.is_aborted:
            self.end(tx)
            return "ROLLBACK"
        if not tx.rows:
            self.end(tx)
            return "COMMIT"
        record: Record = (tuple((*at, value) for at, value in tx.rows.items()), dict(self.sequences))
        self.wal.append(record)
        number = tx.number = len(self.wal)
        self._unseen[number] = tx
        if self.is_synchronous:
            while self.standby is not None and self.standby < number and not tx.is_cancelled:
                yield Wait(lambda: self.standby is None or self.standby >= number or tx.is_cancelled, commits=tx)
            tx.warning = tx.is_cancelled
        self._install(number, record)
        self.end(tx)
        return "COMMIT"

    def _install(self, number: int, record: Record) -> None:
        """Let everybody see a commit."""
        tx = self._unseen.pop(number, None)
        before = {} if tx is None else {at: self.tables.get(at[0], {}).get(at[1]) for at in tx.rows}
        for table, key, value in record[0]:
            self._put(table, key, value)
        if tx is not None:
            self.on_commit(tx, before)

    def end(self, tx: Transaction) -> None:
        """Release what it holds."""
        tx.is_over = True
        for key in tx.locks:
            del self.locks[key]
        tx.locks.clear()

    # Faults

    def change_generation(self) -> None:
        """Cached numbers of series and producers become invalid."""
        tx = Transaction()
        tx.rows["state", 0] = self.tables["state"][0] + 1
        for _ in self.commit(tx):
            tx.is_cancelled = True

    def replicate(self, records: int) -> None:
        """The standby flushes some more."""
        if self.standby is not None:
            self.standby = min(len(self.wal), self.standby + records)

    def crash(self) -> None:
        """End; sessions and what they had not committed are gone."""
        for session in tuple(self.sessions):
            session.end()
        self.is_up = False

    def restart(self) -> None:
        """Crash and recover: what is in the WAL is there, whoever waited for a standby."""
        self._recover(len(self.wal))

    def fail_over(self, skip: int) -> int:
        """The standby takes over; returns how many commits are lost. A new standby follows it from its first moment."""
        kept = len(self.wal) if self.standby is None else self.standby
        lost = len(self.wal) - kept
        self.timeline += 1
        self._recover(kept, skip)
        return lost

    def _recover(self, kept: int, skip: int = 0) -> None:
        for session in tuple(self.sessions):
            session.end()
        self.started += 1
        self.wal = self.wal[:kept]
        self._clear()
        for number, record in enumerate(self.wal, 1):
            self._install(number, record)
            self.sequences = dict(record[1])
        self._unseen.clear()
        self.sequences = {name: value + skip for name, value in self.sequences.items()}
        self.standby = None if self.standby is None else kept
        self.is_up = True

    def end_idle(self) -> None:
        """End sessions that hold a transaction open and do nothing."""
        for session in tuple(self.sessions):
            if (
                session.transaction is not None
                and session.statement is None
                and CLOCK.now - session.active_at > IDLE_IN_TRANSACTION_S
            ):
                session.end()


class Session:
    """One connection's backend."""

    __slots__ = ("active_at", "has_client", "is_open", "statement", "store", "transaction", "waiting", "waiting_since")

    def __init__(self, store: Store) -> None:
        self.store = store
        self.is_open = self.has_client = True
        self.transaction: Transaction | None = None
        self.statement: Statement | None = None
        self.waiting: Wait | None = None
        self.waiting_since = 0.0
        self.active_at = CLOCK.now
        store.sessions.append(self)

    def end(self) -> None:
        """The backend is gone, and what it had not committed."""
        if not self.is_open:
            return
        self.is_open = False
        if self.waiting is not None and self.waiting.commits is not None and self.statement is not None:
            # It is committed here: who ends the backend only ends its wait.
            self.waiting.commits.is_cancelled = True
            next(self.statement, None)
        if self.statement is not None:
            self.statement.close()
        self.statement = self.waiting = None
        if self.transaction is not None and not self.transaction.is_over:
            self.store.end(self.transaction)
        self.transaction = None
        self.store.sessions.remove(self)

    def begin(self) -> None:
        """BEGIN."""
        self.transaction = Transaction(self)

    def roll_back(self) -> None:
        """ROLLBACK."""
        if self.transaction is not None:
            self.store.end(self.transaction)
        self.transaction = None

    def waits_for_standby(self) -> bool:
        """Whether its COMMIT waits for the synchronous standby."""
        return self.waiting is not None and self.waiting.commits is not None and not self.waiting.holds()

    @property
    def wake(self) -> float:
        """When its statement goes on at the latest: a wait for a lock ends with an error."""
        if self.waiting is None:
            return 0.0
        return inf if self.waiting.owner is None else self.waiting_since + LOCK_TIMEOUT_S

    def holds(self) -> bool:
        """Whether it can go on earlier, or is gone."""
        return not self.is_open or (self.waiting is not None and self.waiting.holds())

    def advance(self) -> tuple[bool, Any]:
        """Go on with the statement; returns whether it is through, and its result."""
        assert self.statement is not None
        too_late = self.waiting is not None and not self.waiting.holds()
        self.waiting = None
        self.active_at = CLOCK.now
        try:
            wait = self.statement.throw(_lock_timeout()) if too_late else next(self.statement)
        except StopIteration as done:
            self.statement = None
            return True, done.value
        except BaseException:
            self.statement = None
            if self.transaction is not None:
                self.transaction.is_aborted = True
            raise
        self.waiting, self.waiting_since = wait, CLOCK.now
        return False, None


def _lock_timeout() -> Exception:
    return asyncpg.LockNotAvailableError("canceling statement due to lock timeout")
