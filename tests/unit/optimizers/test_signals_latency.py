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


def test_a_slow_drift_is_found_that_is_no_regression_of_today() -> None:
    routes = {"/a": Route([0.1 * 1.02**14] * 6, 400, days(14, 1.02))}
    assert judge_drift(routes).status == "warn"
    assert judge_regression(routes).status == "ok"


@pytest.mark.parametrize("route", [Route([0.2] * 6, 199, days(14)), Route([0.2] * 6, 400, days(4))])
def test_too_little_data_is_said(route: Route) -> None:
    assert judge_regression({"/a": route}).status == "insufficient_data"
