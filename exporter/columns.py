"""Columns: what a refresh reads of the database, as numpy arrays and lists of keys.

In: rows of the exporter_* queries (binary columns made by string_agg). Out: typed columns.
Promise: no Python object per row but the key of a new series.
"""

import json
from collections.abc import Sequence
from math import inf
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from contract.metric import Kind, Merge
from database.columns import float8s, int4s, int8s
from database.sketches import Floats, Ints
from exporter.family import Metric
from exporter.gauges import GaugeRows, Heard

EPOCH_2000_S: Final = 946_684_800
_HEAD_BYTES: Final = 16
"""Of a row of totals: series and shard, sum."""


class Row(Protocol):
    """One row by column names, as asyncpg and a dict give it."""

    def __getitem__(self, key: str, /) -> Any:
        """Return a column."""


class Layout(NamedTuple):
    """Bucket bounds a histogram was declared with, without +Inf."""

    metric_id: int
    bounds: tuple[float, ...]
    retired: bool


class NewSeries(NamedTuple):
    """Series of one metric, ascending by id."""

    metric_id: int
    ids: Ints
    keys: list[str]
    active_s: Floats


class Totals(NamedTuple):
    """Totals of one layout, one row per series and shard."""

    layout_id: int
    ids: Ints
    shards: Ints
    ns: Ints
    """Zeros where a layout has no buckets because it is none."""
    sums: Floats
    le: Ints
    """Counts per bucket, not cumulative, +Inf last; a matrix of width 0 without buckets."""


def seconds(data: bytes | None) -> Floats:
    """Read `string_agg(timestamptz_send(x), '')` as Unix seconds."""
    return int8s(data) / 1e6 + EPOCH_2000_S


def read_series(row: Row) -> NewSeries:
    """Read one row of exporter_series."""
    ids = int4s(row["ids"])
    order = np.argsort(ids)
    keys = row["keys"].split("\n")
    return NewSeries(row["metric_id"], ids[order], [keys[i] for i in order.tolist()], seconds(row["active"])[order])


def read_totals(row: Row) -> Totals:
    """Read one row of exporter_totals."""
    data, size = row["rows"], row["size"]
    width = len(data) // size - _HEAD_BYTES
    fields: list[Any] = [("key", ">i8"), ("sum", ">f8")]
    buckets = 0
    if width == 8:
        fields.append(("n", ">i8"))
    elif width:
        # `array_send` of a one-dimensional bigint[]: a head of 20 bytes, 12 an element.
        buckets = (width - 20) // 12
        fields += [("head", "V20"), ("le", [("length", ">i4"), ("value", ">i8")], (buckets,))]
    if len(data) != np.dtype(fields).itemsize * size:
        raise ValueError("BUG: rows of one layout have bucket arrays of different lengths")
    rows = np.frombuffer(data, dtype=fields)
    key = rows["key"].astype(np.int64)
    le = rows["le"]["value"].astype(np.int64) if buckets else np.empty((size, 0), dtype=np.int64)
    ns = rows["n"].astype(np.int64) if width == 8 else le.sum(axis=1)
    return Totals(row["layout_id"], key >> 16, key & 0xFFFF, ns, rows["sum"].astype(np.float64), le)


def read_ids(data: bytes) -> Ints:
    """Read `array_send` of an int[]."""
    element = np.dtype([("length", ">i4"), ("value", ">i4")])
    return np.frombuffer(data[20:], dtype=element)["value"].astype(np.int64)


def read_gauges(row: Row) -> GaugeRows:
    """Read the row of exporter_gauges."""
    return GaugeRows(int4s(row["series"]), int4s(row["producers"]), float8s(row["values"]), int8s(row["set_ms"]))


def read_heard(row: Row) -> Heard:
    """Read the row of exporter_heard."""
    return Heard(
        int4s(row["producers"]), int4s(row["shards"]), int4s(row["ended"]).astype(np.bool_), seconds(row["last_seen"])
    )


def read_metrics(rows: Sequence[Row]) -> tuple[list[Metric], dict[int, Layout]]:
    """Read exporter_metrics: metrics with the bounds to serve, and all layouts by number."""
    metrics: list[Metric] = []
    layouts: dict[int, Layout] = {}
    for row in rows:
        mine = {
            int(number): Layout(row["metric_id"], tuple(map(float, bounds)), bool(retired))
            for number, retired, bounds in json.loads(row["layouts"])
        }
        layouts |= mine
        metrics.append(
            Metric(
                row["metric_id"],
                row["name"],
                Kind(row["kind"]),
                row["help"],
                row["unit"],
                Merge(row["merge"]),
                row["live"],
                common_bounds(list(mine.values())),
            )
        )
    return metrics, layouts


def common_bounds(layouts: Sequence[Layout]) -> tuple[float, ...]:
    """Return the bounds that all layouts still in use have; of all layouts when none is."""
    used = [layout for layout in layouts if not layout.retired] or list(layouts)
    if not used:
        return ()
    common = set(used[0].bounds).intersection(*(layout.bounds for layout in used[1:]))
    return tuple(sorted(common))


def cumulative(totals: Totals, own: Sequence[float], served: Sequence[float]) -> Ints:
    """Return counts at the served bounds and +Inf.

    A retired layout that lacks a served bound counts there what it has at its next lower bound: it does not
    change any more, so that the served counter cannot fall.
    """
    if not totals.le.shape[1]:
        return np.repeat(totals.ns[:, None], len(served) + 1, axis=1)
    sums = np.zeros((len(totals.ids), len(own) + 2), dtype=np.int64)
    np.cumsum(totals.le, axis=1, out=sums[:, 1:])
    # Column i + 1 is what lies at or below own[i]; column 0 is nothing.
    columns = np.searchsorted(np.array([*own, inf]), np.array([*served, inf]), side="right")
    return sums[:, columns]
