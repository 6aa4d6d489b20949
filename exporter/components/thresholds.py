"""Thresholds: what is over its alert threshold now.

In: database.thresholds, which reads the newest 5 minutes of every metric that has one. Out: one component.
Promise: read at most every few seconds, however many look; what has no value now is counted as unknown.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from database.connect import Pool, acquire
from database.thresholds import list_thresholds
from exporter.components.component import Component, Probe, Severity, Sources, Status

FRESH_S: Final = 10.0
SHOWN: Final = 5
"""Breaches that the reason names; the facts have all."""


class Breaches:
    """Keeps the newest answer."""

    def __init__(self) -> None:
        self._found: list[Component] = []
        self._read_at = float("-inf")

    async def read(self, pool: Pool) -> list[Component]:
        """Return the component, from an answer that is at most FRESH_S old."""
        if time.monotonic() - self._read_at > FRESH_S:
            async with acquire(pool) as connection:
                rows = await list_thresholds(connection, datetime.now(UTC))
            self._found = [judge([dict(row) for row in rows])]
            self._read_at = time.monotonic()
        return self._found


def probes(sources: Sources, breaches: Breaches) -> list[Probe]:
    """Return one probe."""

    async def ask() -> list[Component]:
        return await breaches.read(sources.pool)

    return [Probe("thresholds", "thresholds", Severity.WARNING, ask)]


def judge(rows: Sequence[Mapping[str, Any]]) -> Component:
    """Say what is over, critical first."""
    over = sorted((row for row in rows if row["severity"]), key=lambda row: row["severity"] != "critical")
    unknown = sum(row["actual"] is None for row in rows)
    facts = {"thresholds": len(rows), "unknown": unknown, "over": [_fact(row) for row in over]}
    if not rows:
        return Component("thresholds", Status.OK, "none is set yet: nothing to compare with", facts)
    more = [f"and {len(over) - SHOWN} more"] if len(over) > SHOWN else []
    reason = "; ".join([*map(_sentence, over[:SHOWN]), *more])
    return Component("thresholds", Status.DEGRADED if over else Status.OK, reason, facts)


def _sentence(row: Mapping[str, Any]) -> str:
    name = f"{row['metric']} {row['route']}".strip()
    than = "above" if row["side"] == "high" else "below"
    return f"{name} is {row['actual']:.4g}, {than} {row['severity']} {row[row['severity']]:.4g}"


def _fact(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("metric", "route", "side", "severity", "actual", "warn", "critical")}
