"""Merged series: what several series were over a span, taken together, from one level of rollups.

In: a connection, a level, groups of series numbers, a span. Out: Merged per group that has rows.
Promise: one query for all groups; counts and sketches are exact sums.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple

import numpy as np

from contract import sketch
from database.connect import Connection
from database.rows import Rows, merge, read

Level = Literal["rollup_1m", "rollup_1h"]
WHERE: Final = "series_id = ANY ($1::int[]) AND window_start >= $2 AND window_start < $3"


class Merged(NamedTuple):
    """The rows of a group as one."""

    windows: int
    """That have rows."""
    n: int
    """Events: increments of counters, samples of histograms."""
    sum: float
    counts: Mapping[int, int]
    """The sketch; empty for counters."""

    def quantile(self, q: float) -> float:
        """Return a quantile of the samples of a histogram; ValueError without samples."""
        return sketch.quantile(self.counts, q)


async def read_merged(
    connection: Connection, level: Level, groups: Mapping[str, Sequence[int]], from_s: float, to_s: float
) -> dict[str, Merged]:
    """Return each group that has rows of windows that begin in `[from_s, to_s)`."""
    ids = [number for of in groups.values() for number in of]
    if not ids:
        return {}
    limits = (datetime.fromtimestamp(from_s, UTC), datetime.fromtimestamp(to_s, UTC))
    rows = await read(connection, level, WHERE, ids, *limits)
    return await asyncio.to_thread(_merged, rows, groups)


def _merged(rows: Rows, groups: Mapping[str, Sequence[int]]) -> dict[str, Merged]:
    found: dict[str, Merged] = {}
    for name, ids in groups.items():
        kept = rows.take(np.isin(rows.series, np.array(ids, dtype=np.int64)))
        if not len(kept.series):
            continue
        windows = len(np.unique(kept.window_s))
        nothing = np.zeros_like(kept.series)
        one = merge(kept._replace(series=nothing, producer=nothing, window_s=nothing), 1)
        counts = sketch.decode(one.sketches.tobytes()) if one.sketch_len[0] > 0 else {}
        found[name] = Merged(windows, int(one.n[0]), float(one.sum[0]), counts)
    return found
