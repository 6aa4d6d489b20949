"""Model: all series that may be shown, kept up to date from columns, and rendered to pages.

In: what one snapshot of the database says (all of it, or what changed). Out: pages of the exposition. Pure.
Promise: totals are summed over shards and layouts in one fixed order, so that two exporters serve equal
numbers and a sum of growing parts never falls by rounding.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from contract.metric import Kind, Merge
from database.sketches import Floats, Ints, distinct, number
from exporter.columns import Layout, NewSeries, Totals, cumulative
from exporter.family import Family, Metric
from exporter.gauges import NO_ROWS, GaugeRows, merge

_HAS_PRODUCER: Final = re.compile(r'[{,]producer="')


class Outdated(Exception):
    """Something is known under another shape than before: everything must be loaded anew."""


class Model:
    """Families by metric, and for each series number its family and slot."""

    def __init__(
        self, metrics: Sequence[Metric], layouts: dict[int, Layout], taken: frozenset[str] = frozenset()
    ) -> None:
        self.layouts = layouts
        self.families = {metric.metric_id: Family(metric) for metric in metrics}
        self.hidden = clashing(metrics, taken)
        """Metrics left out: one name twice would make the whole exposition invalid."""
        self._taken = taken
        self._family_of: Ints = np.full(0, -1, dtype=np.int64)
        self._slot_of: Ints = np.empty(0, dtype=np.int64)
        self._gauges: GaugeRows = NO_ROWS
        self._all_ids: dict[int, dict[int, tuple[str, float]]] = {}
        """Per metric merged `all`: series id -> its key and when it was last active."""
        self._all_pairs: dict[int, list[tuple[int, int]]] = {}

    # Identities

    def is_known(self, ids: Ints) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Tell for each series number whether it was added."""
        known = np.zeros(len(ids), dtype=np.bool_)
        inside = ids < len(self._family_of)
        known[inside] = self._family_of[ids[inside]] >= 0
        return known

    def update_metrics(self, metrics: Iterable[Metric], layouts: dict[int, Layout]) -> None:
        """Take new metrics in; Outdated when a known one changed."""
        for metric in metrics:
            family = self.families.get(metric.metric_id)
            if family is None:
                self.families[metric.metric_id] = Family(metric)
            elif family.metric != metric:
                raise Outdated(metric.name)
        self.layouts = layouts
        self.hidden = clashing([family.metric for family in self.families.values()], self._taken)

    def add_series(self, fresh: NewSeries) -> None:
        """Take series of one metric in."""
        family = self.families.get(fresh.metric_id)
        if family is None:
            raise Outdated(f"metric {fresh.metric_id}")
        top = int(fresh.ids.max(initial=-1)) + 1
        if top > len(self._family_of):
            more = top + 1024 - len(self._family_of)
            self._family_of = np.concatenate((self._family_of, np.full(more, -1, dtype=np.int64)))
            self._slot_of = np.concatenate((self._slot_of, np.zeros(more, dtype=np.int64)))
        self._family_of[fresh.ids] = fresh.metric_id
        if family.metric.kind is Kind.GAUGE and family.metric.merge is Merge.ALL:
            mine = self._all_ids.setdefault(fresh.metric_id, {})
            mine.update(zip(fresh.ids.tolist(), zip(fresh.keys, fresh.active_s.tolist(), strict=True), strict=True))
            return
        self._slot_of[fresh.ids] = family.add(fresh.keys, fresh.active_s)

    def split_gauges(self, ids: Ints) -> tuple[Ints, Ints]:
        """Return the known ones of `ids` that are gauges, and those that are not."""
        ids = ids[self.is_known(ids)]
        gauges = [metric_id for metric_id, family in self.families.items() if family.metric.kind is Kind.GAUGE]
        is_gauge = np.isin(self._family_of[ids], gauges)
        return ids[is_gauge], ids[~is_gauge]

    def size(self) -> int:
        """Return how many series are known."""
        return int((self._family_of >= 0).sum())

    def touch(self, ids: Ints, now_s: float) -> None:
        """Note that these series got data now."""
        for metric_id, mine in self._by_family(ids):
            pairs = self._all_ids.get(metric_id)
            if pairs is None:
                self.families[metric_id].active_s[self._slot_of[mine]] = now_s
            else:
                pairs.update((i, (pairs[i][0], now_s)) for i in mine.tolist())

    def _by_family(self, ids: Ints) -> list[tuple[int, Ints]]:
        ids = ids[self.is_known(ids)]
        of = self._family_of[ids]
        order = np.argsort(of, kind="stable")
        cuts = np.flatnonzero(np.diff(of[order])) + 1
        return [(int(self._family_of[part[0]]), part) for part in np.split(ids[order], cuts) if len(part)]

    # Totals

    def apply_totals(self, groups: Sequence[Totals]) -> None:
        """Store totals; `groups` hold every layout and shard of the series in them."""
        histograms: dict[int, list[tuple[Totals, Ints]]] = {}
        plain: list[Totals] = []
        for group in groups:
            layout = self.layouts.get(group.layout_id)
            if layout is None:
                if group.layout_id:
                    raise Outdated(f"layout {group.layout_id}")
                plain.append(group)
                continue
            family = self.families[layout.metric_id]
            counts = cumulative(group, layout.bounds, family.metric.bounds)
            histograms.setdefault(layout.metric_id, []).append((group, counts))
        for group in plain:
            self._apply_counters(group)
        for metric_id, parts in histograms.items():
            self._apply_histograms(self.families[metric_id], parts)

    def _apply_counters(self, group: Totals) -> None:
        ids, at = number(group.ids)
        totals = _ordered_sums(at, group.sums, (group.shards,), len(ids))
        known = self.is_known(ids)
        ids, totals = ids[known], totals[known]
        of = self._family_of[ids]
        order = np.argsort(of, kind="stable")
        cuts = np.flatnonzero(np.diff(of[order])) + 1
        for rows in np.split(order, cuts):
            if len(rows):
                family = self.families[int(of[rows[0]])]
                if family.metric.kind is Kind.COUNTER:
                    family.set_values(self._slot_of[ids[rows]], totals[rows])

    def _apply_histograms(self, family: Family, parts: list[tuple[Totals, Ints]]) -> None:
        series = np.concatenate([group.ids for group, _ in parts])
        shards = np.concatenate([group.shards for group, _ in parts])
        layouts = np.concatenate([np.full(len(group.ids), group.layout_id) for group, _ in parts])
        ids, at = number(series)
        counts = np.zeros((len(ids), family.width), dtype=np.int64)
        np.add.at(counts, at, np.concatenate([rows for _, rows in parts]))
        sums = _ordered_sums(at, np.concatenate([group.sums for group, _ in parts]), (shards, layouts), len(ids))
        known = self.is_known(ids)
        family.set_values(self._slot_of[ids[known]], sums[known], counts[known])

    # Gauges

    def replace_gauges(self, touched: Ints | None, fresh: GaugeRows) -> None:
        """Store the newest values of touched gauges; all of them when `touched` is None."""
        self._gauges = fresh if touched is None else self._gauges.replace(touched, fresh)

    def merge_gauges(self, live: Ints) -> None:
        """Merge the producers of each gauge again: who is live may have changed without a commit."""
        if not len(self._gauges.series):
            return
        of = np.full(len(self._gauges.series), -1, dtype=np.int64)
        known = self.is_known(self._gauges.series)
        of[known] = self._family_of[self._gauges.series[known]]
        is_live = np.isin(self._gauges.producer, live)
        for metric_id in distinct(of[known]).tolist():
            metric = self.families[metric_id].metric
            everyone = self._gauges.select(of == metric_id)
            rows = everyone.select(is_live[of == metric_id]) if metric.live else everyone
            if metric.merge is Merge.ALL:
                self._set_all(metric_id, rows)
                continue
            ids = distinct(everyone.series)
            self.families[metric_id].set_values(self._slot_of[ids], merge(rows, ids, metric.merge))

    def _set_all(self, metric_id: int, rows: GaugeRows) -> None:
        """One slot per series and producer; made anew when the pairs change."""
        order = np.lexsort((rows.producer, rows.series))
        pairs = list(zip(rows.series[order].tolist(), rows.producer[order].tolist(), strict=True))
        mine = self._all_ids[metric_id]
        active_s = np.array([mine[series][1] for series, _ in pairs], dtype=np.float64)
        if pairs != self._all_pairs.get(metric_id):
            self._all_pairs[metric_id] = pairs
            family = self.families[metric_id] = Family(self.families[metric_id].metric)
            family.add([with_producer(mine[series][0], producer) for series, producer in pairs], active_s)
        family = self.families[metric_id]
        family.active_s = active_s
        family.set_values(np.arange(len(pairs)), rows.value[order])

    # Exposition

    def show_since(self, oldest_s: float) -> None:
        """Leave out the series without data since then."""
        for family in self.families.values():
            family.show_since(oldest_s)

    def pieces(self, *, openmetrics: bool) -> Iterable[bytes]:
        """Return headers and blocks of all families, ordered by name; none whose names an older metric has."""
        hidden = self.hidden
        for family in sorted(self.families.values(), key=lambda f: f.metric.name):
            if family.metric.metric_id not in hidden:
                yield from family.pieces(openmetrics=openmetrics)

    def shown(self) -> int:
        """Return how many series are in the exposition."""
        return sum(family.shown() for family in self.families.values())


def _ordered_sums(at: Ints, values: Floats, order_by: Sequence[Ints], size: int) -> Floats:
    """Sum values by `at`, each one's terms in the order of `order_by`: bincount adds in the order of its input."""
    if len(at) > size:
        order = np.lexsort(tuple(reversed(order_by)))
        at, values = at[order], values[order]
    return np.bincount(at, weights=values, minlength=size).astype(np.float64, copy=False)


def clashing(metrics: Sequence[Metric], taken: frozenset[str]) -> frozenset[int]:
    """Return the metrics of which a family or sample name is `taken` or an older metric's."""
    claimed: set[str] = set(taken)
    found: set[int] = set()
    for metric in sorted(metrics):
        names = {metric.name}
        if metric.kind is Kind.COUNTER:
            names.add(metric.name.removesuffix("_total"))
        elif metric.kind is Kind.HISTOGRAM:
            names |= {f"{metric.name}_{suffix}" for suffix in ("bucket", "sum", "count")}
        if names & claimed:
            found.add(metric.metric_id)
        else:
            claimed |= names
    return frozenset(found)


def with_producer(key: str, producer: int) -> str:
    """Return the key with the producer's number as a label; `streamgauge_producer` where `producer` is taken."""
    label = "streamgauge_producer" if _HAS_PRODUCER.search(key) else "producer"
    name, brace, rest = key.partition("{")
    return f'{name}{{{label}="{producer}"' + (f",{rest}" if brace else "}")
