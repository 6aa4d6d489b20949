"""K3: connections that are mostly idle: the pools together are larger than their work.

Reads session_time and active_time of pg_stat_database, as deltas of about an hour, and sessions by application.
PostgreSQL books a session's time when its state changes, so that more than the interval may be booked at once: it is
cut at the sessions there are. Few sessions are silent, however idle.
"""

from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any, ClassVar

from database.queries import load
from optimizers.check import Answer, Finding, Interval, Look, Severity
from optimizers.wording import count, percent


@dataclass(frozen=True)
class OversizedPool:
    """Thresholds of K3."""

    id: ClassVar[str] = "K3"
    title: ClassVar[str] = "oversized pools"
    timeout_s: ClassVar[float] = 5.0

    busy_share_warn: float = 0.2
    min_sessions: float = 10.0

    async def look(self, look: Look) -> Answer:
        """Compare with about an hour ago."""
        row = await look.connection.fetchrow(load("check_k3_sessions"))
        assert row is not None
        counters = {"session_ms": row["session_ms"], "active_ms": row["active_ms"]}
        passed = await look.since("database", {"database": counters})
        if passed is None or "database" not in passed.deltas:
            return Answer(insufficient="no counters of an hour ago to compare with")
        return Answer(await self._judge(look, row["sessions"], passed))

    async def _judge(self, look: Look, now_sessions: float, passed: Interval) -> list[Finding]:
        delta = passed.deltas["database"]
        sessions = min(delta["session_ms"] / 1000 / passed.seconds, now_sessions)
        active = delta["active_ms"] / 1000 / passed.seconds
        if sessions < self.min_sessions or active / sessions >= self.busy_share_warn:
            return []
        applications = await look.connection.fetch(load("check_k1_connections"))
        return [self._finding(sessions, active, applications)]

    def _finding(self, sessions: float, active: float, applications: list[Any]) -> Finding:
        # Square-root staffing: what is busy on average, and room for its variation.
        enough = max(ceil(active + 2 * sqrt(active)), 2)
        named = {f"{row['role']} / {row['application']}": row["sessions"] for row in applications[:5]}
        listed = ", ".join(f"{name} {count(each)}" for name, each in named.items())
        return Finding(
            object="connections",
            severity=Severity.WARN,
            recommendation=f"{sessions:.1f} sessions were open on average and {active:.2f} of them busy "
            f"({percent(active / sessions)}). About {enough} would do: reduce the pools to {enough} in sum. Largest: "
            f"{listed}.",
            evidence={
                "mean_sessions": sessions,
                "mean_active_sessions": active,
                "busy_share": round(active / sessions, 4),
                "proposed_sessions": enough,
                "sessions_by_application": named,
            },
        )
