"""I7: indexes that are written far more often than they are read.

Reads pg_stat_all_indexes and pg_stat_all_tables on all configured servers, since statistics are counted. Never
automatic: whether a rare query is worth it is a decision. Large indexes without any use are I4's.
"""

from dataclasses import dataclass
from typing import ClassVar

from optimizers.check import Answer, Finding, Look, Severity
from optimizers.index_sql import drop_index
from optimizers.index_use import IndexUse, read_index_use, unasked
from optimizers.wording import count, size


@dataclass(frozen=True)
class LowUseIndex:
    """Thresholds of I7."""

    id: ClassVar[str] = "I7"
    title: ClassVar[str] = "index of little use"
    timeout_s: ClassVar[float] = 15.0

    scans: int = 1000
    writes: int = 10_000
    days: float = 7.0
    unused_bytes: int = 10 * 1024 * 1024
    """From this size an index without any scan is left to I4."""

    async def look(self, look: Look) -> Answer:
        """Return the costly ones, the most written first."""
        uses = await read_index_use(look)
        costly = [use for use in uses if self._is_costly(use)]
        if (missing := unasked(uses, look)) is not None:
            return Answer(insufficient=missing)
        ripe = [use for use in costly if use.known_days >= self.days]
        ripe.sort(key=lambda use: -use.writes)
        oldest_days = max((use.known_days for use in uses), default=0.0)
        # A young index among old ones is silent; while all are young nobody can tell.
        too_young = bool(costly) and oldest_days < self.days
        why = (
            f"{len(costly)} of little use so far, known for {oldest_days:.1f} of {self.days:g} days"
            if too_young
            else None
        )
        return Answer([_finding(use) for use in ripe], insufficient=why)

    def _is_costly(self, use: IndexUse) -> bool:
        is_unused = not use.all_scans and use.size_bytes >= self.unused_bytes
        return use.all_scans < self.scans and use.writes > self.writes and not is_unused


def _finding(use: IndexUse) -> Finding:
    return Finding(
        object=use.name,
        severity=Severity.WARN,
        recommendation=(
            f"Index {use.name} on {use.table} ({size(use.size_bytes)}): {count(use.all_scans)} scans on {use.where} "
            f"against {count(use.writes)} writes. Review whether its queries are worth it; to undo: {use.definition}."
        ),
        evidence={
            "table": use.table,
            "scans": use.scans,
            "last_scan": use.last_scan and use.last_scan.isoformat(),
            "writes": use.writes,
            "known_days": use.known_days,
            "size_bytes": use.size_bytes,
        },
        sql=drop_index(use.name, is_partitioned=use.is_partitioned),
        rollback=use.definition,
    )
