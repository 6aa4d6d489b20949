"""S1: sequences and integer keys that come near the end of their type: the next INSERT after it fails.

Reads pg_sequences with the columns they fill, and pg_stats of keys without a sequence. Never automatic: a change of
type rewrites the table. Sequences that cycle or count down are left alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity
from optimizers.wording import count, grade, percent


@dataclass(frozen=True)
class Sequences:
    """Thresholds of S1: used values as a share of the sequence, or of a column of int2 or int4."""

    id: ClassVar[str] = "S1"
    title: ClassVar[str] = "sequences and integer keys"
    timeout_s: ClassVar[float] = 10.0

    used_share_warn: float = 0.75
    used_share_critical: float = 0.9
    integer_share_warn: float = 0.5
    integer_share_critical: float = 0.75

    async def look(self, look: Look) -> Answer:
        """Look at every sequence and at every narrow key."""
        sequences = await look.connection.fetch(load("check_s1_sequences"))
        keys = await look.connection.fetch(load("check_s1_integer_keys"), self.integer_share_warn)
        found = [self._of_sequence(row) for row in sequences if row["last_value"] is not None]
        found += [self._of_key(row) for row in keys if row["largest"] is not None]
        hidden = [row["name"] for row in sequences if not row["is_readable"]]
        hidden += [f"{row['table_name']}.{row['column_name']}" for row in keys if row["largest"] is None]
        unread = f"{len(hidden)} may not be read, {hidden[0]} first: grant the role SELECT" if hidden else None
        return Answer([finding for finding in found if finding], unread)

    def _of_sequence(self, row: Any) -> Finding | None:
        is_narrow = row["type_max"] is not None
        top = min(row["max_value"], row["type_max"]) if is_narrow else row["max_value"]
        share = row["last_value"] / top
        severity = self._severity(share, is_narrow)
        if severity is None:
            return None
        column = f"{row['table_name']}.{row['column_name']} ({row['column_type']})" if row["column_name"] else None
        return Finding(
            object=row["name"],
            severity=severity,
            recommendation=f"Sequence {row['name']} is at {count(row['last_value'])} of {count(top)} ({percent(share)})"
            + (f"; it fills {column}. " if column else ". ")
            + _advice(row["column_type"] if is_narrow else None, row["table_name"], row["column_name"]),
            evidence={
                "last_value": row["last_value"],
                "largest_value": top,
                "used_share": round(share, 4),
                "column": column,
            },
            sql=_widen(row) if is_narrow else None,
        )

    def _of_key(self, row: Any) -> Finding | None:
        share = row["largest"] / row["type_max"]
        severity = self._severity(share, is_narrow=True)
        if severity is None:
            return None
        column = f"{row['table_name']}.{row['column_name']}"
        return Finding(
            object=column,
            severity=severity,
            recommendation=f"Key {column} ({row['column_type']}) holds values up to {count(row['largest'])} of "
            f"{count(row['type_max'])} ({percent(share)}), by its statistics. "
            + _advice(row["column_type"], row["table_name"], row["column_name"]),
            evidence={
                "largest_seen": row["largest"],
                "largest_value": row["type_max"],
                "used_share": round(share, 4),
                "column_type": row["column_type"],
            },
            sql=_widen(row),
        )

    def _severity(self, share: float, is_narrow: bool) -> Severity | None:
        if is_narrow:
            return grade(share, self.integer_share_warn, self.integer_share_critical)
        return grade(share, self.used_share_warn, self.used_share_critical)


def _advice(column_type: str | None, table: str | None, column: str | None) -> str:
    if column_type is None:
        return "Raise its MAXVALUE, or see why it is used up so fast."
    return (
        f"Change {column} of {table} to bigint, and every column that refers to it; it rewrites the table under an "
        "exclusive lock: for a large one add a column, fill it by and by, and swap."
    )


def _widen(row: Mapping[str, Any] | Any) -> str:
    return f"ALTER TABLE {row['table_name']} ALTER COLUMN {row['column_name']} TYPE bigint"
