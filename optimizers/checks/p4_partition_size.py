"""P4: partitions by time that hold too many rows, and statements that read all of them because they leave out the key.

Reads sizes and bounds of partitions, and pg_stat_statements where it is installed (its absence is said). A statement
counts when its text names the table and nowhere the key: an estimate. Never automatic.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isinf
from typing import ClassVar

from optimizers.check import Answer, Finding, Look, Severity, Unsupported
from optimizers.statements import Statement, read_statements, spent_since
from optimizers.time_partitions import Slice, TimeTable, time_tables, width
from optimizers.wording import count, grade, size, span

_READS = re.compile(r"\s*(select|update|delete|with)\b", re.IGNORECASE)


@dataclass(frozen=True)
class PartitionSize:
    """Thresholds of P4."""

    id: ClassVar[str] = "P4"
    title: ClassVar[str] = "partition size and pruning"
    timeout_s: ClassVar[float] = 15.0

    rows_warn: float = 25_000_000.0
    calls_warn: float = 100.0
    """Statements an hour without the key."""
    calls_critical: float = 1000.0

    async def look(self, look: Look) -> Answer:
        """Look at every table partitioned by time."""
        tables = await time_tables(look)
        found = [finding for table in tables if (finding := self._of_size(table))]
        if not tables:
            return Answer()
        try:
            statements = await read_statements(look)
        except Unsupported as lacking:
            return Answer(found, f"pruning is not judged: {lacking}")
        spent = await spent_since(look, statements)
        if spent is None:
            return Answer(found, "no hour of statement counters yet")
        calls_per_h = {name: each["calls"] / spent.hours for name, each in spent.by_id.items()}
        return Answer(found + self._of_pruning(tables, statements, calls_per_h))

    def _of_size(self, table: TimeTable) -> Finding | None:
        ill = [each for each in table.slices if each.live_rows > self.rows_warn]
        if not ill:
            return None
        largest = max(ill, key=lambda each: each.live_rows)
        return Finding(
            object=table.name,
            severity=Severity.WARN,
            recommendation=f"{len(ill)} partitions of {table.name} hold more than {count(self.rows_warn)} rows; "
            f"{largest.name}: {count(largest.live_rows)} ({size(largest.size_bytes)}). {self._advice(largest)}",
            evidence={
                "partitions": [each.name for each in ill][:20],
                "largest_rows": largest.live_rows,
                "largest_bytes": largest.size_bytes,
                "width_s": None if isinf(largest.end_s - largest.start_s) else largest.end_s - largest.start_s,
            },
        )

    def _advice(self, largest: Slice) -> str:
        width_s = largest.end_s - largest.start_s
        if isinf(width_s):
            return "Bound it: an open range grows for ever."
        narrower = width(width_s * self.rows_warn / largest.live_rows)
        return f"Change the interval of new partitions from {span(width_s)} to {span(narrower.total_seconds())}."

    def _of_pruning(
        self, tables: Sequence[TimeTable], statements: Mapping[str, Statement], calls_per_h: Mapping[str, float]
    ) -> list[Finding]:
        found: list[Finding] = []
        for table in tables:
            names, key = _names(table.name), re.compile(rf"\b{re.escape(table.key)}\b", re.IGNORECASE)
            for queryid, calls in calls_per_h.items():
                severity = grade(calls, self.calls_warn, self.calls_critical)
                text = statements[queryid].query
                if severity and _READS.match(text) and names.search(text) and not key.search(text):
                    found.append(_without_key(table, statements[queryid], calls, severity))
        return found


def _names(table: str) -> re.Pattern[str]:
    """Return what finds a table in a statement, with or without its schema."""
    schema, _, name = table.replace('"', "").rpartition(".")
    return re.compile(
        rf"\b(?:from|join|update)\s+(?:only\s+)?(?:\"?{re.escape(schema)}\"?\.)?\"?{re.escape(name)}\b(?!\.)",
        re.IGNORECASE,
    )


def _without_key(table: TimeTable, statement: Statement, calls_per_h: float, severity: Severity) -> Finding:
    return Finding(
        object=f"{table.name} query {statement.queryid}",
        severity=severity,
        recommendation=f"Query {statement.queryid} ran {count(calls_per_h)} times an hour on {table.name} without its "
        f"key {table.key}: it visits all {len(table.slices)} partitions. Add a condition on {table.key}.",
        evidence={"calls_per_h": calls_per_h, "partitions": len(table.slices), "query": statement.shown},
    )
