"""V2: tables with many dead rows that VACUUM has not visited for days.

Reads pg_stat_user_tables and the holders of the xmin horizon. Where no VACUUM is known, the days are counted from
when this check first saw the dead rows: statistics that were reset yesterday say nothing about last week.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity, Tier
from optimizers.families import Family, families, lasting, listed
from optimizers.horizon import Holder, blocking
from optimizers.wording import count, percent, span


@dataclass(frozen=True)
class StaleVacuum:
    """Thresholds of V2."""

    id: ClassVar[str] = "V2"
    title: ClassVar[str] = "VACUUM overdue"
    timeout_s: ClassVar[float] = 10.0

    dead_rows_warn: float = 100_000.0
    age_s_warn: float = 3 * 86_400.0
    dead_rows_critical: float = 50_000.0
    age_s_critical: float = 7 * 86_400.0
    held_xids: int = 1_000_000
    """A horizon older than this, or held longer than `held_s`, keeps VACUUM from removing."""
    held_s: float = 900.0

    async def look(self, look: Look) -> Answer:
        """Look at every table with enough dead rows."""
        least = min(self.dead_rows_warn, self.dead_rows_critical)
        rows = lasting(await look.connection.fetch(load("check_v2_stale_vacuum"), least), look)
        seen = await look.first_seen([row["name"] for row in rows if row["vacuum_age_s"] is None])
        aged = [(row, _age_s(row, seen, look.now)) for row in rows]
        graded = [({**row, "age_s": age_s}, self._severity(row["dead_rows"], age_s)) for row, age_s in aged]
        found = families([(row, severity) for row, severity in graded if severity is not None])
        holder = await blocking(look.connection, self.held_xids, self.held_s) if found else None
        return Answer([_finding(family, holder) for family in found])

    def _severity(self, dead_rows: float, age_s: float) -> Severity | None:
        if dead_rows > self.dead_rows_critical and age_s > self.age_s_critical:
            return Severity.CRITICAL
        return Severity.WARN if dead_rows > self.dead_rows_warn and age_s > self.age_s_warn else None


def _age_s(row: Any, seen: Mapping[str, datetime], now: datetime) -> float:
    if row["vacuum_age_s"] is not None:
        return row["vacuum_age_s"]
    return (now - seen.get(row["name"], now)).total_seconds()


def _finding(family: Family, holder: Holder | None) -> Finding:
    row = family.rows[0]
    dead, live = (sum(each[key] for each in family.rows) for key in ("dead_rows", "live_rows"))
    names = [each["name"] for each in family.rows]
    last = "last VACUUM" if row["vacuum_age_s"] is not None else "no VACUUM since they were first seen"
    sql = f"VACUUM (ANALYZE) {listed(names)}"
    advice = f"{sql}."
    if holder:
        advice = f"VACUUM cannot remove them while {holder} holds the xmin horizon ({count(holder.age_xids)} xids)."
    share = percent(dead / (dead + live))
    return Finding(
        object=family.root,
        severity=family.severity,
        recommendation=f"{count(dead)} dead rows in {family.text} ({share}), {last} {span(row['age_s'])} ago. {advice}",
        evidence={
            "dead_rows": dead,
            "live_rows": live,
            "age_s": row["age_s"],
            "vacuum_age_s": row["vacuum_age_s"],
            "relations": names[:10],
            "horizon_held_by": str(holder) if holder else None,
        },
        sql=None if holder else sql,
        tier=Tier.NEVER if holder else Tier.AUTOMATIC,
    )
