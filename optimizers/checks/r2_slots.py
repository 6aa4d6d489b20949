"""R2: replication slots that keep WAL for somebody who does not come for it.

Reads pg_replication_slots. Never automatic: a dropped slot is a standby that has to be made anew. A slot that is in use
and near the end of WAL is silent, and so is one that has been inactive for a moment (PostgreSQL 17 and newer say since
when).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity
from optimizers.wording import GB, grade, size, span, worst

_LOST = {
    "unreserved": "its WAL may be removed at the next checkpoint",
    "lost": "its WAL is gone: its consumer has to be made anew",
}


@dataclass(frozen=True)
class Slots:
    """Thresholds of R2: WAL kept, and how long a slot may be inactive."""

    id: ClassVar[str] = "R2"
    title: ClassVar[str] = "replication slots"
    timeout_s: ClassVar[float] = 5.0

    kept_bytes_warn: float = GB
    kept_bytes_critical: float = 5 * GB
    inactive_s_warn: float = 300.0

    async def look(self, look: Look) -> Answer:
        """Look at every slot."""
        rows = await look.connection.fetch(load("check_r2_slots"))
        return Answer([finding for row in rows if (finding := self._finding(row))])

    def _severity(self, row: Any) -> Severity | None:
        is_idle = not row["active"] and (row["inactive_s"] is None or row["inactive_s"] >= self.inactive_s_warn)
        return worst(
            Severity.CRITICAL if row["wal_status"] in _LOST else None,
            grade(row["kept_bytes"] or 0, self.kept_bytes_warn, self.kept_bytes_critical),
            Severity.WARN if is_idle else None,
        )

    def _finding(self, row: Any) -> Finding | None:
        severity = self._severity(row)
        if severity is None:
            return None
        since = f" for {span(row['inactive_s'])}" if row["inactive_s"] is not None else ""
        state = "active" if row["active"] else f"inactive{since}"
        lost = f", {_LOST[row['wal_status']]}" if row["wal_status"] in _LOST else ""
        unbounded = row["keep_limit_bytes"] is None
        limit = "Set max_slot_wal_keep_size: without it one slot may fill the disk. " if unbounded else ""
        name = row["name"].replace("'", "''")
        return Finding(
            object=f"replication slot {row['name']}",
            severity=severity,
            recommendation=f"{row['slot_type'].capitalize()} slot {row['name']} is {state} and keeps "
            f"{size(row['kept_bytes'] or 0)} of WAL{lost}. {limit}If its consumer will not come back, drop it by hand.",
            evidence={
                "active": row["active"],
                "inactive_s": row["inactive_s"],
                "kept_bytes": row["kept_bytes"],
                "wal_status": row["wal_status"],
                "keep_limit_bytes": row["keep_limit_bytes"],
            },
            sql=f"SELECT pg_drop_replication_slot('{name}')" if not row["active"] else None,
        )
