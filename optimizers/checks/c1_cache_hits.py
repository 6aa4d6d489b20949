"""C1: blocks that were not in shared_buffers, where reading them costs time.

Reads pg_stat_database and pg_statio_user_tables, as deltas of about an hour. A low share alone is information: it
warns when many blocks a second are read, and from storage that is slow (track_io_timing). Never automatic.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from database.queries import load
from optimizers.check import Answer, Finding, Interval, Look, Severity
from optimizers.wording import count, percent, size


@dataclass(frozen=True)
class CacheHits:
    """Thresholds of C1: shares of blocks found in shared_buffers, blocks read a second, time of a read."""

    id: ClassVar[str] = "C1"
    title: ClassVar[str] = "cache hit ratio"
    timeout_s: ClassVar[float] = 5.0

    hit_share_info: float = 0.99
    hit_share_warn: float = 0.95
    hit_share_critical: float = 0.9
    min_reads_per_s: float = 100.0
    min_read_ms: float = 1.0
    min_blocks: float = 10_000.0
    """Asked for in the interval; fewer say nothing."""

    async def look(self, look: Look) -> Answer:
        """Compare with about an hour ago."""
        row = await look.connection.fetchrow(load("check_c1_database"))
        readers = await look.connection.fetch(load("check_c1_readers"))
        assert row is not None
        counters = {key: row[key] for key in ("blks_hit", "blks_read", "read_ms")}
        passed = await look.since("database", {"database": counters})
        by_table = await look.since("readers", {each["name"]: {"blks_read": each["blks_read"]} for each in readers})
        if passed is None or "database" not in passed.deltas:
            return Answer(insufficient="no counters of an hour ago to compare with")
        asked = passed.deltas["database"]["blks_hit"] + passed.deltas["database"]["blks_read"]
        if asked < self.min_blocks:
            return Answer(insufficient=f"only {count(asked)} blocks were asked for in {passed.seconds / 60:.0f} min")
        return self._judge(row, passed, by_table)

    def _judge(self, row: Any, passed: Interval, by_table: Interval | None) -> Answer:
        delta = passed.deltas["database"]
        share = delta["blks_hit"] / (delta["blks_hit"] + delta["blks_read"])
        reads_per_s = delta["blks_read"] / passed.seconds
        read_ms = delta["read_ms"] / delta["blks_read"] if row["times_reads"] and delta["blks_read"] else None
        severity = self.severity(share, reads_per_s, read_ms)
        if severity is None:
            return Answer()
        top = _top(by_table)
        slow = (
            f", {read_ms:.2f} ms each" if read_ms is not None else "; track_io_timing is off, so their cost is unknown"
        )
        tables = ", ".join(f"{name} ({count(blocks)} blocks)" for name, blocks in top.items()) or "not known yet"
        finding = Finding(
            object="shared_buffers",
            severity=severity,
            recommendation=f"{percent(share)} of blocks were in shared_buffers ({size(row['shared_buffers_bytes'])}); "
            f"{reads_per_s:.1f} blocks/s were read{slow}. The working set is larger than the cache. Most was read "
            f"for: {tables}.",
            evidence={
                "hit_share": round(share, 4),
                "reads_per_s": reads_per_s,
                "read_ms": read_ms,
                "shared_buffers_bytes": row["shared_buffers_bytes"],
                "interval_s": passed.seconds,
                "blocks_read_by_table": top,
            },
        )
        return Answer([finding])

    def severity(self, share: float, reads_per_s: float, read_ms: float | None) -> Severity | None:
        """Return how bad a share is, given how much is read and how long a read takes (None: not measured)."""
        if share >= self.hit_share_info:
            return None
        costs = reads_per_s > self.min_reads_per_s and read_ms is not None and read_ms > self.min_read_ms
        if not costs or share >= self.hit_share_warn:
            return Severity.INFO
        return Severity.CRITICAL if share < self.hit_share_critical else Severity.WARN


def _top(by_table: Interval | None) -> dict[str, float]:
    if by_table is None:
        return {}
    read = {name: delta["blks_read"] for name, delta in by_table.deltas.items() if delta["blks_read"]}
    return dict(sorted(read.items(), key=lambda item: -item[1])[:5])
