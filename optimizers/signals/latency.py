"""Latency of a route against itself: a sudden regression, and a slow drift.

In: p95 samples of 5 minutes: the newest 30 minutes, and the same time of day on the days before.
Out: Said. Promise: a ratio alone flags nothing, nor does a deviation alone, nor a handful of requests.
"""

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from statistics import median
from typing import Final, NamedTuple

from optimizers.signals.said import Advice, Said, insufficient

REGRESSION: Final = "latency_regression"
DRIFT: Final = "latency_drift"
DAYS: Final = 14
MIN_DAYS: Final = 5
MIN_SAMPLES: Final = 30
MIN_RECENT: Final = 5
"""Of the six samples of 30 minutes: the newest may not be rolled up yet."""
MIN_REQUESTS: Final = 200
RATIO: Final = 1.3
ROBUST_Z: Final = 3.5
SLACK_SIGMAS: Final = 0.5
LIMIT_SIGMAS: Final = 5.0
MAD_TO_SIGMA: Final = 1.4826
LEAST_SHARE: Final = 0.02
"""Spread assumed at least, as a share of the median: the sketch's buckets are about this wide."""


class Route(NamedTuple):
    """What is known of one route."""

    recent_s: Sequence[float]
    requests: int
    """In the newest 30 minutes."""
    days_s: Sequence[Sequence[float]]
    """Samples of the same time of day, a sequence per day, oldest first; a day without requests is empty."""


def spread_of(values: Sequence[float], center: float) -> float:
    """Return a robust standard deviation, never below what the sketch can tell apart."""
    mad = median(abs(value - center) for value in values)
    return max(MAD_TO_SIGMA * mad, LEAST_SHARE * abs(center), 1e-9)


def missing_of(route: Route) -> str | None:
    """Return what is missing to judge a route; None when it can be judged."""
    if route.requests < MIN_REQUESTS:
        return f"{route.requests} requests in 30 min, {MIN_REQUESTS} needed"
    if len(route.recent_s) < MIN_RECENT:
        return f"{len(route.recent_s)} samples in 30 min, {MIN_RECENT} needed"
    days = [day for day in route.days_s if day]
    if len(days) < MIN_DAYS or sum(map(len, days)) < MIN_SAMPLES:
        return f"{len(days)} days with requests at this time, {MIN_DAYS} needed"
    return None


def judge_regression(routes: Mapping[str, Route]) -> Said:
    """Say which routes are slower than they are at this time of day."""
    return _judge(REGRESSION, routes, regression, "slower than usual at this time of day")


def judge_drift(routes: Mapping[str, Route]) -> Said:
    """Say which routes have become slower little by little."""
    return _judge(DRIFT, routes, drift, "slower little by little")


def _judge(signal: str, routes: Mapping[str, Route], one: Callable[[str, Route], Advice | None], what: str) -> Said:
    missing = {name: lack for name, route in routes.items() if (lack := missing_of(route)) is not None}
    judged = [name for name in sorted(routes) if name not in missing]
    if not judged:
        example = next((f"{name}: {lack}" for name, lack in sorted(missing.items())), "no route sends latencies")
        return insufficient(signal, example)
    advice = tuple(found for name in judged if (found := one(name, routes[name])) is not None)
    detail = f"{len(advice)} of {len(judged)} routes {what}; {len(missing)} with too little data"
    return Said(signal, "warn" if advice else "ok", detail, advice, tuple(judged))


def regression(name: str, route: Route) -> Advice | None:
    """Return advice when the route is slower by ratio and by deviation."""
    usual = [value for day in route.days_s for value in day]
    center, now_s = median(usual), median(route.recent_s)
    z = (now_s - center) / spread_of(usual, center)
    ratio = now_s / center if center > 0 else 0.0
    if ratio <= RATIO or z <= ROBUST_Z:
        return None
    evidence = {
        "p95_now_s": now_s,
        "p95_usual_s": center,
        "ratio": round(ratio, 3),
        "robust_z": round(z, 2),
        "requests": route.requests,
        "samples_usual": len(usual),
    }
    return Advice(
        name,
        f"p95 {now_s:.4g} s",
        "look at what changed in the last 30 minutes: a release, a plan, a dependency",
        f"p95 back to about {center:.4g} s",
        evidence,
        "high" if len([day for day in route.days_s if day]) >= 10 else "medium",
    )


def cusum(values: Sequence[float], center: float, sigma: float) -> float:
    """Return the highest sum above `center`, in sigmas, that stands at the end of `values`."""
    total = 0.0
    for value in values:
        total = max(0.0, total + (value - center) / sigma - SLACK_SIGMAS)
    return total


def drift(name: str, route: Route) -> Advice | None:
    """Return advice when the days of the second half sum up above those of the first.

    A day is one value: samples of a day move together, and each would count its day's noise again.
    """
    days = [median(day) for day in route.days_s if day]
    half = ceil(len(days) / 2)
    before, after = days[:half], [*days[half:], median(route.recent_s)]
    center = median(before)
    sigma = spread_of(before, center)
    total = cusum(after, center, sigma)
    # A single bad hour is a regression, not a drift: without the newest value half the limit must stand.
    if total <= LIMIT_SIGMAS or cusum(after[:-1], center, sigma) <= LIMIT_SIGMAS / 2:
        return None
    evidence = {
        "cusum_sigmas": round(total, 2),
        "p95_before_s": center,
        "p95_now_s": after[-1],
        "sigma_s": sigma,
        "days": len(days),
    }
    return Advice(
        name,
        f"p95 {after[-1]:.4g} s",
        "look at what grows: tables, result sizes, caches that no longer hit",
        f"p95 back to about {center:.4g} s",
        evidence,
        "medium" if len(days) >= 10 else "low",
    )
