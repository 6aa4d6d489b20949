"""Totals over shards and layouts, gauges over producers."""

import numpy as np
import pytest

from contract.metric import Kind, Merge
from exporter.columns import Layout, Totals, common_bounds, cumulative
from exporter.family import Metric
from exporter.gauges import GaugeRows, Heard, live_producers, merge
from exporter.model import clashing, with_producer


def layout(*bounds: float, retired: bool = False) -> Layout:
    return Layout(1, bounds, retired)


def test_served_bounds_are_common_to_the_layouts_in_use() -> None:
    assert common_bounds([layout(1, 2, 3), layout(2, 3, 4)]) == (2, 3)
    assert common_bounds([layout(1, 2, retired=True), layout(2, 3)]) == (2, 3)
    assert common_bounds([layout(1, 2, retired=True)]) == (1, 2)
    assert common_bounds([layout(1), layout(2)]) == ()


def totals(*le: int) -> Totals:
    one = np.array([1])
    return Totals(1, one, one, np.array([sum(le)]), one.astype(float), np.array([le]))


def test_counts_are_cumulative_at_the_served_bounds() -> None:
    assert cumulative(totals(1, 2, 3, 4), (1, 2, 3), (2, 3)).tolist() == [[3, 6, 10]]
    assert cumulative(totals(1, 2), (1,), ()).tolist() == [[3]]


def test_bound_that_a_retired_layout_lacks_counts_its_next_lower_one() -> None:
    assert cumulative(totals(1, 2, 3), (1, 3), (0.5, 2, 3)).tolist() == [[0, 1, 3, 6]]


@pytest.mark.parametrize(
    ("how", "expected"),
    [(Merge.SUM, 4), (Merge.MIN, 1), (Merge.MAX, 3), (Merge.MEAN, 2), (Merge.LAST, 1)],
)
def test_gauge_merges_its_producers(how: Merge, expected: float) -> None:
    rows = GaugeRows(np.array([7, 7, 9]), np.array([1, 2, 1]), np.array([3.0, 1.0, 5.0]), np.array([10, 20, 5]))
    found = merge(rows, np.array([7, 8, 9]), how)
    assert found[0] == expected
    assert np.isnan(found[1])
    assert found[2] == 5


def test_producer_is_judged_by_its_own_shards_newest() -> None:
    heard = Heard(
        np.array([1, 2, 3, 4]),
        np.array([0, 0, 1, 0]),
        np.array([False, False, False, True]),
        np.array([100.0, 80.0, 10.0, 100.0]),
    )
    assert live_producers(heard, 15, 100.0).tolist() == [1, 3]


def test_producer_heard_of_after_now_makes_nobody_look_silent() -> None:
    """The clock was set back by an hour: the others are judged by each other, and so is it once all are."""
    last_s = np.array([3700.0, 99.0, 80.0])
    heard = Heard(np.array([1, 2, 3]), np.zeros(3, dtype=np.int64), np.zeros(3, dtype=bool), last_s)
    assert live_producers(heard, 15, 100.0).tolist() == [1, 2]
    assert live_producers(heard, 15, 10.0).tolist() == [1, 2, 3]


def test_producer_label_is_added_without_hiding_the_users() -> None:
    assert with_producer("a", 3) == 'a{producer="3"}'
    assert with_producer('a{x="y"}', 3) == 'a{producer="3",x="y"}'
    assert with_producer('a{producer="y"}', 3) == 'a{streamgauge_producer="3",producer="y"}'


def test_metric_whose_names_are_taken_is_left_out() -> None:
    named = [
        ("a", Kind.HISTOGRAM),
        ("a_count", Kind.COUNTER),
        ("b_total", Kind.COUNTER),
        ("b", Kind.GAUGE),
        ("ours", Kind.GAUGE),
        ("c", Kind.GAUGE),
    ]
    metrics = [Metric(i, name, kind, "", "", Merge.LAST, False) for i, (name, kind) in enumerate(named)]
    assert clashing(metrics, frozenset({"ours"})) == {1, 3, 4}
