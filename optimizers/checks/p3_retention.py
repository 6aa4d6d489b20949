"""P3: partitions older than their retention.

Reads the bounds of partitions. In the monitoring database the retention is that of the settings and automatic: the
upkeep adds what it drops to the totals' base first. Elsewhere only tables that the threshold `retention` names are
looked at, and detaching is opt-in: nothing is ever dropped by itself.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

from contract.windows import LEVELS_S
from database.connect import SCHEMA
from database.partitions import ROLLUPS
from database.settings import SettingsError, read_duration_s
from optimizers.check import Answer, Finding, Look, Remedy, Severity, Tier
from optimizers.time_partitions import Slice, TimeTable, as_text, names, time_tables
from optimizers.wording import size, span


@dataclass(frozen=True)
class Retention:
    """Thresholds of P3."""

    id: ClassVar[str] = "P3"
    title: ClassVar[str] = "partitions beyond their retention"
    timeout_s: ClassVar[float] = 10.0

    retention: str = ""
    """Tables of other databases and how long they are kept: `public.events=90d sales.orders=2y`."""
    slack_s: float = 7200.0
    """So much later than due is no finding: the upkeep waits while parts are behind."""
    most_partitions: int = 5
    """Detached by one statement."""

    def __post_init__(self) -> None:
        """Refuse a retention that cannot be read."""
        self.kept_s()

    def kept_s(self) -> dict[str, float]:
        """Return table -> seconds, of other databases."""
        kept: dict[str, float] = {}
        for part in self.retention.split():
            table, _, text = part.partition("=")
            try:
                seconds = read_duration_s(text)
            except ValueError:
                seconds = None
            if not table or not isinstance(seconds, int):
                raise SettingsError(f"STREAMGAUGE_CHECKS_FILE: P3.retention: {part} is not like public.events=90d")
            kept[table] = float(seconds)
        return kept

    async def look(self, look: Look) -> Answer:
        """Look at the oldest partitions of each table that has a retention."""
        kept = self.kept_s()
        if look.is_monitoring:
            kept = {
                f"{SCHEMA}.{ROLLUPS[level].parent}": float(getattr(look.settings, f"streamgauge_retention_{level}"))
                for level in LEVELS_S
            }
        elif not kept:
            return Answer()
        now_s = look.now.timestamp()
        tables = {table.name: table for table in await time_tables(look)}
        found = [self._finding(look, tables[name], now_s, kept_s) for name, kept_s in kept.items() if name in tables]
        unknown = sorted(kept.keys() - tables.keys())
        nothing = f"no table partitioned by time is called {unknown[0]}" if unknown and not look.is_monitoring else None
        return Answer([finding for finding in found if finding], nothing)

    def _finding(self, look: Look, table: TimeTable, now_s: float, kept_s: float) -> Finding | None:
        old = [each for each in table.slices if each.end_s < now_s - kept_s - self.slack_s]
        if not old:
            return None
        end = datetime.fromtimestamp(old[0].end_s, UTC)
        freed_bytes = sum(each.size_bytes for each in old)
        text = (
            f"{len(old)} partitions of {table.name} ({size(freed_bytes)}) are older than its retention of "
            f"{span(kept_s)}; the oldest ended {as_text(end)}."
        )
        evidence = {"partitions": names(old)[:20], "freed_bytes": freed_bytes, "retention_s": kept_s}
        if look.is_monitoring:
            return Finding(
                object=table.name,
                severity=Severity.WARN,
                recommendation=f"{text} Let the upkeep archive and drop them, and see why the job `upkeep` did not.",
                evidence=evidence,
                tier=Tier.AUTOMATIC,
                remedy=Remedy.RETENTION,
            )
        few = old[: self.most_partitions]
        return Finding(
            object=table.name,
            severity=Severity.WARN,
            recommendation=f"{text} Detach them; a detached table still takes its space until it is dropped by hand.",
            evidence=evidence,
            sql=";\n".join(f"ALTER TABLE {table.name} DETACH PARTITION {each.name}" for each in few),
            rollback=";\n".join(_attach(table, each) for each in few),
            tier=Tier.OPT_IN,
        )


def _attach(table: TimeTable, old: Slice) -> str:
    start = "MINVALUE" if old.start_s == float("-inf") else f"'{as_text(datetime.fromtimestamp(old.start_s, UTC))}'"
    end = as_text(datetime.fromtimestamp(old.end_s, UTC))
    return f"ALTER TABLE {table.name} ATTACH PARTITION {old.name} FOR VALUES FROM ({start}) TO ('{end}')"
