"""Rules: median and MAD per bucket, the limits they give, and the back-test that judges them.

In: samples of 5 minutes (Unix seconds and values). Out: limits per bucket. Pure.
Promise: robust: up to half of a bucket's samples may be wild without moving its limits far.
The factor 1.4826 makes the MAD of normal data its standard deviation (Rousseeuw and Croux 1993).
"""

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Side = Literal["high", "low"]

STEP_S: Final = 300
HOUR_S: Final = 3600
DAY_S: Final = 86_400
BUCKETS: Final = 48
"""Hour of the day (UTC), and 24 more on Saturday and Sunday."""
NORMAL: Final = 1.4826
WARN_FACTOR: Final = 3.5
CRITICAL_FACTOR: Final = 6.0
FEWEST_SAMPLES: Final = 60
"""A bucket with fewer takes the samples of the hours beside it too."""
MAD_FLOOR: Final = 0.05
"""Of the median: a value that never varies would else get a limit that any change crosses."""
SMALLEST: Final = 1e-9
"""Stands for 0 on the log scale."""
IN_A_ROW: Final = 3
"""Samples over a limit that make an alert: `for: 15m`."""
MOST_FIRINGS: Final = 2
"""A week; more and the limits are refused."""
INJECTED: Final = 2.0
STATIC_DAYS: Final = 7.0
SEASONAL_DAYS: Final = 14.0
MOST_UP: Final = 1.10
MOST_DOWN: Final = 0.80


class Limits(NamedTuple):
    """What one bucket says."""

    warn: float
    critical: float
    median: float
    mad: float
    """On the scale it was measured on: of logarithms where the definition says so."""
    n: int


def buckets(at_s: Ints) -> Ints:
    """Return the bucket of each instant. Day 0 of the Unix epoch was a Thursday."""
    weekday = (at_s // DAY_S + 3) % 7
    return at_s % DAY_S // HOUR_S + 24 * (weekday >= 5)


def pooled(of: Ints, bucket: int) -> Flags:
    """Return which samples speak for a bucket: its own, and the neighbours' where it has too few."""
    own = of == bucket
    if int(own.sum()) >= FEWEST_SAMPLES:
        return own
    base, hour = bucket // 24 * 24, bucket % 24
    return own | (of == base + (hour - 1) % 24) | (of == base + (hour + 1) % 24)


def limits(values: Floats, side: Side, *, is_log: bool) -> Limits:
    """Return the limits of one bucket's values."""
    scaled = np.log(np.maximum(values, SMALLEST)) if is_log else values
    middle = float(np.median(scaled))
    floor = float(np.log1p(MAD_FLOOR)) if is_log else MAD_FLOOR * abs(middle)
    mad = max(float(np.median(np.abs(scaled - middle))), floor)
    sign = 1.0 if side == "high" else -1.0
    warn, critical = (middle + sign * factor * NORMAL * mad for factor in (WARN_FACTOR, CRITICAL_FACTOR))
    if is_log:
        warn, critical, middle = (float(np.exp(value)) for value in (warn, critical, middle))
    return Limits(warn, critical, middle, mad, len(values))


def seasonal(at_s: Ints, values: Floats, side: Side, *, is_log: bool) -> dict[int, Limits]:
    """Return limits per bucket that has samples (its own or its neighbours')."""
    of = buckets(at_s)
    chosen = {bucket: values[pooled(of, bucket)] for bucket in range(BUCKETS)}
    return {bucket: limits(of_bucket, side, is_log=is_log) for bucket, of_bucket in chosen.items() if len(of_bucket)}


def everywhere(values: Floats, side: Side, *, is_log: bool) -> dict[int, Limits]:
    """Return the same limits for each bucket, from all samples."""
    one = limits(values, side, is_log=is_log)
    return dict.fromkeys(range(BUCKETS), one)


def clamp(found: Limits, low: float, high: float) -> Limits:
    """Keep both limits within what a person allowed."""
    return found._replace(warn=min(max(found.warn, low), high), critical=min(max(found.critical, low), high))


def limit_move(old: float, new: float, days: float) -> float:
    """Keep a limit from moving faster than +10 % or -20 % a day; `days` since it was set, one at most counts."""
    if old <= 0:
        return new  # A share of nothing is nothing: it would stay at 0 for good.
    days = min(max(days, 0.0), 1.0)
    return min(max(new, old * MOST_DOWN**days), old * MOST_UP**days)


def is_over(values: Floats, limit: Floats, side: Side) -> Flags:
    """Return which values are beyond their limits."""
    return values > limit if side == "high" else values < limit


def in_row(at_s: Ints, over: Flags, length: int = IN_A_ROW) -> Flags:
    """Return which samples belong to `length` or more in a row over the limit; a gap ends a row."""
    if not len(over):
        return over
    fresh = np.concatenate(([True], (np.diff(at_s) != STEP_S) | (over[1:] != over[:-1])))
    of = np.cumsum(fresh) - 1
    return over & (np.bincount(of)[of] >= length)


def firings(at_s: Ints, over: Flags, length: int = IN_A_ROW) -> int:
    """Return how often an alert would have begun."""
    firing = in_row(at_s, over, length)
    begins = firing & ~np.concatenate(([False], firing[:-1] & (np.diff(at_s) == STEP_S)))
    return int(begins.sum())


class Tested(NamedTuple):
    """How limits would have served."""

    fault: str | None
    """Why they would have served badly."""
    unproved: list[int]
    """Buckets without an hour in which an alert could have fired: they say nothing for or against their limit."""


def back_test(at_s: Ints, values: Floats, warn: Mapping[int, float], side: Side) -> Tested:
    """Return how these limits would have served over the samples."""
    of = buckets(at_s)
    limit = np.array([warn.get(bucket, np.nan) for bucket in range(BUCKETS)])
    times = firings(at_s, is_over(values, limit[of], side))
    fault = f"would have fired {times} times in the last 7 days" if times > MOST_FIRINGS else None
    factor = INJECTED if side == "high" else 1 / INJECTED
    hours = at_s // HOUR_S
    unproved: list[int] = []
    for bucket in warn:
        own = np.flatnonzero(of == bucket)
        last = own[hours[own] == hours[own[-1]]] if len(own) else own
        # Too few samples for any alert.
        if not in_row(at_s[last], np.ones(len(last), dtype=bool)).any():
            unproved.append(bucket)
        elif not firings(at_s[last], is_over(values[last] * factor, limit[of[last]], side)):
            fault = fault or f"an hour at {factor:g} times its values would not have fired at {bucket % 24}:00 UTC"
    return Tested(fault, unproved)
