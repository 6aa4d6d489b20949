"""B2: tables much larger than their rows: an estimate, confirmed by pgstattuple at night where it is installed.

Reads pg_class, pg_stats and, for a few tables off-peak, pgstattuple_approx. Never automatic: plain VACUUM does not
shrink a table, and what does locks it or needs an extension. Tables below the smallest size are silent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity
from optimizers.wording import GB, MB, percent, size

NO_STATISTICS = "no readable column statistics of {}: grant the role SELECT (pg_read_all_data) and ANALYZE"


@dataclass(frozen=True)
class TableBloat:
    """Thresholds of B2: free and dead bytes as a share of the table, and its size."""

    id: ClassVar[str] = "B2"
    title: ClassVar[str] = "table bloat"
    timeout_s: ClassVar[float] = 30.0

    bloat_share_warn: float = 0.3
    size_bytes_warn: float = 100 * MB
    bloat_share_critical: float = 0.5
    size_bytes_critical: float = GB
    confirm_tables: int = 5
    """So many of the worst are measured by pgstattuple, between the two hours."""
    confirm_max_bytes: float = 10 * GB
    confirm_from_hour_utc: int = 1
    confirm_until_hour_utc: int = 5

    async def look(self, look: Look) -> Answer:
        """Estimate all, measure some."""
        least = min(self.size_bytes_warn, self.size_bytes_critical)
        share = min(self.bloat_share_warn, self.bloat_share_critical)
        rows = await look.connection.fetch(load("check_b2_table_bloat"), least, share)
        unknown = [row["name"] for row in rows if row["estimated_bytes"] is None]
        known = [_estimated(row) for row in rows if row["estimated_bytes"] is not None]
        found = [finding for row in await self._measured(look, known) if (finding := self._finding(row))]
        return Answer(found, NO_STATISTICS.format(", ".join(unknown[:5])) if unknown else None)

    async def _measured(self, look: Look, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        is_night = self.confirm_from_hour_utc <= look.now.hour < self.confirm_until_hour_utc
        if not is_night or "pgstattuple" not in look.extensions:
            return rows
        schema = await look.connection.fetchval(load("check_b2_pgstattuple"))
        few = [row for row in rows if row["size_bytes"] <= self.confirm_max_bytes][: self.confirm_tables]
        for row in few if schema else []:
            measured = await look.connection.fetchrow(load("check_b2_confirm").format(schema=schema), row["name"])
            if measured is not None and measured["size_bytes"]:
                row |= {**measured, "is_measured": True}
        return rows

    def _finding(self, row: Mapping[str, Any]) -> Finding | None:
        held_free = (1 - row["fillfactor"] / 100) * row["size_bytes"] if row["is_measured"] else 0.0
        wasted_bytes = max(row["free_bytes"] - held_free, 0.0)
        share = wasted_bytes / row["size_bytes"]
        if share > self.bloat_share_critical and row["size_bytes"] > self.size_bytes_critical:
            severity = Severity.CRITICAL
        elif share > self.bloat_share_warn and row["size_bytes"] > self.size_bytes_warn:
            severity = Severity.WARN
        else:
            return None
        how = "measured by pgstattuple" if row["is_measured"] else "an estimate"
        partition = f" (partition of {row['root']})" if row["root"] != row["name"] else ""
        return Finding(
            object=row["name"],
            severity=severity,
            recommendation=f"{size(wasted_bytes)} of {row['name']}{partition} hold no live row: {percent(share)} of "
            f"{size(row['size_bytes'])} ({how}). VACUUM makes room for new rows but does not shrink it: pg_repack "
            f"does, VACUUM FULL does under an exclusive lock{'; or let the partition expire' if partition else ''}.",
            evidence={
                "size_bytes": row["size_bytes"],
                "wasted_bytes": wasted_bytes,
                "bloat_share": round(share, 4),
                "live_rows": row["live_rows"],
                "is_measured": row["is_measured"],
            },
        )


def _estimated(row: Any) -> dict[str, Any]:
    return {**row, "free_bytes": row["size_bytes"] - row["estimated_bytes"], "is_measured": False}
