"""Threshold samples: what a calibrated metric was, from rollups: a quantile, a rate or a ratio per window and route.

In: a Source and a time range. Out: Samples per route ('' where the source is not divided).
Promise: a window without enough events has no sample: a gap is not a value.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import numpy as np

from contract import sketch
from contract.metric import Kind
from contract.series import parse_key
from database.connect import Connection
from database.queries import load
from database.rows import Rows, join, merge, read
from database.sketches import Floats, Ints

STEP_S: Final = 300
CHUNK_S: Final = 86_400
WHERE: Final = "series_id = ANY ($1::int[]) AND window_start >= $2 AND window_start < $3"


class Source(NamedTuple):
    """How a sample is read."""

    value: str
    """quantile, rate, ratio."""
    numerator: str
    """Selector: a metric and the labels its series must have."""
    denominator: str = ""
    by_route: bool = False
    quantile: float = 0.95
    min_events: int = 1


class Samples(NamedTuple):
    """Starts of windows (Unix seconds, rising) and values."""

    at_s: Ints
    values: Floats


class _Member(NamedTuple):
    route: str
    is_counter: bool
    is_numerator: bool
    is_denominator: bool


def _takes(selector: str, name: str, labels: Mapping[str, str]) -> bool:
    wanted, having = parse_key(selector.encode())
    return name == wanted and all(labels.get(label) == value for label, value in having.items())


async def _members(connection: Connection, source: Source) -> dict[int, _Member]:
    """Return the series of a source by number."""
    names = [parse_key(text.encode())[0] for text in (source.numerator, source.denominator) if text]
    found: dict[int, _Member] = {}
    for row in await connection.fetch(load("exporter_metric_series"), names):
        name, labels = parse_key(row["key"].encode())
        above = _takes(source.numerator, name, labels)
        below = bool(source.denominator) and _takes(source.denominator, name, labels)
        if (above or below) and (not source.by_route or "route" in labels):
            route = labels["route"] if source.by_route else ""
            found[row["series_id"]] = _Member(route, row["kind"] == Kind.COUNTER, above, below)
    return found


async def read_history(connection: Connection, source: Source, from_s: int, to_s: int) -> dict[str, Samples]:
    """Return the 5-minute samples that begin in `[from_s, to_s)`, from the minutes that are rolled up."""
    members = await _members(connection, source)
    pieces: dict[str, list[Samples]] = {}
    for low in range(from_s, to_s if members else from_s, CHUNK_S):
        rows = await _rows(connection, "rollup_1m", members, low, min(low + CHUNK_S, to_s))
        found = await asyncio.to_thread(_sample, rows, members, source, STEP_S)
        for route, samples in found.items():
            pieces.setdefault(route, []).append(samples)
    return {
        route: Samples(np.concatenate([p.at_s for p in of]), np.concatenate([p.values for p in of]))
        for route, of in pieces.items()
    }


async def read_now(connection: Connection, source: Source, now_s: float) -> dict[str, float]:
    """Return the value of each route over the newest 5 minutes that have ended; a rate of nothing is 0 if all is well.

    In a transaction of REPEATABLE READ that began with `lock_parts`.
    """
    members = await _members(connection, source)
    if not members:
        return {}
    end_s = int(now_s - 10) // 10 * 10
    span = (end_s - STEP_S, end_s)
    rows = join(await _rows(connection, "rollup_10s", members, *span), await _rows(connection, "parts", members, *span))
    # Shifted so that the span is one window.
    rows = rows._replace(window_s=np.zeros(len(rows.window_s), dtype=np.int64))
    found = {route: float(of.values[0]) for route, of in _sample(rows, members, source, STEP_S).items()}
    if source.value == "rate" and await connection.fetchval(load("threshold_has_commits")):
        for member in members.values():
            found.setdefault(member.route, 0.0)
    return found


async def _rows(connection: Connection, table: str, series: Mapping[int, _Member], low_s: int, high_s: int) -> Rows:
    limits = (datetime.fromtimestamp(low_s, UTC), datetime.fromtimestamp(high_s, UTC))
    if table == "parts":
        # Parts arrive at most a minute before their window.
        condition = WHERE + " AND arrived >= $2::timestamptz - interval '2 minutes'"
        return await read(connection, table, condition, list(series), *limits)
    return await read(connection, table, WHERE, list(series), *limits)


def _sample(rows: Rows, members: Mapping[int, _Member], source: Source, width_s: int) -> dict[str, Samples]:
    """Merge the rows of each route, and return its samples."""
    routes = sorted({member.route for member in members.values()})
    found: dict[str, Samples] = {}
    for route in routes:
        above = _merged(rows, [i for i, m in members.items() if m.route == route and m.is_numerator], width_s)
        if source.value == "quantile":
            samples = _quantiles(above, source)
        elif source.value == "rate":
            kept = above.take(_events(above, members) >= source.min_events)
            samples = Samples(kept.window_s, _events(kept, members) / width_s)
        else:
            below = _merged(rows, [i for i, m in members.items() if m.route == route and m.is_denominator], width_s)
            samples = _ratios(above, below, members, source)
        if len(samples.at_s):
            found[route] = samples
    return found


def _merged(rows: Rows, ids: Sequence[int], width_s: int) -> Rows:
    """Merge rows of these series to one per window; the series number that is left is the first of them."""
    kept = rows.take(np.isin(rows.series, np.array(ids, dtype=np.int64)))
    first = np.full(len(kept.series), min(ids, default=0), dtype=np.int64)
    return merge(kept._replace(series=first, producer=np.zeros_like(first)), width_s)


def _events(rows: Rows, members: Mapping[int, _Member]) -> Floats:
    """Return what a counter added, or how many samples a histogram took."""
    if not len(rows.series):
        return np.empty(0)
    return rows.sum if members[int(rows.series[0])].is_counter else rows.n.astype(np.float64)


def _quantiles(rows: Rows, source: Source) -> Samples:
    ends = np.cumsum(np.maximum(rows.sketch_len, 0))
    enough = np.flatnonzero((rows.n >= source.min_events) & (rows.sketch_len > 0))
    values = [
        sketch.quantile(sketch.decode(rows.sketches[int(ends[i] - rows.sketch_len[i]) : int(ends[i])].tobytes()),
                        source.quantile)
        for i in enough.tolist()
    ]  # fmt: skip
    return Samples(rows.window_s[enough], np.array(values, dtype=np.float64))


def _ratios(above: Rows, below: Rows, members: Mapping[int, _Member], source: Source) -> Samples:
    whole = _events(below, members)
    share = dict(zip(above.window_s.tolist(), _events(above, members).tolist(), strict=True))
    part = np.array([share.get(at, 0.0) for at in below.window_s.tolist()])
    enough = (whole >= source.min_events) & (whole > 0)
    return Samples(below.window_s[enough], part[enough] / whole[enough])
