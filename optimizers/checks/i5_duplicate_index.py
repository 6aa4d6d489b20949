"""I5: indexes that another index makes superfluous.

Reads pg_index. Exact duplicates may be dropped on request; a prefix of a longer index is for a person: the shorter
one may be read faster. Kept apart: other order, expressions, predicates, methods, operator classes, included columns,
and all that enforces something.
"""

from dataclasses import dataclass
from typing import ClassVar

import asyncpg

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity, Tier
from optimizers.index_sql import drop_index
from optimizers.wording import size


@dataclass(frozen=True)
class DuplicateIndex:
    """Thresholds of I5."""

    id: ClassVar[str] = "I5"
    title: ClassVar[str] = "duplicate index"
    timeout_s: ClassVar[float] = 10.0

    prefix_critical_bytes: int = 100 * 1024 * 1024

    async def look(self, look: Look) -> Answer:
        """Return what can go, the largest first."""
        rows = await look.connection.fetch(load("check_i5_duplicate_index"))
        return Answer([self._finding(row) for row in sorted(rows, key=lambda row: -row["size_bytes"])])

    def _finding(self, row: asyncpg.Record) -> Finding:
        is_exact = row["is_exact"]
        is_critical = is_exact or row["size_bytes"] > self.prefix_critical_bytes
        what = "is the same as" if is_exact else "is a prefix of"
        return Finding(
            object=row["name"],
            severity=Severity.CRITICAL if is_critical else Severity.WARN,
            recommendation=(
                f"Index {row['name']} ({size(row['size_bytes'])}) on {row['table_name']} {what} {row['covered_by']}, "
                "which serves every query that it serves: each write pays for both."
            ),
            evidence={
                "table": row["table_name"],
                "covered_by": row["covered_by"],
                "definition": row["definition"],
                "covered_by_definition": row["covered_by_definition"],
                "size_bytes": row["size_bytes"],
                "is_exact": is_exact,
            },
            sql=drop_index(row["name"], is_partitioned=row["is_partitioned"]),
            rollback=row["definition"],
            tier=Tier.OPT_IN if is_exact and not row["is_partitioned"] else Tier.NEVER,
        )
