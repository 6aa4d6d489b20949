"""I3: foreign keys whose columns no index begins with.

Reads pg_constraint, pg_index and pg_stat_user_tables. Each delete in the parent, and each change of its key, reads
the whole child. A parent that never changes and a small child are healthy. Opt-in: an index costs every write.
"""

from dataclasses import dataclass
from typing import ClassVar

import asyncpg

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity, Tier
from optimizers.index_sql import create_index
from optimizers.wording import count


@dataclass(frozen=True)
class ForeignKeyIndex:
    """Thresholds of I3."""

    id: ClassVar[str] = "I3"
    title: ClassVar[str] = "foreign key without index"
    timeout_s: ClassVar[float] = 10.0

    rows: int = 10_000
    """Of the child."""

    async def look(self, look: Look) -> Answer:
        """Return the foreign keys that make parents slow, the largest child first."""
        rows = await look.connection.fetch(load("check_i3_foreign_keys"), self.rows)
        return Answer([_finding(row) for row in rows])


def _finding(row: asyncpg.Record) -> Finding:
    columns = ", ".join(row["columns"])
    is_partitioned = row["is_partitioned"]
    sql, rollback = create_index(row["schema_name"], row["bare_name"], row["columns"], is_partitioned=is_partitioned)
    locks = " It is partitioned: writers wait while it is built." if is_partitioned else ""
    return Finding(
        object=f"{row['name']} ({columns})",
        severity=Severity.WARN,
        recommendation=(
            f"Each delete or key change in {row['parent']} ({count(row['parent_deletes'])} deletes, "
            f"{count(row['parent_updates'])} updates so far) reads all {count(row['live_rows'])} rows of "
            f"{row['name']}: no index begins with ({columns}). Index them.{locks}"
        ),
        evidence={
            "constraint": row["constraint_name"],
            "parent": row["parent"],
            "live_rows": row["live_rows"],
            "parent_deletes": row["parent_deletes"],
            "parent_updates": row["parent_updates"],
        },
        sql=sql,
        rollback=rollback,
        tier=Tier.NEVER if is_partitioned else Tier.OPT_IN,
    )
