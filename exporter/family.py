"""Family: the series of one metric as columns, and their lines in blocks of which only changed ones are written anew.

In: values by slot. Out: blocks of exposition bytes. Pure: no I/O, no clock.
Promise: a block that did not change is the same bytes object as before.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.metric import Kind, Merge
from database.sketches import distinct
from exporter.exposition import header, histogram_template, printable, sample_template

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

BLOCK_LINES: Final = 512
"""A block has about so many lines, of whole series. All are written when one changes: 0.07 us each."""


class Metric(NamedTuple):
    """A row of `metrics` with the bucket bounds that are served."""

    metric_id: int
    name: str
    kind: Kind
    help: str
    unit: str
    merge: Merge
    live: bool
    bounds: tuple[float, ...] = ()


class Family:
    """One metric. A slot is a series' place in it; for gauges merged `all`, a series' and producer's."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.headers = tuple(
            header(metric.name, metric.kind, metric.help, metric.unit, openmetrics=om) for om in (False, True)
        )
        self.width = len(metric.bounds) + 1
        self.keys: list[str] = []
        self.values: Floats = np.empty(0)
        """Counter: total; gauge: merged value, NaN for none; histogram: sum."""
        self.counts: Ints = np.empty((0, self.width), dtype=np.int64)
        """Histogram: cumulative counts at the bounds, +Inf last."""
        self.has_value: Bools = np.empty(0, dtype=np.bool_)
        self.active_s: Floats = np.empty(0)
        self._shown: Bools = np.empty(0, dtype=np.bool_)
        self._stale: Bools = np.empty(0, dtype=np.bool_)
        self._series_a_block = max(1, BLOCK_LINES // (self.width + 2)) if metric.kind is Kind.HISTOGRAM else BLOCK_LINES
        self._text = _Blocks()
        self._openmetrics = _Blocks()
        """Used where the lines are not those of the text format."""

    @property
    def _sum_is_odd(self) -> bool:
        """OpenMetrics has no `_sum` where negative observations are expected: no counter. So no count."""
        return bool(self.metric.bounds) and self.metric.bounds[0] < 0

    def add(self, keys: Sequence[str], active_s: Floats) -> Ints:
        """Append series without a value yet; returns their slots."""
        first, more = len(self.keys), len(keys)
        self.keys.extend(keys)
        if self.metric.kind is Kind.HISTOGRAM:
            self.counts = np.concatenate((self.counts, np.zeros((more, self.width), dtype=np.int64)))
        for blocks in (self._text, self._openmetrics):
            blocks.extend(-(-len(self.keys) // self._series_a_block))
        none = np.zeros(more, dtype=np.bool_)
        self.values = np.concatenate((self.values, np.zeros(more)))
        self.has_value = np.concatenate((self.has_value, none))
        self._shown = np.concatenate((self._shown, none))
        self._stale = np.concatenate((self._stale, none))
        self.active_s = np.concatenate((self.active_s, active_s))
        return np.arange(first, first + more)

    def set_values(self, slots: Ints, values: Floats, counts: Ints | None = None) -> None:
        """Store values (NaN: none) and, for histograms, cumulative counts; slots are unique."""
        changed = ~self.has_value[slots] | (self.values[slots] != values)
        if counts is not None:
            changed |= (self.counts[slots] != counts).any(axis=1)
            self.counts[slots] = counts
        self.values[slots] = values
        self.has_value[slots] = ~np.isnan(values)
        self._stale[slots[changed]] = True

    def show_since(self, oldest_s: float) -> None:
        """Show exactly the series that have a value and data since `oldest_s`."""
        shown = self.has_value & (self.active_s >= oldest_s)
        changed = np.flatnonzero(shown != self._shown)
        self._stale[changed] = True
        self._shown = shown
        for block in distinct(changed // self._series_a_block).tolist():
            self._text.templates[block] = self._openmetrics.templates[block] = b""

    def shown(self) -> int:
        """Return how many series are in the exposition."""
        return int(self._shown.sum())

    def pieces(self, *, openmetrics: bool) -> list[bytes]:
        """Return header and blocks; nothing when no series is shown."""
        if not self._shown.any():
            return []
        self._render()
        blocks = self._openmetrics if openmetrics and self._sum_is_odd else self._text
        return [self.headers[openmetrics], *blocks.written]

    def _render(self) -> None:
        stale = np.flatnonzero(self._stale)
        self._stale[stale] = False
        for block in distinct(stale // self._series_a_block).tolist():
            first = block * self._series_a_block
            slots = first + np.flatnonzero(self._shown[first : first + self._series_a_block])
            self._write(self._text, block, slots, with_sum=True)
            if self._sum_is_odd:
                self._write(self._openmetrics, block, slots, with_sum=False)

    def _write(self, blocks: "_Blocks", block: int, slots: Ints, *, with_sum: bool) -> None:
        template = blocks.templates[block]
        if not template and len(slots):
            at: list[int] = slots.tolist()
            template = b"".join([self._template(self.keys[slot], with_sum=with_sum) for slot in at])
            blocks.templates[block] = template
        blocks.written[block] = template % tuple(self._values_of(slots, with_sum=with_sum))

    def _template(self, key: str, *, with_sum: bool) -> bytes:
        if self.metric.kind is Kind.HISTOGRAM:
            return histogram_template(key, self.metric.bounds, with_sum=with_sum)
        return sample_template(key)

    def _values_of(self, slots: Ints, *, with_sum: bool) -> list[Any]:
        """Return what the template of these slots asks for, in its order."""
        if self.metric.kind is not Kind.HISTOGRAM:
            return printable(self.values[slots])
        counts = self.counts[slots]
        if not with_sum:
            return counts.ravel().tolist()
        values: list[Any] = np.hstack((counts, counts[:, -1:], counts[:, -1:])).ravel().tolist()
        values[self.width :: self.width + 2] = printable(self.values[slots])
        return values


class _Blocks:
    """The blocks of one format: their templates (empty: to be made), and what was last written."""

    def __init__(self) -> None:
        self.templates: list[bytes] = []
        self.written: list[bytes] = []

    def extend(self, blocks: int) -> None:
        """Make room for so many blocks; the last one that was there has more series now."""
        if self.templates:
            self.templates[-1] = b""
        more = blocks - len(self.templates)
        self.templates.extend([b""] * more)
        self.written.extend([b""] * more)
