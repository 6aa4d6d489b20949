"""Advice: the rows of what the scheduled jobs recommend and which thresholds they set, as the page shows them.

Out: Recommendation, Threshold and the readers that give them. Pure but for the readers.
Promise: a section without a reader, or without a row, says what its job said last, and never that all is well.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from database.cache_lifetimes import KIND as CACHE_TTL
from database.connect import Pool, acquire
from database.performance import RecommendationRow, read_performance
from database.thresholds import ThresholdRow, list_thresholds
from exporter.page.words import unit_of


class Recommendation(NamedTuple):
    """One piece of advice of the performance optimizer."""

    kind: str
    target: str
    text: str
    evidence: Mapping[str, Any]
    """The numbers it rests on, with units in their names."""
    expected_effect: str
    confidence: str
    state: str
    since_s: float


class Threshold(NamedTuple):
    """One threshold beside what is measured now."""

    metric: str
    route: str
    unit: str
    warn: float
    critical: float
    actual: float | None
    """Of the newest five minutes; None: not known."""
    is_low_side: bool
    """Whether less is worse."""
    level: str
    set_by: str
    says: str

    @property
    def share(self) -> float | None:
        """The actual value as a share of where it warns; None where that says nothing."""
        return None if self.actual is None or self.is_low_side or self.warn <= 0 else self.actual / self.warn


async def read_recommendations(pool: Pool) -> list[Recommendation]:
    """Return what is recommended now; what is no longer seen is told by /metrics/performance only."""
    async with acquire(pool) as connection:
        found = await read_performance(connection)
    return [recommendation(row) for row in found["recommendations"] if row["state"] in ("proposed", "applied")]


def recommendation(row: RecommendationRow) -> Recommendation:
    """Return a recommendation as it is shown."""
    return Recommendation(
        row["kind"],
        row["target"],
        _text(row),
        row["evidence"],
        row["expected_effect"],
        row["confidence"],
        row["state"],
        row["first_seen"].timestamp(),
    )


def _text(row: RecommendationRow) -> str:
    if not row["current"]:
        return row["proposed"]
    if row["kind"] == CACHE_TTL:
        before, after = ("was", "now") if row["state"] == "applied" else ("now", "better")
        return f"lifetime {before} {row['current']}, {after} {row['proposed']}"
    return f"now {row['current']}; advised: {row['proposed']}"


async def read_thresholds(pool: Pool) -> list[Threshold]:
    """Return the thresholds of now, those that are reached first."""
    async with acquire(pool) as connection:
        rows = await list_thresholds(connection, datetime.now(UTC))
    return sorted(map(threshold, rows), key=lambda one: -_RANK[one.level])


def threshold(row: ThresholdRow) -> Threshold:
    """Return a threshold as it is shown."""
    level = "unknown" if row["actual"] is None else _LEVELS[row["severity"]]
    learned = f"{row['n']:,} samples" if row["n"] else ""
    return Threshold(
        row["metric"],
        row["route"],
        unit_of(row["metric"]),
        row["warn"],
        row["critical"],
        row["actual"],
        row["side"] == "low",
        level,
        "pinned" if row["is_pinned"] else row["method"],
        "; ".join(filter(None, (f"frozen: {row['frozen']}" if row["frozen"] else "", learned))),
    )


_LEVELS: Final = {None: "ok", "warn": "degraded", "critical": "down"}
_RANK: Final = {"ok": 0, "unknown": 1, "degraded": 2, "down": 3}


Reader = Callable[[Pool], Awaitable[Sequence[Any]]]

READERS: Final[dict[str, Reader]] = {"recommendations": read_recommendations, "thresholds": read_thresholds}
"""What reads the rows of a section from the database: `recommendations` (of Recommendation), `thresholds`."""

JOBS: Final = {
    "recommendations": ("collect_metrics", "cache_ttl"),
    "thresholds": ("recalibrate_thresholds",),
}
"""Whose last run is told where there is no row."""


def runs_of(jobs: Sequence[Mapping[str, Any]] | None, section: str) -> list[Mapping[str, Any]]:
    """Return the jobs that fill a section, of those in the schedule."""
    return [job for job in jobs or () if job["job"] in JOBS[section]]
