"""What a metric is: kind, help, unit, buckets and how replicas of a gauge merge.

In: a definition from code or from the wire. Out: a checked, immutable MetricDef.
Promise: a definition that was made is valid; the error text names the field that is not.
"""

from enum import IntEnum, StrEnum
from math import inf, isfinite
from typing import Final

import msgspec

from contract.series import SeriesError, check_metric_name

MAX_HELP_BYTES: Final = 1024
MAX_BOUNDS: Final = 128

DEFAULT_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Prometheus client_python's default buckets (seconds), without +Inf."""


class Kind(IntEnum):
    """The kinds of metric; the numbers are wire values and are only ever appended."""

    COUNTER = 1
    GAUGE = 2
    HISTOGRAM = 3


class Merge(StrEnum):
    """How the values of one gauge series from several producers become one."""

    SUM = "sum"
    MIN = "min"
    MAX = "max"
    MEAN = "mean"
    LAST = "last"
    ALL = "all"
    """No merge: one sample per producer, labelled `producer`."""


class MetricDef(msgspec.Struct, array_like=True, frozen=True):
    """One metric's definition as it travels in each batch. Fields are only ever appended, with defaults."""

    name: str
    kind: Kind
    help: str = ""
    unit: str = ""
    bounds: tuple[float, ...] = ()
    """Histogram: finite upper bounds `le`, strictly ascending, without +Inf."""
    merge: Merge = Merge.LAST
    live: bool = False
    """Gauge: only producers whose heartbeat is current take part."""


def check_metric(metric: MetricDef) -> MetricDef:
    """Return `metric` if it is valid, else raise SeriesError naming the field."""
    check_metric_name(metric.name)
    try:
        size = len(metric.help.encode())
    except UnicodeEncodeError:
        raise SeriesError(f"help of {metric.name} is not valid Unicode") from None
    if size > MAX_HELP_BYTES or "\0" in metric.help:
        raise SeriesError(f"help of {metric.name} is longer than {MAX_HELP_BYTES} bytes or holds NUL")
    if metric.unit and not metric.name.removesuffix("_total").endswith("_" + metric.unit):
        raise SeriesError(f"unit {metric.unit!r} is not the suffix of the name {metric.name}")
    if metric.kind is not Kind.HISTOGRAM:
        if metric.bounds:
            raise SeriesError(f"bounds are given for {metric.name}, which is not a histogram")
        return metric
    if not 1 <= len(metric.bounds) <= MAX_BOUNDS:
        raise SeriesError(f"{metric.name} has {len(metric.bounds)} bounds; 1 to {MAX_BOUNDS} are allowed")
    low = -inf
    for bound in metric.bounds:
        if not isfinite(bound) or bound <= low:
            raise SeriesError(f"bounds of {metric.name} are not finite and strictly ascending")
        low = bound
    return metric
