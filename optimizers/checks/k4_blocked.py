"""K4: sessions that wait for a lock, reported as the one at the head of the queue.

Reads pg_blocking_pids, pg_locks, pg_stat_activity and pg_prepared_xacts. Who is blocked and blocks others is no cause:
only the root of the queue is named. Short waits of few sessions are silent.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity
from optimizers.checks.v6_xmin_horizon import NO_PRIVILEGE
from optimizers.horizon import reads_all_statistics
from optimizers.wording import count, span

PREPARED = 0
"""What pg_blocking_pids says of a prepared transaction."""


class Queue(NamedTuple):
    """Who waits for one root, directly or behind others."""

    root: int
    waiting: Sequence[int]
    longest_s: float


@dataclass(frozen=True)
class Blocked:
    """Thresholds of K4: both together are critical."""

    id: ClassVar[str] = "K4"
    title: ClassVar[str] = "blocked sessions"
    timeout_s: ClassVar[float] = 5.0

    waited_s_warn: float = 60.0
    sessions_warn: int = 5

    async def look(self, look: Look) -> Answer:
        """Look at the queues of this database."""
        if not await reads_all_statistics(look.connection):
            return Answer(insufficient=NO_PRIVILEGE)
        rows = await look.connection.fetch(load("check_k4_waiting"))
        queues = [queue for queue in queues_of(rows) if self._severity(queue) is not None]
        if not queues:
            return Answer()
        sessions = await look.connection.fetch(load("check_k4_blockers"), [queue.root for queue in queues])
        known = {row["pid"]: row for row in sessions}
        return Answer([self._finding(queue, known.get(queue.root)) for queue in queues])

    def _severity(self, queue: Queue) -> Severity | None:
        is_long, are_many = queue.longest_s > self.waited_s_warn, len(queue.waiting) >= self.sessions_warn
        if is_long and are_many:
            return Severity.CRITICAL
        return Severity.WARN if is_long or are_many else None

    def _finding(self, queue: Queue, session: Any) -> Finding:
        name, advice, sql = _root(queue.root, session)
        return Finding(
            object=name,
            severity=self._severity(queue) or Severity.WARN,
            recommendation=f"{count(len(queue.waiting))} sessions wait for {name}, the longest for "
            f"{span(queue.longest_s)}. {advice}",
            evidence={
                "blocker_pid": queue.root or None,
                "waiting_sessions": len(queue.waiting),
                "waiting_pids": list(queue.waiting)[:20],
                "longest_wait_s": queue.longest_s,
                "state": session["state"] if session else None,
                "transaction_s": session["transaction_s"] if session else None,
            },
            sql=sql,
        )


def queues_of(rows: Iterable[Any]) -> list[Queue]:
    """Return the queues, by following each waiting session to who waits for nobody; a deadlock has no root."""
    rows = list(rows)
    blockers: dict[int, list[int]] = {row["pid"]: list(row["blockers"]) for row in rows}
    waited_s: dict[int, float] = {row["pid"]: row["waited_s"] for row in rows}
    queues: dict[int, list[int]] = {}
    for pid in blockers:
        for root in _roots(pid, blockers):
            queues.setdefault(root, []).append(pid)
    return [Queue(root, sorted(pids), max(waited_s[pid] for pid in pids)) for root, pids in queues.items()]


def _roots(pid: int, blockers: Mapping[int, Sequence[int]]) -> set[int]:
    seen, todo, roots = {pid}, list(blockers[pid]), set[int]()
    while todo:
        other = todo.pop()
        if other in seen:
            continue
        seen.add(other)
        if blockers.get(other):
            todo.extend(blockers[other])
        else:
            roots.add(other)
    return roots


def _root(pid: int, session: Any) -> tuple[str, str, str | None]:
    """Return its name, what to do, and the statement for it."""
    if pid == PREPARED:
        return (
            "a prepared transaction",
            "Commit it or roll it back.",
            "SELECT gid, prepared, owner FROM pg_prepared_xacts ORDER BY prepared",
        )
    if session is None:
        return f"pid {pid}", "It is gone by now.", None
    name = f"session {session['role']} / {session['application']}"
    if str(session["state"]).startswith("idle in transaction"):
        return name, f"Pid {pid} is {session['state']}: end it.", f"SELECT pg_terminate_backend({pid})"
    return name, f"Pid {pid} is {session['state']}: wait for it, or cancel it.", f"SELECT pg_cancel_backend({pid})"
