"""Rules compared on made-up latency: shaped by day and weekend, noise that lasts, spikes, 5x incidents in history."""

import numpy as np
import pytest

from optimizers.thresholds import rules
from optimizers.thresholds.rules import Floats, Ints

SLOTS = 288
REPEATS = 8


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


def judge(kind: str, incidents: float) -> tuple[float, float]:
    """Return the share of doubled hours that fire, and false firings a week, three samples in a row."""
    fired, hours, false, weeks = 0, 0, 0, 0.0
    for seed in range(REPEATS):
        rng = np.random.default_rng(seed)
        at, values = latency(rng, 28, 0, incidents)
        clean_at, clean = latency(rng, 14, 28, 0.0)
        if kind == "mean+3sd":
            limit = np.full(len(clean), values.mean() + 3 * values.std())
        else:
            found = rules.seasonal(at, values, "high", is_log=True)
            limit = np.array([found[b].warn for b in range(48)])[rules.buckets(clean_at)]
        false += rules.firings(clean_at, rules.is_over(clean, limit, "high"))
        weeks += 2
        for hour in range(0, len(clean), 12):
            span = slice(hour, hour + 12)
            fired += rules.firings(clean_at[span], rules.is_over(2 * clean[span], limit[span], "high")) > 0
            hours += 1
    return fired / hours, false / weeks


@pytest.mark.parametrize("incidents", [0.0, 0.02, 0.10])
def test_seasonal_mad_sees_doubled_hours_whatever_the_history_and_fires_falsely_rarely(incidents: float) -> None:
    detected, false_a_week = judge("seasonal", incidents)
    assert detected >= 0.95
    assert false_a_week <= 0.2


def test_mean_and_deviation_are_blind_after_incidents() -> None:
    assert judge("mean+3sd", 0.10)[0] < 0.02
