"""What a benchmark returns: rows of medians with their spread, a goal where there is one, ratios to the peers.

In: values of several rounds. Out: rows, and their text for a terminal and for docs/benchmarks.md.
Promise: a goal that was missed says so; a spread is the least and the greatest of the rounds, never an estimate.
"""

import statistics
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

OURS: Final = "streamgauge"


@dataclass(frozen=True)
class Goal:
    """A bound that a median should keep: `at_most` or at least `bound`."""

    bound: float
    at_most: bool

    def is_reached(self, value: float) -> bool:
        """Whether `value` keeps the bound."""
        return value <= self.bound if self.at_most else value >= self.bound


@dataclass
class Row:
    """One measured quantity of one subject, in `unit`, as each round gave it."""

    work: str
    subject: str
    unit: str
    values: list[float]
    goal: Goal | None = None
    note: str = ""

    @property
    def median(self) -> float:
        """Median of the rounds."""
        return statistics.median(self.values)

    def is_reached(self) -> bool | None:
        """Whether the goal is kept; None without one."""
        return None if self.goal is None else self.goal.is_reached(self.median)


@dataclass(frozen=True)
class Curve:
    """How a quantity grows: `xs` and `ys` of one line of a picture."""

    label: str
    xs: list[float]
    ys: list[float]


@dataclass
class Section:
    """What one benchmark found. `less_is_better` tells how to read a ratio.

    `curves` maps the name of an x axis to the lines over it; a section that has some is drawn as lines.
    """

    name: str
    title: str
    less_is_better: bool
    rows: list[Row] = field(default_factory=list[Row])
    notes: list[str] = field(default_factory=list[str])
    curves: dict[str, list[Curve]] = field(default_factory=dict[str, list[Curve]])

    def add(
        self,
        work: str,
        subject: str,
        unit: str,
        values: Sequence[float],
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        note: str = "",
    ) -> Row:
        """Append a row, with a goal if one is given."""
        bound = at_most if at_most is not None else at_least
        goal = Goal(bound, at_most is not None) if bound is not None else None
        row = Row(work, subject, unit, list(values), goal, note)
        self.rows.append(row)
        return row

    def ratio(self, row: Row) -> float | None:
        """Return how many times better we are than the peer in `row`, by medians; None for our own rows."""
        ours = self._ours(row)
        return None if ours is None else self._better(row.median, ours.median)

    def ratio_spread(self, row: Row) -> tuple[float, float] | None:
        """Return the least and greatest ratio of the rounds, each of neighbours in time; None without several."""
        ours = self._ours(row)
        if ours is None or len(ours.values) != len(row.values) or len(row.values) < 2:
            return None
        ratios = [self._better(theirs, mine) for theirs, mine in zip(row.values, ours.values, strict=True)]
        return min(ratios), max(ratios)

    def _ours(self, row: Row) -> Row | None:
        """Return our row of the same work and unit, unless this is it or there is nothing to divide by."""
        if row.subject == OURS or not all(row.values):
            return None
        mine = (r for r in self.rows if r.work == row.work and r.subject == OURS and r.unit == row.unit)
        ours = next(mine, None)
        return ours if ours is not None and all(ours.values) else None

    def _better(self, theirs: float, ours: float) -> float:
        return theirs / ours if self.less_is_better else ours / theirs


def figure(value: float) -> str:
    """Return a number with three significant digits and a thousands separator."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def spread(row: Row) -> str:
    """Return `median (least - greatest)`."""
    if len(row.values) == 1:
        return figure(row.median)
    return f"{figure(row.median)} ({figure(min(row.values))} - {figure(max(row.values))})"


def verdict(row: Row) -> str:
    """Return the goal and whether it was reached; empty without one."""
    if row.goal is None:
        return ""
    sign = "≤" if row.goal.at_most else "≥"
    return f"{sign} {figure(row.goal.bound)}: {'reached' if row.is_reached() else 'MISSED'}"


def advantage(section: Section, row: Row) -> str:
    """Return how many times better we are than the peer in `row`, with the spread of the rounds; else empty."""
    ratio, span = section.ratio(row), section.ratio_spread(row)
    if ratio is None:
        return ""
    around = f" ({figure(span[0])} - {figure(span[1])})" if span else ""
    return f"{figure(ratio)} x{around} {'cheaper' if section.less_is_better else 'faster'}"


def table(section: Section) -> list[str]:
    """Return the rows as a Markdown table."""
    lines = [
        "| work | subject | median (least - greatest) | unit | goal | streamgauge is |",
        "|---|---|---|---|---|---|",
    ]
    for row in section.rows:
        note = f" ({row.note})" if row.note else ""
        cells = (row.work, row.subject + note, spread(row), row.unit, verdict(row), advantage(section, row))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


@contextmanager
def timed(into: list[float], clock: Callable[[], float] = time.perf_counter) -> Generator[None]:
    """Append the seconds that the block took."""
    began = clock()
    yield
    into.append(clock() - began)
