"""B1: tables in which much is dead: VACUUM would make room, unless somebody holds back the horizon.

Reads pg_stat_user_tables, reloptions, sizes and the holders of the xmin horizon. Automatic: plain VACUUM; opt-in: a
smaller scale factor, so that autovacuum comes by itself. What VACUUM cannot remove now is not proposed to be vacuumed:
the holder is named instead. Partitions are reported as their table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity, Tier
from optimizers.families import MOST_NAMED, Family, families, lasting, listed
from optimizers.horizon import Holder, blocking
from optimizers.wording import GB, count, grade, percent, size, span, worst

OPTION: Final = "autovacuum_vacuum_scale_factor"


@dataclass(frozen=True)
class DeadTuples:
    """Dead rows, by share and by size."""

    id: ClassVar[str] = "B1"
    title: ClassVar[str] = "dead rows"
    timeout_s: ClassVar[float] = 10.0

    min_dead_rows: float = 10_000.0
    dead_share_warn: float = 0.2
    dead_share_critical: float = 0.4
    big_bytes: float = GB
    big_share_warn: float = 0.1
    huge_bytes: float = 10 * GB
    huge_share_critical: float = 0.2
    held_xids: int = 1_000_000
    """A horizon older than this, or held longer than `held_s`, keeps VACUUM from removing."""
    held_s: float = 900.0
    scale_factor: float = 0.05
    """Of a table that needs a VACUUM while its own is larger."""

    async def look(self, look: Look) -> Answer:
        """Look at every table that has enough dead rows."""
        least = min(self.dead_share_warn, self.big_share_warn, self.huge_share_critical)
        rows = await look.connection.fetch(load("check_b1_dead_tuples"), self.min_dead_rows, least)
        ill = [(row, self._severity(row)) for row in lasting(rows, look)]
        found = families([(row, severity) for row, severity in ill if severity is not None])
        holder = await blocking(look.connection, self.held_xids, self.held_s) if found else None
        settings = [] if holder else [self._settings(family) for family in found]
        return Answer([*(self._finding(family, holder) for family in found), *filter(None, settings)])

    def _severity(self, row: Any) -> Severity | None:
        share = row["dead_rows"] / (row["live_rows"] + row["dead_rows"])
        by_size = [
            Severity.WARN if row["size_bytes"] > self.big_bytes and share > self.big_share_warn else None,
            Severity.CRITICAL if row["size_bytes"] > self.huge_bytes and share > self.huge_share_critical else None,
        ]
        return worst(grade(share, self.dead_share_warn, self.dead_share_critical), *by_size)

    def _finding(self, family: Family, holder: Holder | None) -> Finding:
        dead, live = (sum(row[key] for row in family.rows) for key in ("dead_rows", "live_rows"))
        worst_row = family.rows[0]
        age_s: float | None = worst_row["vacuum_age_s"]
        vacuumed = "never vacuumed since its statistics began" if age_s is None else f"last vacuum {span(age_s)} ago"
        bytes_in_use = sum(row["size_bytes"] for row in family.rows)
        seen = f"{count(dead)} dead rows in {family.text}, {percent(dead / (dead + live))} of {size(bytes_in_use)}"
        names = [row["name"] for row in family.rows]
        return Finding(
            object=family.root,
            severity=family.severity,
            recommendation=f"{seen}; {vacuumed}. {_advice(names, worst_row['scale_factor'], holder)}",
            evidence={
                "dead_rows": dead,
                "live_rows": live,
                "dead_share": round(dead / (dead + live), 4),
                "size_bytes": bytes_in_use,
                "vacuum_age_s": age_s,
                "scale_factor": worst_row["scale_factor"],
                "relations": names[:10],
                "horizon_held_by": str(holder) if holder else None,
            },
            sql=None if holder else f"VACUUM (ANALYZE) {listed(names)}",
            tier=Tier.NEVER if holder else Tier.AUTOMATIC,
        )

    def _settings(self, family: Family) -> Finding | None:
        """Return how autovacuum would come sooner; None where it would already, or is turned off."""
        rows = [row for row in family.rows if not row["is_off"] and row["scale_factor"] > self.scale_factor]
        rows = rows[:MOST_NAMED]
        if not rows:
            return None
        own = [row["own_scale_factor"] for row in rows]
        undone = [f"RESET ({OPTION})" if factor is None else f"SET ({OPTION} = {factor})" for factor in own]
        return Finding(
            object=f"{family.root} (autovacuum)",
            severity=Severity.INFO,
            recommendation=f"Autovacuum waits until {percent(rows[0]['scale_factor'])} of {family.text} is dead: "
            f"{OPTION} = {self.scale_factor:g} lets it come sooner.",
            evidence={"scale_factor": rows[0]["scale_factor"], "relations": [row["name"] for row in rows]},
            sql=";\n".join(f"ALTER TABLE {row['name']} SET ({OPTION} = {self.scale_factor:g})" for row in rows),
            rollback=";\n".join(f"ALTER TABLE {row['name']} {undo}" for row, undo in zip(rows, undone, strict=True)),
            tier=Tier.OPT_IN,
        )


def _advice(names: Sequence[str], scale_factor: float, holder: Holder | None) -> str:
    if holder:
        return f"VACUUM cannot remove them while {holder} holds the xmin horizon ({count(holder.age_xids)} xids)."
    lower = (
        f"; autovacuum_vacuum_scale_factor {scale_factor:g} comes too late here: lower it"
        if scale_factor > 0.05
        else ""
    )
    return f"VACUUM (ANALYZE) {listed(names)}{lower}."
