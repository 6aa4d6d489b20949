"""Slots: the instants at which jobs are due, aligned to the database's clock, and the trigger that meets them.

In: an interval, a jitter, how far the database clock is ahead. Out: the next time for the scheduler to fire. Pure.
Promise: all aggregators name the same slots; jitter delays a slot and never shifts the next one.
"""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from apscheduler.triggers.base import BaseTrigger  # pyright: ignore[reportMissingTypeStubs]

LARGEST_JITTER: Final = 0.25
"""Share of the interval: a slot's run begins long before the next slot."""
ROUNDING_S: Final = 0.001
"""Times are rounded to microseconds: fired a little before its slot, a trigger would meet it again."""


def slot_of(at_s: float, every_s: float) -> float:
    """Return the slot that an instant lies in (Unix seconds)."""
    return at_s // every_s * every_s


class SlotTrigger(BaseTrigger):
    """Fires once a slot, up to `jitter_s` after its beginning.

    APScheduler's own IntervalTrigger counts from the time it fired last, jitter included, and so drifts away.
    """

    def __init__(
        self, every_s: float, jitter_s: float, ahead_s: Callable[[], float] = lambda: 0.0, seed: int | None = None
    ) -> None:
        self._every_s = every_s
        self._jitter_s = min(jitter_s, every_s * LARGEST_JITTER)
        self._ahead_s = ahead_s
        self._random = random.Random(seed)  # noqa: S311 - spreads load, keeps no secret

    def get_next_fire_time(self, previous_fire_time: Any, now: Any) -> Any:
        """Return when to fire next (datetime): in the slot after `now` and after the one fired for."""
        ahead_s = self._ahead_s()
        after_s = (
            now.timestamp() if previous_fire_time is None else max(now.timestamp(), previous_fire_time.timestamp())
        )
        slot_s = slot_of(after_s + ahead_s + ROUNDING_S, self._every_s) + self._every_s
        return datetime.fromtimestamp(slot_s - ahead_s + self._random.uniform(0, self._jitter_s), UTC)
