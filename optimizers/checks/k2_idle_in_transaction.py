"""K2: sessions that hold a transaction open and do nothing: their locks and snapshots hold up others.

Reads pg_stat_activity. Reported by role, whose setting ends such sessions. Where `terminate_after_s` is set, each
session that is idle for so long is a finding of its own that a person may apply: it is terminated. A session that is
idle for less than the threshold, or idle without a transaction, is silent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity, Tier
from optimizers.checks.v6_xmin_horizon import NO_PRIVILEGE
from optimizers.horizon import reads_all_statistics
from optimizers.wording import count, grade, span, worst


@dataclass(frozen=True)
class IdleInTransaction:
    """Thresholds of K2."""

    id: ClassVar[str] = "K2"
    title: ClassVar[str] = "idle in transaction"
    timeout_s: ClassVar[float] = 5.0

    idle_s_warn: float = 60.0
    idle_s_critical: float = 300.0
    sessions_warn: float = 100.0
    """So many at once, however short each is."""
    timeout_s_proposed: int = 60
    terminate_after_s: float = 0.0
    """0: no session is proposed to be terminated."""

    async def look(self, look: Look) -> Answer:
        """Look at the sessions of this database."""
        if not await reads_all_statistics(look.connection):
            return Answer(insufficient=NO_PRIVILEGE)
        rows = await look.connection.fetch(load("check_k2_idle_in_transaction"))
        by_role: dict[str, list[Any]] = {}
        for row in rows:
            by_role.setdefault(row["role"], []).append(row)
        found = [self._finding(role, sessions, len(rows)) for role, sessions in by_role.items()]
        roles = [finding for finding in found if finding is not None]
        return Answer([*roles, *(self._termination(row) for row in rows if self._may_end(row))])

    def _may_end(self, session: Any) -> bool:
        return 0 < self.terminate_after_s <= session["idle_s"]

    def _termination(self, session: Any) -> Finding:
        """Propose to end one session; nothing undoes that."""
        # Bound to the moment it fell idle: one that has worked since, or another with its number, is left alone.
        sql = (
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = {session['pid']} "  # noqa: S608 - a number and a time, to be copied
            f"AND state LIKE 'idle in transaction%' AND state_change = '{session['idle_since'].isoformat()}'"
        )
        return Finding(
            object=f"session {session['pid']}",
            severity=grade(session["idle_s"], self.idle_s_warn, self.idle_s_critical) or Severity.WARN,
            recommendation=f"Session {session['pid']} of {session['role']} ({session['application']}) is idle in "
            f"transaction for {span(session['idle_s'])}, longer than {span(self.terminate_after_s)}. Terminate it; "
            f"nothing undoes that: what its transaction has done is rolled back. {sql}.",
            evidence={
                "pid": session["pid"],
                "role": session["role"],
                "application": session["application"],
                "idle_s": session["idle_s"],
                "idle_since": session["idle_since"].isoformat(),
                "in_transaction_s": session["in_transaction_s"],
            },
            sql=sql,
            tier=Tier.OPT_IN,
        )

    def _finding(self, role: str, sessions: Sequence[Any], in_all: int) -> Finding | None:
        longest = sessions[0]
        severity = worst(
            grade(longest["idle_s"], self.idle_s_warn, self.idle_s_critical),
            Severity.WARN if in_all > self.sessions_warn else None,
        )
        if severity is None:
            return None
        quoted = '"' + role.replace('"', '""') + '"'
        sql = f"ALTER ROLE {quoted} SET idle_in_transaction_session_timeout = '{self.timeout_s_proposed}s'"
        several, be = ("1 session", "is") if len(sessions) == 1 else (f"{count(len(sessions))} sessions", "are")
        return Finding(
            object=quoted,
            severity=severity,
            recommendation=f"{several} of {role} {be} idle in transaction, the longest for "
            f"{span(longest['idle_s'])} ({longest['application']}, pid {longest['pid']}); {count(in_all)} in all. "
            f"End what holds a transaction open without working. {sql}.",
            evidence={
                "sessions": len(sessions),
                "sessions_of_all_roles": in_all,
                "longest_idle_s": longest["idle_s"],
                "application": longest["application"],
                "pids": [row["pid"] for row in sessions][:20],
            },
            sql=sql,
            rollback=f"ALTER ROLE {quoted} RESET idle_in_transaction_session_timeout",
        )
