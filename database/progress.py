"""Progress: how far producers came, and so which windows may lack events of theirs.

In: a connection and a time. Out: a Progress per producer; the minutes of a time that are partial.
Promise: a producer that retired says nothing any more: what is older than 7 days counts as it is.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, NamedTuple

import numpy as np

from database.connect import Connection
from database.queries import load

MINUTE_S: Final = 60
LIVE_S: Final = 15.0
"""A producer heard of in this time may still say what is missing: it beats every 5 s."""


class Missing(NamedTuple):
    """What ends after `start_s` and begins at `end_s` or before may lack events."""

    start_s: float
    end_s: float
    may_come: bool


class Progress(NamedTuple):
    """How far a producer came, in window starts."""

    producer_no: int
    service: str
    ended: bool
    watermark_s: int
    first_s: float
    last_s: float
    age_s: float
    """Since it was last heard of."""
    gaps: list[list[int]]
    """Windows before and after each, and whether it is open."""

    def missing(self) -> Iterable[Missing]:
        """Yield what is not there."""
        may_come = not self.ended and self.age_s <= LIVE_S
        for before_s, after_s, is_open in self.gaps:
            yield Missing(before_s, after_s, may_come and bool(is_open))
        if not self.ended:
            yield Missing(max(float(self.watermark_s), self.first_s), self.last_s, may_come)

    def misses(self, start_s: int, end_s: int) -> bool:
        """Whether events of this producer in `[start_s, end_s)` may be missing."""
        return any(one.start_s < end_s and one.end_s >= start_s for one in self.missing())


class Partial(NamedTuple):
    """Minutes of a time that are not complete."""

    minutes: int
    of: int
    who: list[str]
    """`service/number` of producers that have still something to say, or never will."""
    may_come: bool
    """Whether waiting may complete one."""


async def read_progress(connection: Connection, from_s: int, to_s: int) -> list[Progress]:
    """Return the producers that were heard of since `from_s` and began before `to_s`."""
    limits = (datetime.fromtimestamp(at_s, UTC) for at_s in (from_s, to_s))
    return [
        Progress(
            r["producer_no"], r["service"], r["fin"], r["watermark_s"], r["first_s"], r["last_s"], r["age_s"], r["gaps"]
        )
        for r in await connection.fetch(load("producer_progress"), *limits)
    ]


def partial_minutes(progress: Iterable[Progress], from_s: int, to_s: int) -> Partial:
    """Return which minutes that begin in `[from_s, to_s)` may lack events."""
    count = max(to_s - from_s, 0) // MINUTE_S
    lacking = np.zeros(count, dtype=bool)
    who: dict[str, None] = {}
    may_come = False
    for producer in progress:
        for one in producer.missing():
            first = max(int((one.start_s - from_s) // MINUTE_S), 0)
            end = min(int((one.end_s - from_s) // MINUTE_S) + 1, count)
            if first < end:
                lacking[first:end] = True
                who[f"{producer.service}/{producer.producer_no}"] = None
                may_come |= one.may_come
    return Partial(int(lacking.sum()), count, list(who), may_come)
