"""Each rule of the calibration, with a case that the rule decides."""

from pathlib import Path

import numpy as np
import pytest

from database.settings import SettingsError
from optimizers.thresholds import rules
from optimizers.thresholds.calibrate import Decision, Held, Rule, decide
from optimizers.thresholds.definitions import read_definitions
from optimizers.thresholds.rules import Flags, Floats, Ints

RULE = Rule("high", True, 1.0, 2.0, 0.001, 10.0)
LOW = RULE._replace(side="low", static_warn=0.01, static_critical=0.001)
DAY = 288
NOW_S = 20_000 * 86_400


def history(days: float = 28, level: float = 0.1, seed: int = 1) -> tuple[Ints, Floats]:
    size = round(days * DAY)
    at = NOW_S - 300 * np.arange(size, 0, -1, dtype=np.int64)
    return at, level * np.exp(np.random.default_rng(seed).normal(0, 0.1, size))


def judge(
    at: Ints,
    values: Floats,
    rule: Rule = RULE,
    held: dict[int, Held] | None = None,
    medians: tuple[tuple[float, float], ...] = (),
    excluded: Flags | None = None,
) -> Decision:
    out = np.zeros(len(at), dtype=bool) if excluded is None else excluded
    return decide(at, values, out, rule, held or {}, medians, NOW_S)


def holding(warn: float = 0.15, critical: float = 0.2, **fields: object) -> dict[int, Held]:
    one = Held(warn, critical, "seasonal", is_pinned=False, age_days=1.0)._replace(**fields)
    return dict.fromkeys(range(48), one)


def test_buckets_are_hours_with_weekends_apart() -> None:
    thursday, saturday = 0, 2 * 86_400
    at = np.array([thursday, thursday + 23 * 3600, saturday + 3600, saturday + 2 * 86_400])
    assert rules.buckets(at).tolist() == [0, 23, 25, 0]


def test_limits_are_median_and_scaled_mad_on_both_sides() -> None:
    values = np.array([8.0, 9.0, 10.0, 11.0, 12.0])
    high, low = (rules.limits(values, side, is_log=False) for side in ("high", "low"))
    assert high.warn == pytest.approx(10 + 3.5 * 1.4826)
    assert high.critical == pytest.approx(10 + 6 * 1.4826)
    assert low.warn == pytest.approx(10 - 3.5 * 1.4826)


def test_the_log_scale_multiplies_and_divides() -> None:
    values = np.exp(np.array([-1.0, 0.0, 1.0]))
    assert rules.limits(values, "high", is_log=True).warn == pytest.approx(np.exp(3.5 * 1.4826))
    assert rules.limits(values, "low", is_log=True).warn == pytest.approx(np.exp(-3.5 * 1.4826))


@pytest.mark.parametrize(("is_log", "floor"), [(True, np.log(1.05)), (False, 0.1)])
def test_mad_is_never_below_5_percent_of_the_median(is_log: bool, floor: float) -> None:
    assert rules.limits(np.full(100, 2.0), "high", is_log=is_log).mad == pytest.approx(floor)


@pytest.mark.parametrize(("size", "speaks"), [(59, 3), (60, 1)])
def test_a_bucket_below_60_samples_takes_its_neighbours_of_the_same_kind_of_day(size: int, speaks: int) -> None:
    of = np.repeat([0, 1, 23, 24, 47, 2], size)
    assert int(rules.pooled(of, 0).sum()) == speaks * size


@pytest.mark.parametrize(("days", "method"), [(6.9, "static"), (7.0, "global"), (13.9, "global"), (14.0, "seasonal")])
def test_cold_start_goes_from_static_over_global_to_seasonal(days: float, method: str) -> None:
    found = judge(*history(days))
    assert (found.method, found.frozen, len(found.values)) == (method, None, 48)
    assert (found.values[3].warn == 1.0) is (method == "static")


def test_limits_stay_within_the_hard_ones() -> None:
    tight = judge(*history(), RULE._replace(hard_max=0.16))
    assert (tight.frozen, max(one.critical for one in tight.values.values())) == (None, 0.16)
    raised = judge(*history(), RULE._replace(hard_min=0.16))
    assert (raised.frozen, min(one.warn for one in raised.values.values())) == (None, 0.16)


@pytest.mark.parametrize(("old", "new"), [(0.1, 0.11), (1.0, 0.8)])
def test_a_day_moves_a_limit_by_10_percent_up_or_20_down(old: float, new: float) -> None:
    assert rules.limit_move(old, 0.4, 1.0) == pytest.approx(new)
    assert rules.limit_move(old, 0.4, 30.0) == pytest.approx(new)
    assert rules.limit_move(old, 0.4, 0.0) == old


def test_a_run_keeps_learnt_limits_to_the_pace() -> None:
    found = judge(*history(), held=holding(1.0, 2.0))
    assert {(round(one.warn, 6), round(one.critical, 6)) for one in found.values.values()} == {(0.8, 1.6)}


def test_a_limit_of_0_is_not_stuck_there() -> None:
    assert rules.limit_move(0.0, 0.4, 1.0) == 0.4


def test_a_narrowed_hard_limit_holds_at_once() -> None:
    found = judge(*history(), RULE._replace(hard_max=0.5), holding(1.0, 2.0))
    assert {(one.warn, one.critical) for one in found.values.values()} == {(0.5, 0.5)}


def test_what_was_static_is_not_held_to_the_pace() -> None:
    found = judge(*history(), held=holding(1.0, 2.0, method="static"))
    assert found.values[0].warn < 0.2


def test_the_pace_holds_from_one_method_to_the_other() -> None:
    """At 14 days: one limit for all hours becomes one for each, a day at a time."""
    found = judge(*history(), held=holding(0.5, 1.0, method="global"))
    assert (found.method, found.frozen) == ("seasonal", None)
    assert {(round(one.warn, 6), round(one.critical, 6)) for one in found.values.values()} == {(0.4, 0.8)}


def test_gaps_freeze() -> None:
    at, values = history()
    keep = np.random.default_rng(2).random(len(at)) < 0.6
    assert "of the history is there" in str(judge(at[keep], values[keep]).frozen)


def test_excluded_samples_above_a_tenth_freeze_and_do_not_teach() -> None:
    at, values = history()
    out = np.arange(len(at)) % 24 == 0
    assert (judge(at, values, excluded=out).frozen, judge(at, values, excluded=out).dropped) == (None, int(out.sum()))
    out = np.arange(len(at)) % 8 == 0
    assert "lie in incidents" in str(judge(at, values, excluded=out).frozen)


def test_buckets_without_limits_get_the_static_ones_whatever_keeps_a_history_from_teaching() -> None:
    """Without a value there is no series, and an alert that compares with it is silent."""
    at, values = history()
    every, gaps = np.ones(len(at), dtype=bool), np.arange(len(at)) % 2 == 0
    for found in (judge(at, values, excluded=every), judge(at[gaps], values[gaps])):
        assert found.frozen
        assert {(bucket, one.warn, one.critical) for bucket, one in found.values.items()} == {
            (bucket, 1.0, 2.0) for bucket in range(48)
        }
        assert found.method == "static"
    some = {bucket: one for bucket, one in holding().items() if bucket != 7}
    assert list(judge(at, values, held=some, excluded=every).values) == [7]


def test_15_minutes_over_critical_are_an_incident_and_dropped() -> None:
    at, values = history()
    values[1000:1003] = 9.0
    values[2000:2002] = 9.0
    assert judge(at, values, held=holding()).dropped == 3


def test_a_metric_that_alerts_now_is_frozen() -> None:
    at, values = history()
    values[-3:] = 0.18
    found = judge(at, values, held=holding())
    assert (found.frozen, found.values) == ("the metric is over its threshold now", {})


def test_a_level_shift_waits_for_a_person() -> None:
    at, values = history()
    assert "level shift" in str(judge(at, values, medians=((30.0, 0.07), (2.0, 0.1))).frozen)
    assert judge(at, values, medians=((40.0, 0.07), (29.0, 0.09))).frozen is None


def test_a_young_history_is_compared_with_its_oldest_median() -> None:
    """Else a slow leak that moves a little each day would never be a shift."""
    at, values = history()
    assert "level shift" in str(judge(at, values, medians=((20.0, 0.07), (1.0, 0.1))).frozen)


def test_a_week_with_more_than_two_firings_keeps_the_old_limits() -> None:
    at, values = history()
    for day in (1, 3, 5):
        values[-day * DAY + 100 : -day * DAY + 104] = 0.165
    found = judge(at, values, held=holding(0.5, 1.0))
    assert (found.values, found.frozen) == ({}, "would have fired 3 times in the last 7 days")


def test_limits_that_a_doubled_hour_would_not_cross_are_refused() -> None:
    at, values = history()
    noisy = np.exp(np.random.default_rng(3).normal(0, 0.7, len(at))) * 0.1
    assert "would not have fired" in str(judge(at, noisy).frozen)
    assert "0.5 times" in str(judge(at, noisy, LOW).frozen)
    assert judge(at, values).frozen is None


def on_the_way(rows: int) -> Decision:
    """Judge limits of which one is slow to rise over `rows` times a quarter of an hour, and one falls onto another."""
    at, values = history()
    held = holding(0.15, 1.0)
    held[3] = held[3]._replace(warn=0.13, age_days=0.01)
    held[10] = held[10]._replace(warn=0.18)
    for day in range(1, rows + 1):
        values[-day * DAY + 3 * 12 :][:3] = 0.135
    values[-3 * DAY + 10 * 12 :][:3] = 0.16
    return judge(at, values, held=held)


def test_what_is_published_is_back_tested_and_not_only_what_was_learnt() -> None:
    """What was learnt would have fired once, the old limits twice, the step between them three times."""
    assert on_the_way(1).frozen is None
    said = "on the way to what was learnt it would have fired 3 times in the last 7 days"
    assert (on_the_way(2).frozen, on_the_way(2).values) == (said, {})


def test_a_step_is_published_where_the_old_limits_would_not_have_served_either() -> None:
    """Else they would stay for ever."""
    found = on_the_way(3)
    assert found.frozen is None
    assert found.values[3].warn == pytest.approx(0.13, rel=0.002)


def test_buckets_of_which_the_back_test_has_too_few_samples_are_counted() -> None:
    at, values = history()
    assert judge(at, values).unproved == 0
    hour = rules.buckets(at)
    out = (at >= NOW_S - 7 * 86_400) & (hour == 5)
    found = judge(at[~out], values[~out])
    assert (found.frozen, found.unproved) == (None, 1)
    few = out & (at % 3600 >= 600)
    assert judge(at[~few], values[~few]).unproved == 1, "two in a row are no alert"


def test_pinned_buckets_are_left_alone() -> None:
    held = holding()
    held[7] = held[7]._replace(is_pinned=True, method="manual")
    assert set(judge(*history(), held=held).values) == set(range(48)) - {7}


def test_pinned_buckets_are_left_alone_by_static_limits_too() -> None:
    held = holding(method="static")
    held[7] = held[7]._replace(is_pinned=True)
    assert set(judge(*history(3), held=held).values) == set(range(48)) - {7}


def test_two_rows_apart_by_a_gap_fire_twice() -> None:
    at = np.array([0, 300, 600, 1200, 1500, 1800])
    assert rules.firings(at, np.ones(6, dtype=bool)) == 2


def test_a_gap_ends_a_row() -> None:
    at, over = np.array([0, 300, 600, 1200, 1500]), np.ones(5, dtype=bool)
    assert rules.in_row(at, over).tolist() == [True, True, True, False, False]
    assert rules.firings(at, over) == 1


def test_the_low_side_is_below() -> None:
    found = judge(*history(), LOW)
    assert found.frozen is None
    assert all(0.04 < one.critical < one.warn < 0.09 for one in found.values.values())


def test_the_shipped_definitions_are_read() -> None:
    found = {one.name: one for one in read_definitions(None)}
    assert found["http_request_p95_seconds"].source.by_route
    assert [rule.side for rule in found["jorge_seller_bot_qualification_rate"].rules] == ["high", "low"]


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ('value = "mean"', "value"),
        ('numerator = "a{"', "numerator"),
        ("by_route = 1", "by_route"),
        ("quantile = 2", "quantile"),
        ('scale = "sqrt"', "scale"),
        ("min_events = 0", "min_events"),
        ("extra = 1", "extra"),
        ("side = 1", "side"),
        ("side.high.hard_min = 9", "hard_min"),
        ("side.high.static_warn = 3", "static_critical"),
        ("side.high.static_critical = 9", "static_critical"),
    ],
)
def test_a_bad_definition_names_its_field(tmp_path: Path, line: str, field: str) -> None:
    good = {
        "name": '"a_p95"', "value": '"quantile"', "numerator": '"a"', "quantile": "0.9", "scale": '"log"',
        "side.high.static_warn": "1", "side.high.static_critical": "2",
        "side.high.hard_min": "0", "side.high.hard_max": "3",
    }  # fmt: skip
    key, _, value = line.partition(" = ")
    if key == "side":
        good = {name: one for name, one in good.items() if not name.startswith("side")}
    path = tmp_path / "thresholds.toml"
    path.write_text("[[threshold]]\n" + "".join(f"{k} = {v}\n" for k, v in (good | {key: value}).items()))
    with pytest.raises(SettingsError, match=rf"^STREAMGAUGE_THRESHOLDS_FILE: threshold 1.*: {field}: "):
        read_definitions(path)
