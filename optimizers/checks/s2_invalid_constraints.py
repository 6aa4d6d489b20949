"""S2: constraints that were added NOT VALID and never validated: old rows may break them, the planner cannot use them.

Reads pg_constraint. Opt-in: VALIDATE reads the whole table while writes go on. Constraints that are NOT ENFORCED
(PostgreSQL 18) are meant so and silent.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity, Tier
from optimizers.wording import size


@dataclass(frozen=True)
class InvalidConstraints:
    """S2 has no thresholds."""

    id: ClassVar[str] = "S2"
    title: ClassVar[str] = "constraints not validated"
    timeout_s: ClassVar[float] = 5.0

    async def look(self, look: Look) -> Answer:
        """Return every constraint that is not valid."""
        rows = await look.connection.fetch(load("check_s2_invalid_constraints"))
        return Answer([_finding(row) for row in rows])


def _finding(row: Any) -> Finding:
    of_size = f" ({size(row['size_bytes'])})" if row["size_bytes"] else ""
    sql = f"ALTER TABLE {row['table_name']} VALIDATE CONSTRAINT {row['name']}"
    return Finding(
        object=f"{row['table_name']}.{row['name']}",
        severity=Severity.WARN,
        recommendation=f"The {row['kind']} constraint {row['name']} of {row['table_name']} was never checked against "
        f"its old rows. {sql} reads the table{of_size} once while writes go on; it fails, and "
        "changes nothing, if a row breaks it.",
        evidence={"kind": row["kind"], "definition": row["definition"], "size_bytes": float(row["size_bytes"])},
        sql=sql,
        tier=Tier.OPT_IN,
    )
