"""Cache samples: what each class of cached keys did over a time, from the minutes that are rolled up.

In: a connection, where each class begins and where all end. Out: a CacheSample per class that had look-ups.
Promise: what was not measured is None, never 0.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract import sketch
from contract.series import parse_key
from database.connect import Connection
from database.queries import load
from database.rows import Rows, merge, read

LOOKUPS: Final = "cache_lookups_total"
FILLS: Final = "cache_fills_total"
BYTES: Final = "cache_filled_bytes_total"
RECOMPUTE: Final = "cache_recompute_seconds"
AGE: Final = "cache_age_at_hit_seconds"
LIFETIME: Final = "cache_ttl_seconds"
USED: Final = "cache_used_bytes"
LIMIT: Final = "cache_max_bytes"
TOLD_S: Final = 600
"""Caches say every minute how full their Redis is: what is older is not known any more."""
LABEL: Final = "key_class"
MINUTE_S: Final = 60
WHERE: Final = "series_id = ANY ($1::int[]) AND window_start >= $2 AND window_start < $3"
CHUNK_S: Final = 6 * 3600


class CacheSample(NamedTuple):
    """One class of keys over its time."""

    active_s: float
    """Minutes with look-ups, as seconds: what rates are per."""
    hits: float
    misses: float
    errors: float
    recompute_s: float
    """All recomputations together."""
    recomputes: int
    changed: float
    unchanged: float
    first: float
    """Fills by whether the value was another than before; `first`: there was none before."""
    filled_bytes: float
    age_p99_s: float | None
    """Age of the value at a hit; None: no hit was timed."""
    ttl_s: float | None
    """Lifetime that the caches said last; None: never."""
    used_bytes: float | None = None
    """Of the Redis that holds the class; None: its caches did not say so lately."""
    max_bytes: float | None = None
    """0: no limit."""

    @property
    def used_share(self) -> float | None:
        """Memory in use of what is allowed; None: not known, or any is."""
        return self.used_bytes / self.max_bytes if self.used_bytes is not None and self.max_bytes else None

    @property
    def lookups(self) -> float:
        """Look-ups that the cache answered, well or with nothing."""
        return self.hits + self.misses

    @property
    def hit_ratio(self) -> float:
        """Hits per look-up; NaN without one."""
        return self.hits / self.lookups if self.lookups else float("nan")

    @property
    def recompute_rate(self) -> float:
        """Seconds of recomputing per second."""
        return self.recompute_s / self.active_s if self.active_s else 0.0


class _Member(NamedTuple):
    key_class: str
    field: str
    """Metric name, with the value of its second label where it has one."""


async def read_classes(
    connection: Connection, starts_s: Mapping[str, int], default_start_s: int, end_s: int
) -> dict[str, CacheSample]:
    """Return each class with look-ups in `[its start, end_s)`; limits are Unix seconds, whole minutes."""
    members: dict[int, _Member] = {}
    for row in await connection.fetch(load("exporter_metric_series"), [LOOKUPS, FILLS, BYTES, RECOMPUTE, AGE]):
        name, labels = parse_key(row["key"].encode())
        if LABEL in labels:
            field = name + labels.get("result", "") + labels.get("changed", "")
            members[row["series_id"]] = _Member(labels[LABEL], field)
    lifetimes, used, limits_bytes = [await _told(connection, name) for name in (LIFETIME, USED, LIMIT)]
    classes = sorted({member.key_class for member in members.values()})
    found: dict[str, CacheSample] = {}
    for key_class in classes:
        start_s = starts_s.get(key_class, default_start_s)
        of = {series: member.field for series, member in members.items() if member.key_class == key_class}
        totals = _Totals(start_s)
        for low_s in range(start_s, end_s, CHUNK_S):
            limits = (datetime.fromtimestamp(at, UTC) for at in (low_s, min(low_s + CHUNK_S, end_s)))
            rows = await read(connection, "rollup_1m", WHERE, list(of), *limits)
            await asyncio.to_thread(totals.add, rows, of)
        if totals.minutes:
            ttl = lifetimes.get(key_class)
            memory = [_lately(told.get(key_class), end_s) for told in (used, limits_bytes)]
            found[key_class] = totals.sample(ttl.value if ttl and ttl.value > 0 else None)._replace(
                used_bytes=memory[0], max_bytes=memory[1]
            )
    return found


class _Told(NamedTuple):
    """A value of a gauge and when it was set, ms."""

    set_ms: int
    value: float


async def _told(connection: Connection, gauge: str) -> dict[str, _Told]:
    """Return what each class said last: a cache that started long ago said it before one that started since."""
    newest: dict[str, _Told] = {}
    for row in await connection.fetch(load("cache_gauge_said"), gauge):
        key_class = parse_key(row["key"].encode())[1].get(LABEL)
        if key_class is not None:
            newest[key_class] = max(newest.get(key_class, _Told(0, 0.0)), _Told(row["set_ms"], row["value"]))
    return newest


def _lately(told: _Told | None, now_s: float) -> float | None:
    return told.value if told is not None and told.set_ms / 1000 >= now_s - TOLD_S else None


class _Totals:
    """Adds rows of one class up, without the minute in which it began: a part of one, it would look like a slow one."""

    def __init__(self, start_s: int) -> None:
        self._start_s = start_s
        self._began_s: int | None = None
        self.minutes = 0
        self.n: dict[str, int] = {}
        self.sum: dict[str, float] = {}
        self.ages: dict[int, int] = {}

    def add(self, rows: Rows, fields: Mapping[int, str]) -> None:
        """Add rows whose series are keys of `fields`; of a later time than those before."""
        if not len(rows.series):
            return
        named = np.array([fields[series] for series in rows.series.tolist()], dtype=np.str_)
        is_lookup: NDArray[np.bool_] = np.char.startswith(named, LOOKUPS)
        if self._began_s is None and is_lookup.any():
            self._began_s = int(rows.window_s[is_lookup].min())
            if self._began_s > self._start_s:
                whole = rows.window_s > self._began_s
                rows, named, is_lookup = rows.take(whole), named[whole], is_lookup[whole]
        for field in np.unique(named).tolist():
            mine: NDArray[np.bool_] = named == field
            self.n[field] = self.n.get(field, 0) + int(rows.n[mine].sum())
            self.sum[field] = self.sum.get(field, 0.0) + float(rows.sum[mine].sum())
        self.minutes += len(np.unique(rows.window_s[is_lookup] // MINUTE_S))
        self._add_ages(rows.take(named == AGE))

    def _add_ages(self, rows: Rows) -> None:
        alike = rows._replace(
            window_s=np.zeros_like(rows.window_s),
            series=np.zeros_like(rows.series),
            producer=np.zeros_like(rows.producer),
        )
        whole = merge(alike, MINUTE_S)
        if len(whole.series) and whole.sketch_len[0] > 0:
            sketch.merge(self.ages, sketch.decode(whole.sketches.tobytes()))

    def sample(self, ttl_s: float | None) -> CacheSample:
        """Return what was added up."""

        def of(field: str) -> float:
            return self.sum.get(field, 0.0)

        return CacheSample(
            active_s=float(self.minutes * MINUTE_S),
            hits=of(LOOKUPS + "hit"),
            misses=of(LOOKUPS + "miss"),
            errors=of(LOOKUPS + "error"),
            recompute_s=of(RECOMPUTE),
            recomputes=self.n.get(RECOMPUTE, 0),
            changed=of(FILLS + "yes"),
            unchanged=of(FILLS + "no"),
            first=of(FILLS + "first"),
            filled_bytes=of(BYTES),
            age_p99_s=sketch.quantile(self.ages, 0.99) if self.ages else None,
            ttl_s=ttl_s,
        )
