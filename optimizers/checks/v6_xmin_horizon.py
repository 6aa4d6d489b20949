"""V6: who holds back the xmin horizon, by name: no VACUUM removes what was deleted since.

Reads pg_stat_activity, pg_replication_slots, pg_prepared_xacts and pg_stat_replication. Never automatic: what holds the
horizon is somebody's work.
"""

from dataclasses import dataclass
from typing import ClassVar

from optimizers.check import Answer, Finding, Look, Severity
from optimizers.horizon import Holder, holders, reads_all_statistics
from optimizers.wording import count, grade, span, worst

NO_PRIVILEGE = "the role cannot see other roles' sessions: GRANT pg_monitor to it"


@dataclass(frozen=True)
class XminHorizon:
    """Thresholds of V6."""

    id: ClassVar[str] = "V6"
    title: ClassVar[str] = "xmin horizon held back"
    timeout_s: ClassVar[float] = 5.0

    age_xids_warn: float = 1_000_000.0
    age_s_warn: float = 900.0
    age_s_critical: float = 3600.0

    async def look(self, look: Look) -> Answer:
        """Look at all holders; of one name the oldest is reported."""
        found: dict[str, Finding] = {}
        for holder in await holders(look.connection):
            severity = worst(
                Severity.WARN if holder.age_xids > self.age_xids_warn else None,
                grade(holder.age_s or 0, self.age_s_warn, self.age_s_critical),
            )
            if severity is not None:
                found.setdefault(f"{holder.kind} {holder.name}", _finding(holder, severity))
        sees_all = await reads_all_statistics(look.connection)
        return Answer(list(found.values()), None if sees_all else NO_PRIVILEGE)


def _finding(holder: Holder, severity: Severity) -> Finding:
    since = f" for {span(holder.age_s)}" if holder.age_s is not None else ""
    state = f", {holder.state}," if holder.state else ""
    advice, sql = _remedy(holder)
    return Finding(
        object=f"{holder.kind} {holder.name}",
        severity=severity,
        recommendation=f"{holder}{state} holds the xmin horizon{since}, {count(holder.age_xids)} transactions back: "
        f"nothing deleted since can be removed. {advice}",
        evidence={
            "kind": holder.kind,
            "name": holder.name,
            "pid": holder.pid,
            "age_xids": holder.age_xids,
            "age_s": holder.age_s,
            "state": holder.state,
        },
        sql=sql,
    )


def _remedy(holder: Holder) -> tuple[str, str | None]:
    name = holder.name.replace("'", "''")
    match holder.kind:
        case "session":
            return "End its transaction, or the session.", f"SELECT pg_terminate_backend({holder.pid})"
        case "replication slot":
            return "Let its consumer catch up, or drop the slot.", f"SELECT pg_drop_replication_slot('{name}')"
        case "prepared transaction":
            return "Commit it or roll it back.", f"ROLLBACK PREPARED '{name}'"
        case _:
            return "See its longest query, or set hot_standby_feedback = off there.", None
