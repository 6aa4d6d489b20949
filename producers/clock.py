"""Clock: Redis time as this process knows it, by the monotonic clock and a measured offset.

In: round trips to Redis TIME (sender thread). Out: `now_ms` (drainer thread).
Promise: between measurements time only goes forward; a step of the wall clock changes nothing. Before the first
one nothing is to be sealed: the wall clock may be hours off.
"""

import time
from typing import NamedTuple

UNKNOWN_UNCERTAINTY_US = 3_600_000_000
"""Reported before Redis was reached: the wall clock may be anything."""


class Reading(NamedTuple):
    """What was measured: Redis time minus the monotonic clock, and half the round trip."""

    base_ms: float
    uncertainty_us: int


class Clock:
    """Read by one thread, measured by another; the reading is replaced as one object."""

    def __init__(self) -> None:
        self._reading = Reading(time.time() * 1000 - time.monotonic() * 1000, UNKNOWN_UNCERTAINTY_US)
        self._last_ms = 0

    def measured(self, sent_s: float, redis_ms: float, received_s: float) -> None:
        """Note one round trip; `sent_s` and `received_s` are monotonic."""
        uncertainty_us = int((received_s - sent_s) / 2 * 1e6) + 1
        self._reading = Reading(redis_ms - (sent_s + received_s) / 2 * 1000, uncertainty_us)

    def now_ms(self) -> int:
        """Return Redis time in milliseconds; never less than before."""
        self._last_ms = max(self._last_ms, int(time.monotonic() * 1000 + self._reading.base_ms))
        return self._last_ms

    def elapsed_ms(self) -> int:
        """Return time that always passes: `now_ms` stands still for as long as the clock of Redis was set back."""
        return int(time.monotonic() * 1000)

    def is_measured(self) -> bool:
        """Whether Redis was asked for its time at least once."""
        return self._reading.uncertainty_us != UNKNOWN_UNCERTAINTY_US

    def offset_us(self) -> int:
        """Return Redis time minus this machine's wall clock."""
        return int((time.monotonic() * 1000 + self._reading.base_ms - time.time() * 1000) * 1000)

    def uncertainty_us(self) -> int:
        """Return how far off `now_ms` may be."""
        return self._reading.uncertainty_us
