"""Latency against itself: found when it is slower, silent on noise, and said when there is too little data."""

from random import Random

import pytest

from optimizers.signals.latency import Route, judge_drift, judge_regression


def days(count: int, factor: float = 1.0) -> list[list[float]]:
    rng = Random(1)
    return [[0.1 * factor**day * rng.gauss(1, 0.05) for _ in range(12)] for day in range(count)]


def test_a_route_twice_as_slow_is_found() -> None:
    said = judge_regression({"/a": Route([0.2] * 6, 400, days(14))})
    assert (said.status, [one.target for one in said.advice]) == ("warn", ["/a"])


def test_noise_is_neither_a_regression_nor_a_drift() -> None:
    routes = {"/a": Route([0.105] * 6, 400, days(14))}
    assert judge_regression(routes).status == judge_drift(routes).status == "ok"


def test_a_ratio_alone_flags_nothing() -> None:
    """Twice the median, in a route that swings by more than that every day."""
    wild = [[0.02, 0.05, 0.1, 0.2, 0.4, 0.1, 0.03, 0.3] for _ in range(14)]
    assert judge_regression({"/a": Route([0.2] * 6, 400, wild)}).status == "ok"
    calm = [[0.099, 0.1, 0.101, 0.1, 0.1, 0.1, 0.1, 0.1] for _ in range(14)]
    assert judge_regression({"/a": Route([0.2] * 6, 400, calm)}).status == "warn"


def test_a_deviation_alone_flags_nothing() -> None:
    """Twelve standard deviations of a route that hardly moves are a quarter more."""
    calm = [[0.099, 0.1, 0.101, 0.1, 0.1, 0.1, 0.1, 0.1] for _ in range(14)]
    assert judge_regression({"/a": Route([0.125] * 6, 400, calm)}).status == "ok"
    assert judge_regression({"/a": Route([0.131] * 6, 400, calm)}).status == "warn"


def test_a_single_bad_hour_is_no_drift() -> None:
    """However bad: the days before it stand where they stood."""
    bad = {"/a": Route([1.0] * 6, 400, days(14))}
    assert (judge_drift(bad).status, judge_regression(bad).status) == ("ok", "warn")


def test_a_slow_drift_is_found_that_is_no_regression_of_today() -> None:
    routes = {"/a": Route([0.1 * 1.02**14] * 6, 400, days(14, 1.02))}
    assert judge_drift(routes).status == "warn"
    assert judge_regression(routes).status == "ok"


@pytest.mark.parametrize("route", [Route([0.2] * 6, 199, days(14)), Route([0.2] * 6, 400, days(4))])
def test_too_little_data_is_said(route: Route) -> None:
    assert judge_regression({"/a": route}).status == "insufficient_data"
