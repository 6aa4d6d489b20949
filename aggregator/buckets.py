"""Exact counts at the declared `le` bounds, found mostly from the sketch.

In: samples, their sketch buckets, and the counts per row and bucket. Out: counts per total and bound.
Promise: exactly the counts that comparing each sample with each bound would give. A sketch bucket without a
bound inside lies on one side of every bound, so its count is booked whole (2 ns a sample); only samples in a
bucket that holds a bound are compared one by one (searchsorted costs 16 ns a sample).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from database.sketches import Entries, Floats, Ints, buckets_of, distinct


def le_counts(
    samples: Floats,
    bucket: Ints,
    sample_row: Ints,
    entries: Entries,
    total_of_row: Ints,
    total_layout: Ints,
    total_width: Ints,
    bounds: Mapping[int, Sequence[float]],
) -> Ints:
    """Return, for each total laid end to end, its `total_width` counts (not cumulative, +Inf last)."""
    out = np.zeros(int(total_width.sum()), dtype=np.int64)
    if not len(samples):
        return out
    starts = np.cumsum(total_width) - total_width
    low, high = int(bucket.min()), int(bucket.max())
    entry_total = total_of_row[entries.row]
    entry_layout = total_layout[entry_total]
    layouts = distinct(total_layout).tolist()
    near = _near_bounds(layouts, bounds, low, high)
    close = np.flatnonzero(near[bucket - low])
    close_total = total_of_row[sample_row[close]]
    close_layout = total_layout[close_total]
    for layout in layouts:
        limits = np.array(bounds[layout])
        index_of = np.searchsorted(buckets_of(limits), np.arange(low, high + 1), side="left")
        here = np.flatnonzero((entry_layout == layout) & ~near[entries.bucket - low])
        at = starts[entry_total[here]] + index_of[entries.bucket[here] - low]
        out += np.bincount(at, weights=entries.count[here], minlength=len(out)).astype(np.int64)
        mine = np.flatnonzero(close_layout == layout)
        at = starts[close_total[mine]] + np.searchsorted(limits, samples[close[mine]], side="left")
        out += np.bincount(at, minlength=len(out))
    return out


def _near_bounds(layouts: Sequence[int], bounds: Mapping[int, Sequence[float]], low: int, high: int) -> np.ndarray:
    """Return, per bucket from `low` to `high`, whether a bound of any layout lies in it."""
    near = np.zeros(high - low + 1, dtype=bool)
    for layout in layouts:
        of = buckets_of(np.array(bounds[layout]))
        near[of[(of >= low) & (of <= high)] - low] = True
    return near
