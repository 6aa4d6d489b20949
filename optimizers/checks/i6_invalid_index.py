"""I6: indexes that a failed CREATE INDEX CONCURRENTLY or REINDEX CONCURRENTLY left invalid.

Reads pg_index, pg_stat_progress_create_index, pg_locks. An invalid index is never used by a query, yet every
write keeps it up to date. One that is being built now is healthy, and one that was just left behind is somebody's who
is still at it: the first hour is silent. Opt-in only for leftovers of REINDEX.
"""

from dataclasses import dataclass
from typing import ClassVar

import asyncpg

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity, Tier


@dataclass(frozen=True)
class InvalidIndex:
    """Thresholds of I6."""

    id: ClassVar[str] = "I6"
    title: ClassVar[str] = "invalid index"
    timeout_s: ClassVar[float] = 5.0

    age_s: float = 3600.0
    """Invalid for so long, since a run first saw it: the catalogue does not tell."""

    async def look(self, look: Look) -> Answer:
        """Return every invalid index that nobody is building."""
        rows = await look.connection.fetch(load("check_i6_invalid_index"))
        since = await look.first_seen(row["name"] for row in rows)
        old = [row for row in rows if (look.now - since[row["name"]]).total_seconds() >= self.age_s]
        return Answer([_finding(row) for row in old])


def _finding(row: asyncpg.Record) -> Finding:
    name, twin = row["name"], row["valid_twin"]
    drop = f"DROP INDEX CONCURRENTLY {name}"
    if row["backs_constraint"]:
        advice, sql = "it backs a constraint: rebuild it", f"REINDEX INDEX CONCURRENTLY {name}"
    elif row["is_leftover"]:
        advice, sql = "left by a REINDEX CONCURRENTLY that failed: drop it", drop
    elif twin is not None:
        advice, sql = f"{twin} does its work: drop it", drop
    else:
        advice, sql = "rebuild it, or drop it where nobody needs it", f"REINDEX INDEX CONCURRENTLY {name}"
    is_droppable = row["is_leftover"] and not row["backs_constraint"]
    return Finding(
        object=name,
        severity=Severity.WARN,
        recommendation=f"Index {name} on {row['table_name']} is invalid: no query uses it, every write pays; {advice}.",
        evidence={"table": row["table_name"], "size_bytes": row["size_bytes"], "valid_twin": twin},
        sql=sql,
        rollback=row["definition"] if sql == drop else None,
        tier=Tier.OPT_IN if is_droppable else Tier.NEVER,
    )
