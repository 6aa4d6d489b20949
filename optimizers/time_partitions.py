"""Tables partitioned by time, as their bounds in the catalogue say.

In: a look. Out: per table its partitions in order of time.
Promise: nothing is inferred from a name; a bound that is open is infinite.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import inf
from typing import Any, Final, NamedTuple

from database.queries import load
from optimizers.check import Look

DAY_S: Final = 86_400


class Slice(NamedTuple):
    """One partition: half-open in time."""

    name: str
    start_s: float
    end_s: float
    live_rows: float
    size_bytes: float


class TimeTable(NamedTuple):
    """A partitioned table."""

    name: str
    key: str
    slices: list[Slice]
    """Without the default partition; oldest first."""
    has_default: bool

    def ahead(self, now_s: float) -> list[Slice]:
        """Return the partitions that follow, without a gap, on the one that holds `now_s`."""
        covered_s, following = now_s, list[Slice]()
        for each in sorted(self.slices, key=lambda one: one.start_s):
            if each.start_s <= covered_s < each.end_s:
                covered_s = each.end_s
                if each.start_s > now_s:
                    following.append(each)
        return following

    def holds(self, now_s: float) -> bool:
        """Whether rows of this moment have a partition of their own."""
        return any(each.start_s <= now_s < each.end_s for each in self.slices)


async def time_tables(look: Look) -> list[TimeTable]:
    """Return all tables partitioned by a range of time."""
    found: dict[str, TimeTable] = {}
    for row in await look.connection.fetch(load("check_p1_time_partitions")):
        table = found.setdefault(row["parent"], TimeTable(row["parent"], row["key"], [], has_default=False))
        if row["is_default"]:
            found[table.name] = table._replace(has_default=True)
        else:
            table.slices.append(_slice(row))
    return list(found.values())


def _slice(row: Any) -> Slice:
    start_s = -inf if row["start_s"] is None else row["start_s"]
    end_s = inf if row["end_s"] is None else row["end_s"]
    return Slice(row["name"], start_s, end_s, max(row["live_rows"], 0), row["size_bytes"])


def following(last: Slice, count: int) -> list[tuple[datetime, datetime]]:
    """Return the bounds of the partitions after `last`, as wide as it is; whole months stay whole months."""
    start, end = (datetime.fromtimestamp(each, UTC) for each in (last.start_s, last.end_s))
    months = (end.year - start.year) * 12 + end.month - start.month
    are_months = months > 0 and all(each == each.replace(day=1, hour=0, minute=0, second=0) for each in (start, end))
    bounds = [
        _months_after(end, months * number) if are_months else end + number * (end - start)
        for number in range(count + 1)
    ]
    return list(pairwise(bounds))


def _months_after(at: datetime, months: int) -> datetime:
    years, month = divmod(at.month - 1 + months, 12)
    return at.replace(year=at.year + years, month=month + 1)


def as_text(moment: datetime) -> str:
    """Return a moment as a bound is written."""
    return f"{moment:%Y-%m-%d %H:%M:%S}+00"


def names(slices: Iterable[Slice]) -> list[str]:
    """Return the names."""
    return [each.name for each in slices]


def width(seconds: float) -> timedelta:
    """Return the nearest width that people use: hours, days, weeks, months, years."""
    usual = (3600, 6 * 3600, DAY_S, 7 * DAY_S, 30 * DAY_S, 90 * DAY_S, 365 * DAY_S)
    return timedelta(seconds=max((each for each in usual if each <= seconds), default=usual[0]))
