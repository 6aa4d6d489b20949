"""Release history: each route as its newest release served it, and as the release before did.

In: a connection and the time. Out: per route what signals.release judges.
Promise: both are looked at over the same length of time around the moment the newest began, at most a day: the nearer
the two, the less else has changed. A release that no longer serves (it was taken back) is no route's newest.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from contract.series import parse_key
from database.connect import Connection
from database.merged_series import Level, Merged, read_merged
from database.queries import load
from optimizers.signals.release import Pair, Served

METRIC: Final = "http_request_duration_seconds"
LOOK_BACK: Final = timedelta(days=30)
IN_USE_S: Final = 1800.0
MOST_S: Final = 86_400.0
BY_MINUTE_S: Final = 7200.0
"""Up to here minutes are read; beyond it hours, which are 60 times fewer rows."""


class Known(NamedTuple):
    """A release on one route."""

    name: str
    began_s: float
    seen_s: float
    series: tuple[int, ...]


async def read_releases(connection: Connection, now: datetime) -> dict[str, Pair]:
    """Return the routes that two releases served, the newest of them in the last 30 minutes."""
    found: dict[str, Pair] = {}
    for route, releases in (await _releases(connection, now)).items():
        pair = choose(releases, now.timestamp())
        if pair is not None:
            found[route] = await _compare(connection, *pair, now.timestamp())
    return found


def choose(releases: Mapping[str, Known], now_s: float) -> tuple[Known, Known] | None:
    """Return the newest release in use and the one that began before it; None where there are not both."""
    by_age = sorted(releases.values(), key=lambda one: one.began_s)
    in_use = [number for number, one in enumerate(by_age) if one.seen_s >= now_s - IN_USE_S]
    return (by_age[in_use[-1]], by_age[in_use[-1] - 1]) if in_use and in_use[-1] > 0 else None


async def _releases(connection: Connection, now: datetime) -> dict[str, dict[str, Known]]:
    routes: dict[str, dict[str, Known]] = {}
    for row in await connection.fetch(load("series_since"), METRIC, now.astimezone(UTC) - LOOK_BACK):
        labels = parse_key(row["key"].encode())[1]
        if "route" not in labels or "release" not in labels:
            continue
        of_route, name = routes.setdefault(labels["route"], {}), labels["release"]
        began_s, seen_s, series = row["created_s"], row["active_s"], (row["series_id"],)
        if (known := of_route.get(name)) is not None:
            began_s, seen_s = min(known.began_s, began_s), max(known.seen_s, seen_s)
            series += known.series
        of_route[name] = Known(name, began_s, seen_s, series)
    return routes


async def _compare(connection: Connection, newest: Known, before: Known, now_s: float) -> Pair:
    span_s = min(MOST_S, now_s - newest.began_s)
    level: Level = "rollup_1m" if span_s <= BY_MINUTE_S else "rollup_1h"
    step_s = 60 if level == "rollup_1m" else 3600
    low_s = (newest.began_s - span_s) // step_s * step_s
    groups = {"newest": newest.series, "before": before.series}
    found = await read_merged(connection, level, groups, low_s, newest.began_s + span_s)
    return Pair(_served(newest, found.get("newest")), _served(before, found.get("before")), round(span_s))


def _served(release: Known, found: Merged | None) -> Served:
    return Served(release.name, found.quantile(0.95), found.n) if found and found.counts else Served(release.name, 0, 0)
