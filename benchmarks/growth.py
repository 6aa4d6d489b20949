"""Growth: processor time of draining an event as series and as producers grow, for each service.

In: a scratch stack. Out: a Section, nanoseconds an event, with curves. All points take turns in each round, on one
stack; each drains about as many events, ten samples per series and batch.
"""

from typing import Final, NamedTuple

from benchmarks.backlog import Backlog
from benchmarks.drain import Found, Shape, drain_round, require_ok_audit
from benchmarks.measure import OURS, Curve, Section
from benchmarks.scratch import Scratch

SAMPLES: Final = 10
SERIES: Final = (100, 1_000, 10_000, 100_000)
PRODUCERS: Final = (1, 8, 64)
SERIES_OF_ALL_PRODUCERS: Final = 1_000
PRODUCERS_OF_ALL_SERIES: Final = 5
PARTS: Final = ("aggregator", "PostgreSQL", "Redis")
BUDGET: Final = {"STREAMGAUGE_SERIES_BUDGET": "200000"}


class Point(NamedTuple):
    """One point of a curve: its axis, where on it, and what it measured."""

    axis: str
    at: int
    shape: Shape
    backlog: Backlog
    found: Found


def run(full: bool) -> Section:
    """Measure every point."""
    events = 10_000_000 if full else 1_000_000
    section = Section("growth", "Drain: processor time an event as series and producers grow", less_is_better=True)
    points = [_point("series", n, PRODUCERS_OF_ALL_SERIES, n, events) for n in SERIES]
    points += [_point("producers", n, n, SERIES_OF_ALL_PRODUCERS, events) for n in PRODUCERS]
    measure(points, rounds=5 if full else 3)
    for axis in ("series", "producers"):
        _add(section, axis, [point for point in points if point.axis == axis])
    section.notes.append(
        f"{SAMPLES} samples per series and batch, about {events:,} events a round and point. Series: "
        f"{PRODUCERS_OF_ALL_SERIES} producers; producers: {SERIES_OF_ALL_PRODUCERS:,} series in all, the same in each."
    )
    return section


def measure(points: list[Point], rounds: int) -> None:
    """Drain every point in turns; the first round, in which the series are new, is not counted."""
    with Scratch() as stack:
        aggregator = stack.aggregator(**BUDGET)
        for number in range(rounds + 1):
            for point in points:
                others = sum(other.backlog.events for other in points if other is not point)
                found = point.found if number else None
                batches = point.shape.batches if number else point.backlog.sweep
                drain_round(stack, aggregator, point.backlog, point.shape, batches, found, others)
        require_ok_audit(stack)


def _point(axis: str, at: int, producers: int, series: int, events: int) -> Point:
    backlog = Backlog(producers, series)
    per_batch = min(series, series * producers // backlog.sweep) * SAMPLES
    batches = -(-max(events // per_batch, 1) // backlog.sweep) * backlog.sweep
    return Point(axis, at, Shape(f"{at:,} {axis}", series, SAMPLES, batches, 0.0), backlog, Found())


def _add(section: Section, axis: str, points: list[Point]) -> None:
    curves = {part: Curve(part, [], []) for part in PARTS}
    for point in points:
        found = point.found
        spent = (found.aggregator_cpu, found.postgres_cpu, found.redis_cpu)
        for part, values in zip(PARTS, spent, strict=True):
            row = section.add(f"{point.shape.title}: {part}", OURS, "ns", [value * 1000 for value in values])
            curves[part].xs.append(float(point.at))
            curves[part].ys.append(row.median)
    section.curves[axis] = list(curves.values())
