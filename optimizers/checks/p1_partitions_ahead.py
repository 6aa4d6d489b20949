"""P1: tables partitioned by time whose next partitions are not there: when the last one ends, every INSERT fails.

Reads the bounds of partitions. In the monitoring database automatic: the upkeep makes them, by the clock and not by
data. Elsewhere opt-in. A table whose newest partition ended long ago is closed on purpose, and silent.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, Final

from database.connect import SCHEMA
from database.partitions import PARTS, ROLLUPS, Kind
from optimizers.check import Answer, Finding, Look, Remedy, Severity, Tier
from optimizers.time_partitions import TimeTable, as_text, following, time_tables
from optimizers.wording import span

OWN: Final[dict[str, Kind]] = {f"{SCHEMA}.{kind.parent}": kind for kind in (PARTS, *ROLLUPS.values())}


@dataclass(frozen=True)
class PartitionsAhead:
    """Thresholds of P1: partitions after the one that holds this moment."""

    id: ClassVar[str] = "P1"
    title: ClassVar[str] = "partitions ahead"
    timeout_s: ClassVar[float] = 10.0

    ahead_warn: int = 4
    """Fewer are a warning; of our own parts, whose partitions are minutes, fewer than half of what is made."""
    ahead_critical: int = 2
    dormant_widths: float = 30.0
    """A table that ended so many partitions ago takes no more rows."""

    async def look(self, look: Look) -> Answer:
        """Look at every table partitioned by time."""
        now_s = look.now.timestamp()
        tables = await time_tables(look)
        if look.is_monitoring:
            found = [self._own(table, OWN[table.name], now_s) for table in tables if table.name in OWN]
            found += [_missing(name) for name in OWN.keys() - {table.name for table in tables}]
        else:
            found = [self._other(table, now_s) for table in tables]
        return Answer([finding for finding in found if finding])

    def _own(self, table: TimeTable, kind: Kind, now_s: float) -> Finding | None:
        ahead = len(table.ahead(now_s))
        if not table.holds(now_s) or ahead < self.ahead_critical:
            severity = Severity.CRITICAL
        elif ahead < max(self.ahead_warn, kind.ahead // 2):
            severity = Severity.WARN
        else:
            return None
        return Finding(
            object=table.name,
            severity=severity,
            recommendation=f"{table.name} has {ahead} partitions of {span(kind.width_s)} ahead, the upkeep makes "
            f"{kind.ahead}. Make them now, and see why the job `upkeep` does not run.",
            evidence={
                "ahead": ahead,
                "expected_ahead": kind.ahead,
                "width_s": kind.width_s,
                "holds_now": table.holds(now_s),
            },
            tier=Tier.AUTOMATIC,
            remedy=Remedy.PARTITIONS,
        )

    def _other(self, table: TimeTable, now_s: float) -> Finding | None:
        if not table.slices:
            return None
        last = max(table.slices, key=lambda each: each.end_s)
        width_s = last.end_s - last.start_s
        ahead = table.ahead(now_s)
        if len(ahead) >= self.ahead_warn or last.end_s == float("inf") or last.start_s == float("-inf"):
            return None
        if last.end_s < now_s - self.dormant_widths * width_s:
            return None
        until = "no partition for this moment" if not table.holds(now_s) else f"{len(ahead)} partitions ahead"
        rows = "go to the default partition" if table.has_default else "are refused"
        sql, rollback = _make(table, max(self.ahead_warn - len(ahead), 1))
        return Finding(
            object=table.name,
            severity=Severity.CRITICAL if len(ahead) < self.ahead_critical else Severity.WARN,
            recommendation=f"{table.name} has {until} (width {span(width_s)}, newest ends "
            f"{as_text(datetime.fromtimestamp(last.end_s, UTC))}): rows after that {rows}. Make at least "
            f"{self.ahead_warn} ahead, by the clock.",
            evidence={
                "ahead": len(ahead),
                "width_s": width_s,
                "newest_end_s": last.end_s,
                "holds_now": table.holds(now_s),
                "has_default": table.has_default,
            },
            sql=sql,
            rollback=rollback,
            tier=Tier.OPT_IN,
        )


def _missing(name: str) -> Finding:
    return Finding(
        object=name,
        severity=Severity.CRITICAL,
        recommendation=f"{name} has no partition at all: nothing can be stored. Make them now, and see why the job "
        "`upkeep` does not run.",
        evidence={"ahead": 0, "holds_now": False},
        tier=Tier.AUTOMATIC,
        remedy=Remedy.PARTITIONS,
    )


def _make(table: TimeTable, count: int) -> tuple[str, str]:
    """Return SQL that makes the next partitions and SQL that takes them off again.

    ATTACH lets writers go on; CREATE TABLE … PARTITION OF would lock them out.
    """
    last = max(table.slices, key=lambda each: each.end_s)
    schema, _, parent = table.name.rpartition(".")
    make: list[str] = []
    undo: list[str] = []
    for start, end in following(last, count):
        suffix = f"{start:%Y%m%d}" if last.end_s - last.start_s >= 86_400 else f"{start:%Y%m%d_%H%M}"
        name = f"{schema}." + (f'{parent[:-1]}_{suffix}"' if parent.endswith('"') else f"{parent}_{suffix}")
        bounds = f"FROM ('{as_text(start)}') TO ('{as_text(end)}')"
        make.append(f"CREATE TABLE {name} (LIKE {table.name} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
        make.append(f"ALTER TABLE {table.name} ATTACH PARTITION {name} FOR VALUES {bounds}")
        undo.append(f"ALTER TABLE {table.name} DETACH PARTITION {name}")
    return ";\n".join(make), ";\n".join(undo)
