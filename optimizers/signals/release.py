"""Release: the latency of a route in its newest release against the release before it.

In: p95 and requests of both, per route. Out: Said. Promise: a handful of requests judges no release.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from optimizers.signals.said import Advice, Said, insufficient

RELEASE: Final = "release_latency"
RATIO: Final = 1.3
MIN_REQUESTS: Final = 200
SURE_REQUESTS: Final = 1000


class Served(NamedTuple):
    """A route as one release served it."""

    release: str
    p95_s: float
    requests: int


class Pair(NamedTuple):
    """The newest release of a route, and the one before it."""

    newest: Served
    before: Served
    span_s: float
    """Time after, and before, the newest release began."""


def missing_of(pair: Pair) -> str | None:
    """Return what is missing to compare; None when nothing is."""
    few = min(pair.newest, pair.before, key=lambda served: served.requests)
    if few.requests < MIN_REQUESTS:
        return f"{few.requests} requests with release {few.release}, {MIN_REQUESTS} needed"
    return None


def judge_releases(routes: Mapping[str, Pair]) -> Said:
    """Say which routes the newest release made slower."""
    missing = {name: lack for name, pair in sorted(routes.items()) if (lack := missing_of(pair)) is not None}
    judged = tuple(name for name in sorted(routes) if name not in missing)
    if not judged:
        example = next((f"{name}: {lack}" for name, lack in missing.items()), None)
        return insufficient(RELEASE, example or "no route was served by two releases (STREAMGAUGE_RELEASE)")
    advice = tuple(one for name in judged if (one := slower(name, routes[name])) is not None)
    found = f"{len(advice)} of {len(judged)} routes slower than in the release before"
    detail = f"{found}; {len(missing)} with too little data"
    return Said(RELEASE, "warn" if advice else "ok", detail, advice, judged)


def slower(name: str, pair: Pair) -> Advice | None:
    """Return advice when the newest release is slower by more than 1.3."""
    newest, before, span_s = pair
    if before.p95_s <= 0 or newest.p95_s <= RATIO * before.p95_s:
        return None
    evidence = {
        "release": newest.release,
        "release_before": before.release,
        "p95_release_s": newest.p95_s,
        "p95_before_s": before.p95_s,
        "ratio": round(newest.p95_s / before.p95_s, 3),
        "requests": newest.requests,
        "requests_before": before.requests,
        "compared_s": span_s,
    }
    return Advice(
        name,
        f"p95 {newest.p95_s:.4g} s with release {newest.release}",
        f"look at what release {newest.release} changed, or go back to {before.release}",
        f"p95 back to about {before.p95_s:.4g} s",
        evidence,
        "high" if min(newest.requests, before.requests) >= SURE_REQUESTS else "medium",
    )
