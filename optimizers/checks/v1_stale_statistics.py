"""V1: tables changed so much since their last ANALYZE that the planner works with old numbers.

Reads pg_stat_user_tables. Automatic: ANALYZE samples a bounded number of rows and blocks nobody. Many changed rows are
found at once, however large the table; a large share of a table once its statistics are an hour old: those of a table
that was never analyzed are as old as the first run that saw it.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity, Tier
from optimizers.families import Family, families, lasting, listed
from optimizers.wording import count, grade, percent, span, worst


@dataclass(frozen=True)
class StaleStatistics:
    """Thresholds of V1."""

    id: ClassVar[str] = "V1"
    title: ClassVar[str] = "stale planner statistics"
    timeout_s: ClassVar[float] = 10.0

    changed_rows_warn: float = 100_000.0
    changed_rows_critical: float = 500_000.0
    changed_share_warn: float = 0.1
    min_changed_rows: float = 1000.0
    """Below it a table is too small for its statistics to matter."""
    fresh_s: float = 3600.0
    """A share counts once statistics are older."""

    async def look(self, look: Look) -> Answer:
        """Look at every table that enough has changed in."""
        rows = await look.connection.fetch(load("check_v1_stale_statistics"), self.min_changed_rows)
        rows = lasting(rows, look)
        since = await look.first_seen(row["name"] for row in rows if row["analyze_age_s"] is None)
        ages_s = {name: (look.now - at).total_seconds() for name, at in since.items()}
        graded = [(row, self._severity(row, row["analyze_age_s"] or ages_s.get(row["name"], 0.0))) for row in rows]
        found = families([(row, severity) for row, severity in graded if severity is not None])
        return Answer([_finding(family) for family in found])

    def _severity(self, row: Any, age_s: float) -> Severity | None:
        is_large_share = row["changed_rows"] > self.changed_share_warn * row["live_rows"]
        return worst(
            grade(row["changed_rows"], self.changed_rows_warn, self.changed_rows_critical),
            Severity.WARN if is_large_share and age_s >= self.fresh_s else None,
        )


def _finding(family: Family) -> Finding:
    row = family.rows[0]
    changed, live = (sum(each[key] for each in family.rows) for key in ("changed_rows", "live_rows"))
    age_s: float | None = row["analyze_age_s"]
    last = "never analyzed" if age_s is None else f"last ANALYZE {span(age_s)} ago"
    names = [each["name"] for each in family.rows]
    sql = f"ANALYZE {listed(names)}"
    share = f"{percent(changed / live)} of {count(live)}"
    return Finding(
        object=family.root,
        severity=family.severity,
        recommendation=f"{count(changed)} rows of {family.text} changed since its statistics were taken ({share}); "
        f"{last}. {sql}.",
        evidence={
            "changed_rows": changed,
            "live_rows": live,
            "changed_share": round(changed / live, 4),
            "analyze_age_s": age_s,
            "relations": names[:10],
        },
        sql=sql,
        tier=Tier.AUTOMATIC,
    )
