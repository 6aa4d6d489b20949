"""V4: big tables that are updated and still wait for autovacuum until a fixed share of them is dead.

Reads pg_stat_user_tables, reloptions and pg_settings. Opt-in, with the RESET that undoes it. Tables and partitions that
nobody updates or deletes from are silent: a share of nothing never triggers anything.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity, Tier
from optimizers.families import MOST_NAMED, Family, families
from optimizers.wording import count, percent


@dataclass(frozen=True)
class DefaultAutovacuum:
    """Thresholds of V4."""

    id: ClassVar[str] = "V4"
    title: ClassVar[str] = "big table on default autovacuum"
    timeout_s: ClassVar[float] = 10.0

    rows_warn: float = 1_000_000.0
    rows_critical: float = 10_000_000.0
    min_changed_rows: float = 10_000.0
    """Updated and deleted since statistics began."""
    small_scale_factor: float = 0.05
    """A general scale factor up to this is no cause for settings of a table's own."""
    big_scale_factor: float = 0.05
    big_threshold_rows: int = 1000
    huge_scale_factor: float = 0.02
    huge_threshold_rows: int = 5000

    async def look(self, look: Look) -> Answer:
        """Look at every big table without a scale factor of its own."""
        rows = await look.connection.fetch(
            load("check_v4_default_autovacuum"), self.rows_warn, self.min_changed_rows, self.small_scale_factor
        )
        found = families([(row, self._severity(row)) for row in rows])
        return Answer([self._finding(family) for family in found])

    def _severity(self, row: Any) -> Severity:
        return Severity.CRITICAL if row["live_rows"] > self.rows_critical else Severity.WARN

    def _finding(self, family: Family) -> Finding:
        row, is_huge = family.rows[0], family.severity is Severity.CRITICAL
        scale = self.huge_scale_factor if is_huge else self.big_scale_factor
        base = self.huge_threshold_rows if is_huge else self.big_threshold_rows
        names = [each["name"] for each in family.rows][:MOST_NAMED]
        options = f"autovacuum_vacuum_scale_factor = {scale:g}, autovacuum_vacuum_threshold = {base}"
        undone = "autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold"
        now, then = (s * row["live_rows"] + b for s, b in ((row["scale_factor"], row["threshold_rows"]), (scale, base)))
        return Finding(
            object=family.root,
            severity=family.severity,
            recommendation=f"{family.text} has {count(row['live_rows'])} rows on default autovacuum settings: VACUUM "
            f"waits for {count(now)} dead rows ({percent(row['scale_factor'])}); it would come at {count(then)} "
            f"with {options}.",
            evidence={
                "live_rows": row["live_rows"],
                "changed_rows": row["changed_rows"],
                "scale_factor": row["scale_factor"],
                "trigger_rows": now,
                "proposed_trigger_rows": then,
                "options": row["options"],
                "relations": names,
            },
            sql=";\n".join(f"ALTER TABLE {name} SET ({options})" for name in names),
            rollback=";\n".join(f"ALTER TABLE {name} RESET ({undone})" for name in names),
            tier=Tier.OPT_IN,
        )
