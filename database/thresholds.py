"""Thresholds: the table of what alerts compare with: read with the actual values, set, pinned, reverted.

In: a connection. Out: rows for the API, the page and the monitor. Changes are one transaction and leave a row each.
Promise: what is not known now (no data, no threshold) is None, never 0 and never a breach.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple, TypedDict

from database.connect import Connection, transaction
from database.queries import load
from database.threshold_samples import Source, read_now

BUCKETS: Final = 48
Severity = Literal["warn", "critical"]


class NoSuchThreshold(LookupError):
    """There is none of this number, or nothing to revert to; the text says which."""


class CrossedLimits(ValueError):
    """The critical limit would be reached before the one that warns."""


class Value(NamedTuple):
    """A bucket's limits to set."""

    bucket: int
    warn: float
    critical: float
    n: int = 0
    median: float | None = None
    mad: float | None = None


class ThresholdRow(TypedDict):
    """One threshold in the current bucket beside what is measured."""

    id: int
    metric: str
    route: str
    side: str
    bucket: int
    warn: float
    critical: float
    actual: float | None
    severity: Severity | None
    """What the actual value has reached; None: nothing, or it is not known."""
    method: str
    n: int
    is_pinned: bool
    frozen: str | None
    calibrated_at: datetime | None
    set_at: datetime


def moment(at_s: float) -> datetime:
    """Return an instant as the queries take it."""
    return datetime.fromtimestamp(at_s, UTC)


def bucket_of(now: datetime) -> int:
    """Return the bucket of a time that is UTC: the hour, and 24 more on Saturday and Sunday."""
    return now.hour + (24 if now.weekday() >= 5 else 0)


async def list_thresholds(connection: Connection, now: datetime) -> list[ThresholdRow]:
    """Return every threshold with the value of the newest 5 minutes. Begins a transaction of its own."""
    async with transaction(connection, "REPEATABLE READ READ ONLY"):
        await connection.execute(load("lock_parts"))
        rows = await connection.fetch(load("thresholds_now"), bucket_of(now))
        sources = {row["source"]: Source(*json.loads(row["source"])) for row in rows}
        actual = {text: await read_now(connection, source, now.timestamp()) for text, source in sources.items()}
    return [_row(row, actual[row["source"]].get(row["route"])) for row in rows]


def _row(row: Any, actual: float | None) -> ThresholdRow:
    return {
        "id": row["threshold_id"],
        "metric": row["metric"],
        "route": row["route"],
        "side": row["side"],
        "bucket": row["bucket"],
        "warn": row["warn"],
        "critical": row["critical"],
        "actual": actual,
        "severity": severity(actual, row["warn"], row["critical"], row["side"]),
        "method": row["method"],
        "n": row["n"],
        "is_pinned": row["is_pinned"],
        "frozen": row["frozen"],
        "calibrated_at": row["calibrated_at"],
        "set_at": row["set_at"],
    }


def severity(actual: float | None, warn: float, critical: float, side: str) -> Severity | None:
    """Return the worst limit that a value is beyond."""
    if actual is None:
        return None
    sign = 1 if side == "high" else -1
    if sign * actual > sign * critical:
        return "critical"
    return "warn" if sign * actual > sign * warn else None


async def breaches(connection: Connection, now: datetime) -> list[ThresholdRow]:
    """Return the thresholds that the newest 5 minutes are beyond. Begins a transaction of its own."""
    return [row for row in await list_thresholds(connection, now) if row["severity"] is not None]


async def register(connection: Connection, wanted: Sequence[tuple[str, str, str, Source]]) -> dict[Any, int]:
    """Write down what is calibrated (metric, route, side, source); returns the number of each (metric, route, side)."""
    metrics, routes, sides, sources = ([one[i] for one in wanted] for i in range(4))
    texts = [json.dumps(source) for source in sources]
    rows = await connection.fetch(load("thresholds_register"), metrics, routes, sides, texts)
    return {(row["metric"], row["route"], row["side"]): row["threshold_id"] for row in rows}


async def set_values(
    connection: Connection,
    threshold_id: int,
    values: Sequence[Value],
    *,
    method: str,
    reason: str,
    actor: str,
    dropped: int = 0,
    is_pinned: bool = False,
) -> int:
    """Set limits and write down what changed; returns how many buckets did."""
    columns = [list(column) for column in zip(*values, strict=True)]
    buckets, warn, critical, n, medians, mads = columns
    return await connection.fetchval(
        load("threshold_set"),
        *(threshold_id, buckets, warn, critical, method, n, medians, mads, is_pinned, dropped, reason, actor),
    )


async def pin(
    connection: Connection, threshold_id: int, warn: float, critical: float, actor: str, bucket: int | None = None
) -> None:
    """Hold limits against every recalibration until they are reverted; all buckets unless one is named."""
    async with transaction(connection):
        side = await _seen(connection, threshold_id)
        if critical < warn if side == "high" else critical > warn:
            order = "below" if side == "high" else "above"
            raise CrossedLimits(f"threshold {threshold_id} is of the {side} side: critical may not be {order} warn")
        buckets = range(BUCKETS) if bucket is None else [bucket]
        values = [Value(each, warn, critical) for each in buckets]
        await set_values(
            connection, threshold_id, values, method="manual", reason="pinned", actor=actor, is_pinned=True
        )


async def revert(connection: Connection, threshold_id: int, actor: str, bucket: int | None = None) -> int:
    """Restore what was before the newest change; returns how many buckets.

    After a pin the schedule may change it again; after a recalibration the old limits are pinned, or the next run
    would do the same again.
    """
    async with transaction(connection):
        await _seen(connection, threshold_id)
        rows = await connection.fetch(load("threshold_before"), threshold_id, bucket)
        rows = [row for row in rows if row["old_warn"] is not None]
        if not rows:
            raise NoSuchThreshold(f"threshold {threshold_id} has no earlier value")
        for row in rows:
            value = [Value(row["bucket"], row["old_warn"], row["old_critical"])]
            is_pinned = row["reason"] != "pinned"
            method = "manual" if is_pinned else row["old_method"]
            options: dict[str, Any] = {"method": method, "reason": "reverted", "is_pinned": is_pinned}
            await set_values(connection, threshold_id, value, actor=actor, **options)
    return len(rows)


async def _seen(connection: Connection, threshold_id: int) -> str:
    side = await connection.fetchval(load("threshold_seen"), threshold_id)
    if side is None:
        raise NoSuchThreshold(f"there is no threshold {threshold_id}")
    return str(side)


async def changes(connection: Connection, threshold_id: int | None, limit: int) -> list[dict[str, Any]]:
    """Return changes, newest first."""
    return [dict(row) for row in await connection.fetch(load("threshold_changes"), threshold_id, limit)]


async def exclude(
    connection: Connection, metric: str | None, from_at: datetime, to_at: datetime, reason: str, actor: str
) -> None:
    """Keep the samples of a time from teaching a metric (None: any metric)."""
    await connection.execute(load("threshold_exclude"), metric, from_at, to_at, reason, actor)
