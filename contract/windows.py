"""Windows: half-open, aligned intervals `[start, start + width)` on the Redis clock.

In: times in milliseconds since the Unix epoch. Out: window starts in whole seconds.
Promise: an instant belongs to exactly one window of each level; no I/O and no clock is read here.
"""

from typing import Final

WINDOW_S: Final = 10
"""Width of the smallest window in seconds; a batch never crosses one of its boundaries."""

LEVELS_S: Final = {"10s": 10, "1m": 60, "1h": 3600}
"""Name and width in seconds of each rollup level, finest first."""

FUTURE_BOUND_S: Final = 60
"""A window that starts later than this many seconds after the database clock is refused as `future`."""

LATE_BOUND_S: Final = 24 * 3600
"""A window that ended longer ago than this is booked to the oldest open window and marked `displaced`."""


def window_start_s(at_ms: int, width_s: int = WINDOW_S) -> int:
    """Return the start (seconds) of the window of `width_s` that holds the instant `at_ms`."""
    return at_ms // 1000 // width_s * width_s


def window_end_ms(start_s: int, width_s: int = WINDOW_S) -> int:
    """Return the first millisecond after the window that starts at `start_s`."""
    return (start_s + width_s) * 1000
