"""Advice: the rows of what the scheduled jobs recommend and which thresholds they set, as the page shows them.

Out: Recommendation, Threshold and the readers that give them. Pure but for the readers.
Promise: a section without a reader, or without a row, says what its job said last, and never that all is well.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from database.connect import Pool


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
    command: str = ""
    """To copy; empty when there is none."""


class Threshold(NamedTuple):
    """One threshold beside what is measured now."""

    metric: str
    labels: str
    unit: str
    warn: float | None
    critical: float | None
    actual: float | None
    """None: not known now."""
    is_low_side: bool
    """Whether less is worse."""
    source: str
    """static, learned, frozen or pinned."""
    reason: str
    changed_s: float | None

    @property
    def level(self) -> str:
        """How the actual value stands; unknown without one, or without a threshold."""
        if self.actual is None or (self.warn is None and self.critical is None):
            return "unknown"
        if _is_beyond(self.actual, self.critical, self.is_low_side):
            return "down"
        return "degraded" if _is_beyond(self.actual, self.warn, self.is_low_side) else "ok"

    @property
    def share(self) -> float | None:
        """The actual value as a share of the nearest threshold; None where that says nothing."""
        limit = self.critical if self.warn is None else self.warn
        if self.actual is None or not limit or self.is_low_side:
            return None
        return self.actual / limit


def _is_beyond(actual: float, limit: float | None, is_low_side: bool) -> bool:
    return limit is not None and (actual < limit if is_low_side else actual > limit)


Reader = Callable[[Pool], Awaitable[Sequence[Any]]]

READERS: Final[dict[str, Reader]] = {}
"""`recommendations` and `thresholds`: what reads their rows from the database."""

JOBS: Final = {
    "recommendations": ("collect_metrics", "cache_ttl"),
    "thresholds": ("recalibrate_thresholds",),
}
"""Whose last run is told where there is no row."""


def runs_of(jobs: Sequence[Mapping[str, Any]] | None, section: str) -> list[Mapping[str, Any]]:
    """Return the jobs that fill a section, of those in the schedule."""
    return [job for job in jobs or () if job["job"] in JOBS[section]]
