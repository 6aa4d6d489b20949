"""K1: how many of the connections that clients may open are open.

Reads pg_stat_activity of the whole server, which shares max_connections. Never automatic: pools are the cure.
"""

from dataclasses import dataclass
from typing import ClassVar

from database.queries import load
from optimizers.check import Answer, Finding, Look
from optimizers.checks.v6_xmin_horizon import NO_PRIVILEGE
from optimizers.horizon import reads_all_statistics
from optimizers.wording import count, grade, percent


@dataclass(frozen=True)
class Connections:
    """Thresholds of K1: open connections as a share of those that are not reserved."""

    id: ClassVar[str] = "K1"
    title: ClassVar[str] = "connections in use"
    timeout_s: ClassVar[float] = 5.0

    used_share_warn: float = 0.7
    used_share_critical: float = 0.85

    async def look(self, look: Look) -> Answer:
        """Look at all clients of the server."""
        if not await reads_all_statistics(look.connection):
            return Answer(insufficient=NO_PRIVILEGE)
        rows = await look.connection.fetch(load("check_k1_connections"))
        sessions, allowed = sum(row["sessions"] for row in rows), rows[0]["allowed"]
        severity = grade(sessions / allowed, self.used_share_warn, self.used_share_critical)
        if severity is None:
            return Answer()
        by_application = {
            f"{row['role']} / {row['application']}": {"sessions": row["sessions"], "active": row["active"]}
            for row in rows
        }
        named = ", ".join(f"{name} {count(each['sessions'])}" for name, each in list(by_application.items())[:5])
        finding = Finding(
            object="max_connections",
            severity=severity,
            recommendation=f"{count(sessions)} of {count(allowed)} connections are open, "
            f"{percent(sessions / allowed)}; {count(sum(row['active'] for row in rows))} of them active. By "
            f"application: {named}. Lower the sum of the pools, or put a pooler between, before raising "
            "max_connections.",
            evidence={
                "sessions": sessions,
                "allowed_sessions": allowed,
                "used_share": round(sessions / allowed, 4),
                "by_application": dict(list(by_application.items())[:20]),
            },
        )
        return Answer([finding])
