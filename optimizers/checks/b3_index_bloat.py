"""B3: B-tree indexes much larger than they would be if they were built anew.

Reads pg_class, pg_index and pg_stats; an estimate, right to about 15 %. Opt-in: REINDEX CONCURRENTLY blocks nobody but
needs room for a second copy. Indexes below 100 pages are silent.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity, Tier
from optimizers.checks.b2_table_bloat import NO_STATISTICS
from optimizers.wording import GB, MB, grade, percent, size, worst


@dataclass(frozen=True)
class IndexBloat:
    """Thresholds of B3: wasted bytes as a share of the index, and as such."""

    id: ClassVar[str] = "B3"
    title: ClassVar[str] = "index bloat"
    timeout_s: ClassVar[float] = 30.0

    min_pages: float = 100.0
    bloat_share_warn: float = 0.5
    bloat_share_critical: float = 0.7
    wasted_bytes_warn: float = 100 * MB
    wasted_bytes_critical: float = GB
    wasted_share: float = 0.3
    """Wasted bytes count only above this share."""

    async def look(self, look: Look) -> Answer:
        """Estimate every B-tree."""
        least = min(self.bloat_share_warn, self.wasted_share)
        rows = await look.connection.fetch(load("check_b3_index_bloat"), self.min_pages, least)
        unknown = [row["name"] for row in rows if row["estimated_bytes"] is None]
        found = [self._finding(row) for row in rows if row["estimated_bytes"] is not None]
        return Answer(
            [finding for finding in found if finding is not None],
            NO_STATISTICS.format(", ".join(unknown[:5])) if unknown else None,
        )

    def _severity(self, share: float, wasted_bytes: float) -> Severity | None:
        by_size = grade(wasted_bytes, self.wasted_bytes_warn, self.wasted_bytes_critical)
        return worst(
            Severity.CRITICAL if share > self.bloat_share_critical else None,
            Severity.WARN if share > self.bloat_share_warn else None,
            by_size if share > self.wasted_share else None,
        )

    def _finding(self, row: Any) -> Finding | None:
        wasted_bytes: float = row["size_bytes"] - row["estimated_bytes"]
        share = wasted_bytes / row["size_bytes"]
        severity = self._severity(share, wasted_bytes)
        if severity is None:
            return None
        return Finding(
            object=row["name"],
            severity=severity,
            recommendation=f"Index {row['name']} on {row['table_name']} is {size(row['size_bytes'])}; built anew it "
            f"would be about {size(row['estimated_bytes'])} ({percent(share)} less, right to about 15 %). REINDEX "
            f"INDEX CONCURRENTLY needs {size(row['estimated_bytes'])} free on disk while it runs.",
            evidence={
                "size_bytes": row["size_bytes"],
                "estimated_bytes": row["estimated_bytes"],
                "wasted_bytes": wasted_bytes,
                "bloat_share": round(share, 4),
                "live_rows": row["live_rows"],
            },
            sql=f"REINDEX INDEX CONCURRENTLY {row['name']}",
            tier=Tier.OPT_IN,
        )
