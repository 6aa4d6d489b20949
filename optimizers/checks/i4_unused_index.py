"""I4: large indexes that no server has used for weeks.

Reads pg_stat_all_indexes on the target and on its configured replicas. Never automatic: a yearly report may need it.
Kept: what enforces something, and an index that begins with a foreign key. Statistics and the index itself must be old
enough; the catalogue does not tell the age of an index, so it counts from the first run that saw it.
"""

from dataclasses import dataclass
from typing import ClassVar

from optimizers.check import Answer, Finding, Look, Severity
from optimizers.index_sql import drop_index
from optimizers.index_use import IndexUse, read_index_use, unasked
from optimizers.wording import size


@dataclass(frozen=True)
class UnusedIndex:
    """Thresholds of I4."""

    id: ClassVar[str] = "I4"
    title: ClassVar[str] = "unused index"
    timeout_s: ClassVar[float] = 15.0

    warn_bytes: int = 10 * 1024 * 1024
    critical_bytes: int = 100 * 1024 * 1024
    warn_days: float = 14.0
    critical_days: float = 30.0

    async def look(self, look: Look) -> Answer:
        """Return the unused indexes, the largest first."""
        uses = await read_index_use(look)
        unused = [use for use in uses if not use.all_scans and use.size_bytes >= self.warn_bytes]
        if (missing := unasked(uses, look)) is not None:
            return Answer(insufficient=missing)
        ripe = [use for use in unused if use.known_days >= self.warn_days]
        ripe.sort(key=lambda use: -use.size_bytes)
        oldest_days = max((use.known_days for use in uses), default=0.0)
        # A young index among old ones is silent; while all are young nobody can tell.
        too_young = bool(unused) and oldest_days < self.warn_days
        why = (
            f"{len(unused)} unused so far, known for {oldest_days:.1f} of {self.warn_days:g} days"
            if too_young
            else None
        )
        return Answer([self._finding(use) for use in ripe], insufficient=why)

    def _finding(self, use: IndexUse) -> Finding:
        is_critical = use.size_bytes >= self.critical_bytes and use.known_days >= self.critical_days
        writes = use.writes_per_hour
        paid = "" if writes is None else f", {writes:.0f} writes/h"
        return Finding(
            object=use.name,
            severity=Severity.CRITICAL if is_critical else Severity.WARN,
            recommendation=(
                f"Index {use.name} on {use.table}: 0 scans on {use.where} in {use.known_days:.0f} days; "
                f"{size(use.size_bytes)}{paid}. Drop it unless a rare task needs it; to undo: {use.definition}."
            ),
            evidence={
                "table": use.table,
                "scans": use.scans,
                "last_scan": use.last_scan and use.last_scan.isoformat(),
                "known_days": use.known_days,
                "size_bytes": use.size_bytes,
                "writes_per_hour": writes,
                "attached_standbys": use.standbys,
            },
            sql=drop_index(use.name, is_partitioned=use.is_partitioned),
            rollback=use.definition,
        )
