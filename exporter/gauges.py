"""Gauges: the newest value of each producer, merged to what is shown.

In: rows (series, producer, value, time set) and which producers are live. Out: one value per series, NaN for none.
Pure. A producer is live while it has not ended and was heard of at most `live_s` before the newest of its
shard: judged against the shard's committed progress, so that a stopped aggregator hides no gauge.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.metric import Merge
from database.sketches import Floats, Ints


class GaugeRows(NamedTuple):
    """Rows of `gauges` as columns."""

    series: Ints
    producer: Ints
    value: Floats
    set_ms: Ints

    def replace(self, touched: Ints, fresh: "GaugeRows") -> "GaugeRows":
        """Return the rows with those of `touched` series replaced by `fresh`."""
        keep = ~np.isin(self.series, touched)
        return GaugeRows(
            np.concatenate((self.series[keep], fresh.series)),
            np.concatenate((self.producer[keep], fresh.producer)),
            np.concatenate((self.value[keep], fresh.value)),
            np.concatenate((self.set_ms[keep], fresh.set_ms)),
        )

    def select(self, rows: NDArray[np.bool_]) -> "GaugeRows":
        """Return the rows of a mask."""
        return GaugeRows(self.series[rows], self.producer[rows], self.value[rows], self.set_ms[rows])


NO_ROWS = GaugeRows(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0), np.empty(0, dtype=np.int64))


class Heard(NamedTuple):
    """Producers' rows as columns: when each was last heard of (seconds)."""

    producer: Ints
    shard: Ints
    ended: NDArray[np.bool_]
    last_s: Floats


def live_producers(heard: Heard, live_s: float, now_s: float) -> Ints:
    """Return the numbers of the live producers, ascending; who was heard of after now makes nobody look silent."""
    if not len(heard.producer):
        return heard.producer
    newest = np.full(int(heard.shard.max()) + 1, -np.inf)
    np.maximum.at(newest, heard.shard, np.where(heard.last_s <= now_s, heard.last_s, -np.inf))
    live = ~heard.ended & (heard.last_s >= newest[heard.shard] - live_s)
    return np.sort(heard.producer[live])


def merge(rows: GaugeRows, series: Ints, how: Merge) -> Floats:
    """Return one value for each of `series` (ascending); NaN where there is no row."""
    out = np.full(len(series), np.nan)
    rows = rows.select(np.isin(rows.series, series))
    if not len(rows.series):
        return out
    order = np.lexsort((rows.producer, rows.set_ms, rows.series))
    at, value = rows.series[order], rows.value[order]
    starts = np.flatnonzero(np.concatenate(([True], at[1:] != at[:-1])))
    slots = np.searchsorted(series, at[starts])
    ends = np.append(starts[1:], len(at))
    out[slots] = _reduce(value, starts, ends, how)
    return out


def _reduce(value: Floats, starts: Ints, ends: Ints, how: Merge) -> Floats:
    match how:
        case Merge.SUM:
            return np.add.reduceat(value, starts)
        case Merge.MEAN:
            return np.add.reduceat(value, starts) / (ends - starts)
        case Merge.MIN:
            return np.minimum.reduceat(value, starts)
        case Merge.MAX:
            return np.maximum.reduceat(value, starts)
        case Merge.LAST | Merge.ALL:
            return value[ends - 1]
