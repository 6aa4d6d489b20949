"""W1: checkpoints that came because WAL was full, more often than those that came by time.

Reads pg_stat_checkpointer (17 and newer) or pg_stat_bgwriter, and pg_stat_wal, as deltas of about an hour. Never
automatic. A backup or an operator asks for a checkpoint too: a few are silent.
"""

from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

from database.queries import load
from optimizers.check import Answer, Finding, Interval, Look, Severity
from optimizers.wording import MB, count, setting_size, size, span

STEP_BYTES = 256 * MB


@dataclass(frozen=True)
class ForcedCheckpoints:
    """Thresholds of W1."""

    id: ClassVar[str] = "W1"
    title: ClassVar[str] = "forced checkpoints"
    timeout_s: ClassVar[float] = 5.0

    min_requested: float = 3.0

    async def look(self, look: Look) -> Answer:
        """Compare with about an hour ago."""
        view = "check_w1_checkpointer" if look.version >= 17 else "check_w1_bgwriter"
        row = await look.connection.fetchrow(load(view))
        assert row is not None
        counters = {key: row[key] for key in ("timed", "requested", "wal_bytes")}
        passed = await look.since("checkpoints", {"server": counters})
        if passed is None or "server" not in passed.deltas:
            return Answer(insufficient="no counters of an hour ago to compare with")
        delta = passed.deltas["server"]
        if delta["requested"] <= delta["timed"] or delta["requested"] < self.min_requested:
            return Answer()
        return Answer([_finding(row, passed)])


def _finding(row: Any, passed: Interval) -> Finding:
    delta = passed.deltas["server"]
    # A checkpoint begins when about half of max_wal_size is written: the rest is written while it works.
    wanted = 2 * delta["wal_bytes"] / passed.seconds * row["timeout_s"]
    proposed = ceil(max(wanted, 2 * row["max_wal_bytes"]) / STEP_BYTES) * STEP_BYTES
    change = f"{setting_size(row['max_wal_bytes'])} to {setting_size(proposed)}"
    return Finding(
        object="max_wal_size",
        severity=Severity.WARN,
        recommendation=f"{count(delta['requested'])} checkpoints were forced and {count(delta['timed'])} came by time "
        f"in {span(passed.seconds)}, with {size(delta['wal_bytes'])} of WAL. Raise max_wal_size from {change}: each "
        "checkpoint makes the next write of every page a full one. See also whether a backup asks for them.",
        evidence={
            "requested": delta["requested"],
            "timed": delta["timed"],
            "wal_bytes": delta["wal_bytes"],
            "interval_s": passed.seconds,
            "max_wal_bytes": row["max_wal_bytes"],
            "proposed_max_wal_bytes": proposed,
        },
        sql=f"ALTER SYSTEM SET max_wal_size = '{setting_size(proposed)}'",
        rollback=f"ALTER SYSTEM SET max_wal_size = '{setting_size(row['max_wal_bytes'])}'",
    )
