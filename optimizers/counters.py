"""Counters over time: what checks keep between runs, in the monitoring database.

In: one check's counters of one target. Out: what was added since about an hour ago, hourly values, ages of objects.
Promise: statistics are compared, never reset; after somebody else's reset, a crash or a failover there is no
comparison, instead of a wrong one.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from database.connect import Connection
from database.queries import load
from optimizers.check import Interval

Values = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Counters:
    """What one check keeps of one target."""

    store: Connection
    """To the monitoring database."""
    target: str
    check_id: str
    epoch: str
    """Counters of another epoch are not comparable."""
    now: datetime
    shortest_interval_s: float

    async def since(
        self, name: str, counters: Values, epoch: str = "", *, is_complete: bool = False
    ) -> Interval | None:
        """Keep the counters; return what was added since about an hour ago, None where nobody can tell."""
        key = (self.target, self.check_id, name)
        epoch = f"{self.epoch}|{epoch}"
        found = await self.store.fetchrow(load("find_snapshot"), *key, epoch, self.now, self.shortest_interval_s)
        await self.store.execute(load("add_snapshot"), *key, self.now, epoch, _encode(counters))
        if found is None:
            return None
        before: dict[str, dict[str, float]] = json.loads(found["counters"])
        if is_complete:
            before = {new: dict.fromkeys(counters[new], 0.0) for new in counters.keys() - before.keys()} | before
        return Interval((self.now - found["at"]).total_seconds(), increases(before, counters))

    async def remember(self, name: str, values: Values) -> None:
        """Keep this hour's values for 14 days."""
        rows = list(values), [_encode(each) for each in values.values()]
        await self.store.execute(load("remember_values"), self.target, self.check_id, name, self.now, *rows)

    async def remembered(self, name: str) -> dict[str, list[tuple[datetime, Mapping[str, float]]]]:
        """Return earlier hours' values by object, oldest first."""
        found: dict[str, list[tuple[datetime, Mapping[str, float]]]] = {}
        for row in await self.store.fetch(load("remembered_values"), self.target, self.check_id, name, self.now):
            found.setdefault(row["object"], []).append((row["hour"], json.loads(row["counters"])))
        return found

    async def first_seen(self, objects: Iterable[str]) -> dict[str, datetime]:
        """Return since when each object is known; one that was not named in the run before begins anew."""
        names: Sequence[str] = sorted(set(objects))
        rows = await self.store.fetch(load("first_seen_objects"), self.target, self.check_id, self.now, names)
        return {row["object"]: row["first_seen"] for row in rows}


def increases(before: Values, after: Values) -> dict[str, dict[str, float]]:
    """Return what was added to each object's counters; one whose counter fell was reset and is left out."""
    found: dict[str, dict[str, float]] = {}
    for name, counters in after.items():
        old = before.get(name)
        if old is None:
            continue
        deltas = {key: value - old[key] for key, value in counters.items() if key in old}
        if all(delta >= 0 for delta in deltas.values()):
            found[name] = deltas
    return found


def _encode(value: Mapping[str, Any]) -> str:
    # numeric columns arrive as Decimal.
    return json.dumps(value, default=float, allow_nan=False)
