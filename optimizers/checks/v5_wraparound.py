"""V5: databases and tables whose oldest transaction or multixact comes near the end of its 31-bit circle.

Reads pg_database, pg_class and the holders of the xmin horizon. Never automatic: a freeze of old data is long, and of
no use before the holder of the horizon is gone.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from database.queries import load
from optimizers.check import Answer, Finding, Look
from optimizers.horizon import Holder, holders
from optimizers.wording import count, grade, size

STOP_XIDS: Final = 2_147_483_647
"""PostgreSQL refuses commands shortly before an age of this."""


@dataclass(frozen=True)
class Wraparound:
    """Thresholds of V5: ages in transactions (or multixacts)."""

    id: ClassVar[str] = "V5"
    title: ClassVar[str] = "transaction id wrap-around"
    timeout_s: ClassVar[float] = 10.0

    table_age_warn: float = 400_000_000.0
    table_age_critical: float = 1_000_000_000.0
    database_age_warn: float = 500_000_000.0
    database_age_critical: float = 1_000_000_000.0
    database_age_emergency: float = 1_500_000_000.0

    async def look(self, look: Look) -> Answer:
        """Look at all databases of the server and at the tables of this one."""
        least = min(self.table_age_warn, self.database_age_warn)
        rows = await look.connection.fetch(load("check_v5_wraparound"), least)
        holding = await holders(look.connection) if rows else []
        found = [self._finding(row, holding[0] if holding else None) for row in rows]
        return Answer([finding for finding in found if finding is not None])

    def _finding(self, row: Any, holder: Holder | None) -> Finding | None:
        age: float = max(row["xid_age"] or 0, row["multixact_age"] or 0)
        is_database = row["kind"] == "database"
        warn = self.database_age_warn if is_database else self.table_age_warn
        critical = self.database_age_critical if is_database else self.table_age_critical
        severity = grade(age, warn, critical)
        if severity is None:
            return None
        counted = "transactions" if age == row["xid_age"] else "multixacts"
        left = f"{count(STOP_XIDS - age)} are left before PostgreSQL refuses writes"
        first = (
            f"First end {holder}, which holds the horizon ({count(holder.age_xids)} xids); then" if holder else "Run"
        )
        vacuum = "VACUUM (FREEZE) of its oldest tables" if is_database else f"VACUUM (FREEZE) {row['name']}"
        hurry = "Act today. " if is_database and age >= self.database_age_emergency else ""
        of_size = f" ({size(row['size_bytes'])})" if row["size_bytes"] is not None else ""
        return Finding(
            object=row["name"],
            severity=severity,
            recommendation=f"{row['kind'].capitalize()} {row['name']}{of_size} is {count(age)} {counted} old; {left}. "
            f"{hurry}{first} {vacuum}.",
            evidence={
                "xid_age": row["xid_age"],
                "multixact_age": row["multixact_age"],
                "freeze_max_age": row["freeze_max_age"],
                "size_bytes": row["size_bytes"],
                "horizon_held_by": str(holder) if holder else None,
            },
            sql=None if is_database else f"VACUUM (FREEZE, VERBOSE) {row['name']}",
        )
