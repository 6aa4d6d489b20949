"""Rules compared on made-up latency: shaped by day and weekend, noise that lasts, spikes, 5x incidents in history."""

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from optimizers.thresholds import rules
from optimizers.thresholds.rules import Floats, Ints

SLOTS = 288
REPEATS = 8
SHARES = (0.0, 0.02, 0.10)
GLOBAL = ("mean+3sd", "global MAD", "global p99.5")


def latency(rng: np.random.Generator, days: int, from_day: int, incidents: float) -> tuple[Ints, Floats]:
    at = (np.arange(days * SLOTS) + from_day * SLOTS) * 300
    shape = 1 + 0.6 * np.sin(2 * np.pi * (at % 86_400) / 86_400)
    shape = np.where((at // 86_400 + 3) % 7 >= 5, 0.6 * shape, shape)
    noise, steps = np.zeros(len(at)), rng.normal(0, 0.08, len(at))
    for i in range(1, len(at)):
        noise[i] = 0.6 * noise[i - 1] + steps[i]
    values = 0.2 * shape * np.exp(noise)
    values[rng.random(len(at)) < 0.004] *= 4
    hours = rng.permutation(days * 24)[: round(incidents * days * 24)]
    values[np.isin(np.arange(len(at)) // 12, hours)] *= 5
    return at, values


def limits(kind: str, at: Ints, values: Floats, clean_at: Ints) -> Floats:
    """Return what a rule taught by the history allows in each clean sample."""
    if kind == "seasonal MAD":
        found = rules.seasonal(at, values, "high", is_log=True)
        return np.array([found[b].warn for b in range(48)])[rules.buckets(clean_at)]
    if kind == "hour x weekend p99.5":
        of = rules.buckets(at)
        by_bucket = np.array([np.quantile(values[of == b], 0.995) for b in range(48)])
        return by_bucket[rules.buckets(clean_at)]
    if kind == "global MAD":
        middle = np.median(values)
        limit = middle + 3.5 * 1.4826 * np.median(np.abs(values - middle))
    elif kind == "global p99.5":
        limit = np.quantile(values, 0.995)
    else:
        limit = values.mean() + 3 * values.std()
    return np.full(len(clean_at), limit)


class Judged(NamedTuple):
    """Of one rule on one share of incidents."""

    doubled: float
    half_more: float
    false_a_week: float


@cache
def judge(kind: str, incidents: float) -> Judged:
    """Return the shares of hours at 2x and 1.5x that fire, and false firings a week, three samples in a row."""
    fired, hours, false = {2.0: 0, 1.5: 0}, 0, 0
    for seed in range(REPEATS):
        at, values, clean_at, clean = history(seed, incidents)
        limit = limits(kind, at, values, clean_at)
        false += rules.firings(clean_at, rules.is_over(clean, limit, "high"))
        for hour in range(0, len(clean), 12):
            span = slice(hour, hour + 12)
            for step in fired:
                over = rules.is_over(step * clean[span], limit[span], "high")
                fired[step] += rules.firings(clean_at[span], over) > 0
            hours += 1
    return Judged(fired[2.0] / hours, fired[1.5] / hours, false / (2 * REPEATS))


@cache
def history(seed: int, incidents: float) -> tuple[Ints, Floats, Ints, Floats]:
    """Return 28 days with incidents, then 14 clean days."""
    rng = np.random.default_rng(seed)
    return *latency(rng, 28, 0, incidents), *latency(rng, 14, 28, 0.0)


@pytest.mark.parametrize("incidents", SHARES)
def test_seasonal_mad_sees_doubled_hours_whatever_the_history_and_fires_falsely_rarely(incidents: float) -> None:
    found = judge("seasonal MAD", incidents)
    assert found.doubled >= 0.95
    assert found.false_a_week <= 0.2


@pytest.mark.parametrize("incidents", SHARES)
@pytest.mark.parametrize("other", GLOBAL)
def test_seasonal_mad_sees_more_than_any_rule_without_hours(other: str, incidents: float) -> None:
    seasonal, found = judge("seasonal MAD", incidents), judge(other, incidents)
    assert seasonal.doubled > found.doubled + 0.3
    assert seasonal.half_more > found.half_more + 0.3


def test_after_incidents_only_rules_of_medians_still_see() -> None:
    assert judge("mean+3sd", 0.10).doubled < 0.02
    assert judge("global p99.5", 0.10).doubled < 0.02
    assert judge("global MAD", 0.10).doubled > 0.05


def test_a_quantile_of_hours_learns_the_incidents_that_a_median_ignores() -> None:
    """The hours alone are not enough: a half percent lies within any incident."""
    clean, after = judge("hour x weekend p99.5", 0.0), judge("hour x weekend p99.5", 0.10)
    assert clean.doubled > max(judge(kind, 0.0).doubled for kind in GLOBAL) + 0.2
    assert after.doubled < 0.3 * clean.doubled
    assert judge("seasonal MAD", 0.10).doubled > after.doubled + 0.7
    assert clean.false_a_week > 0.2


def test_half_more_is_seen_less_than_double_and_less_after_incidents() -> None:
    for kind in ("seasonal MAD", *GLOBAL):
        for incidents in SHARES:
            found = judge(kind, incidents)
            assert found.half_more <= found.doubled
        assert judge(kind, 0.10).half_more <= judge(kind, 0.0).half_more
