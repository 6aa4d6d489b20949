"""I1: tables that are read whole again and again although they are large.

Reads pg_stat_user_tables as hourly deltas, and sizes. What would help is for I2 to prove, or for a person. Sources of
the thresholds: pghero (share of index scans), pgdoctor (critical); rows and bytes per scan are our own gate, which
keeps small tables, for which a scan is right, silent.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity
from optimizers.statements import Statement, statements_if_any
from optimizers.wording import count, size

NAMED: Final = 3


@dataclass(frozen=True)
class Scans:
    """What an hour brought to one table, its partitions together."""

    name: str
    bare_name: str
    live_rows: int
    size_bytes: int
    seq_scans: float
    seq_rows: float
    index_scans: float

    @property
    def rows_per_scan(self) -> float:
        """Of scans of the whole table."""
        return self.seq_rows / self.seq_scans if self.seq_scans else 0.0


@dataclass(frozen=True)
class MissingIndex:
    """Thresholds of I1."""

    id: ClassVar[str] = "I1"
    title: ClassVar[str] = "missing index"
    timeout_s: ClassVar[float] = 15.0

    rows: int = 10_000
    size_bytes: int = 10 * 1024 * 1024
    index_share: float = 0.95
    """Of all scans."""
    rows_per_scan: float = 10_000.0
    scans_per_hour: float = 10.0
    critical_rows: int = 50_000
    critical_ratio: float = 50.0
    """Scans of the whole table to scans of an index."""

    async def look(self, look: Look) -> Answer:
        """Return the tables that were read whole too often in about an hour."""
        rows = await look.connection.fetch(load("check_i1_table_scans"))
        counters = {
            str(row["table_id"]): {key: float(row[key]) for key in ("seq_scans", "seq_rows", "index_scans")}
            for row in rows
        }
        interval = await look.since("scans", counters, is_complete=True)
        if interval is None:
            return Answer(insufficient="no hour of scans yet")
        ill = [each for each in _by_table(rows, interval.deltas) if self._is_ill(each, interval.hours)]
        ill.sort(key=lambda scans: -scans.seq_rows)
        statements = await statements_if_any(look) if ill else {}
        return Answer([self._finding(each, interval.hours, statements) for each in ill])

    def _is_ill(self, scans: Scans, hours: float) -> bool:
        return (
            scans.live_rows >= self.rows
            and scans.size_bytes >= self.size_bytes
            and scans.rows_per_scan >= self.rows_per_scan
            and scans.seq_scans >= self.scans_per_hour * hours
            and scans.index_scans < self.index_share * (scans.index_scans + scans.seq_scans)
        )

    def _finding(self, scans: Scans, hours: float, statements: Mapping[str, Statement]) -> Finding:
        is_critical = scans.live_rows > self.critical_rows and scans.seq_scans > self.critical_ratio * scans.index_scans
        queries = _that_name(scans.bare_name, statements)
        by = f" Queries that name it: {', '.join(query['queryid'] for query in queries)}." if queries else ""
        return Finding(
            object=scans.name,
            severity=Severity.CRITICAL if is_critical else Severity.WARN,
            recommendation=(
                f"Table {scans.name} ({count(scans.live_rows)} rows, {size(scans.size_bytes)}) was read whole "
                f"{scans.seq_scans / hours:.0f} times an hour, {count(scans.rows_per_scan)} rows each time, and "
                f"through an index {scans.index_scans / hours:.0f} times.{by} "
                "Look for a filter or join without an index."
            ),
            evidence={
                "live_rows": scans.live_rows,
                "size_bytes": scans.size_bytes,
                "seq_scans_per_hour": scans.seq_scans / hours,
                "index_scans_per_hour": scans.index_scans / hours,
                "rows_per_scan": scans.rows_per_scan,
                "queries": queries,
            },
        )


def _by_table(rows: Sequence[Any], deltas: Mapping[str, Mapping[str, float]]) -> list[Scans]:
    """Put partitions together: one scan of the parent is one of each, so the busiest counts them."""
    members: dict[str, list[Any]] = {}
    for row in rows:
        if str(row["table_id"]) in deltas and row["size_bytes"] is not None:
            members.setdefault(row["name"], []).append(row)
    found: list[Scans] = []
    for name, parts in members.items():
        changes = [deltas[str(part["table_id"])] for part in parts]
        found.append(
            Scans(
                name,
                parts[0]["bare_name"],
                sum(part["live_rows"] for part in parts),
                sum(part["size_bytes"] for part in parts),
                max(change["seq_scans"] for change in changes),
                sum(change["seq_rows"] for change in changes),
                max(change["index_scans"] for change in changes),
            )
        )
    return found


def _that_name(table: str, statements: Mapping[str, Statement]) -> list[dict[str, Any]]:
    """Return the costliest statements that read rows and in whose text the table's name stands."""
    pattern = re.compile(rf"(?<![\w$]){re.escape(table)}(?![\w$])", re.IGNORECASE)
    naming = [each for each in statements.values() if each.is_planned and pattern.search(each.query)]
    naming.sort(key=lambda each: -each.counters["total_ms"])
    return [{"queryid": each.queryid, "query": each.shown} for each in naming[:NAMED]]
