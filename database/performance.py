"""Performance: what signals said and what is recommended, stored and read.

In: a connection. Out: rows. Promise: a recommendation that still stands keeps its id and when it was first seen;
one that is no longer seen becomes `gone`, but only when its signal could judge its target, or could not for 14 days.
"""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, TypedDict

from database.connect import Connection, transaction
from database.queries import load

SHOWN: Final = 200
SHORTEST_S: Final = 30.0
"""Between two looks at counters: what is noted every 2 s (a heartbeat) tells no rate over less."""


class SignalRow(TypedDict):
    """What a signal said last."""

    signal: str
    status: str
    detail: str


class RecommendationRow(TypedDict):
    """One recommendation."""

    id: int
    kind: str
    target: str
    current: str | None
    proposed: str
    expected_effect: str
    evidence: dict[str, Any]
    confidence: str
    state: str
    first_seen: datetime
    last_seen: datetime


class PerformanceRow(TypedDict):
    """All of it."""

    collected_at: datetime | None
    signals: list[SignalRow]
    recommendations: list[RecommendationRow]


async def store_signal(
    connection: Connection,
    signal: str,
    status: str,
    detail: str,
    advice: Sequence[Mapping[str, Any]],
    judged: Sequence[str] | None = None,
) -> None:
    """Keep what a signal said and its advice (keys as the columns of `recommendations`); judged None: every target."""
    has_judged = status in ("ok", "warn")
    async with transaction(connection):
        await connection.execute(load("signal_store"), signal, status, detail)
        stands = [one["target"] for one in advice]
        await connection.execute(load("recommendation_gone"), signal, stands, judged if has_judged else [])
        if has_judged:
            await connection.execute(load("recommendation_propose"), signal, json.dumps(list(advice)))


class Growth(NamedTuple):
    """How much counters grew since the run that they are compared with."""

    seconds: float
    """Below SHORTEST_S no rate follows."""
    of: Mapping[str, float]
    """Of counters that were there both times and did not fall; one that is missing here is unknown, not 0."""

    @property
    def is_short(self) -> bool:
        """Whether too little time passed for a rate."""
        return self.seconds < SHORTEST_S


async def note_counters(
    connection: Connection, source: str, epoch: str, counters: Mapping[str, float]
) -> Growth | None:
    """Keep counters for the next run; None when there is nothing to compare them with.

    `epoch` changes when the source begins anew, so that a restart is never taken for a fall. Within SHORTEST_S the
    older counters are kept: the run after a run by hand still has something to compare with.
    """
    async with transaction(connection):
        row = await connection.fetchrow(load("counters_before"), source, epoch)
        if row is None or not 0 < row["seconds"] < SHORTEST_S:
            await connection.execute(load("counters_store"), source, epoch, json.dumps(dict(counters)))
    if row is None or row["seconds"] <= 0:
        return None
    before: dict[str, float] = json.loads(row["counters"])
    grown = {name: value - before[name] for name, value in counters.items() if value >= before.get(name, math.inf)}
    return Growth(row["seconds"], grown)


async def forget_recommendations(connection: Connection) -> None:
    """Delete those that have long been settled."""
    await connection.execute(load("recommendation_forget"))


async def read_performance(connection: Connection, limit: int = SHOWN) -> PerformanceRow:
    """Return what was said last, in one snapshot. Begins a transaction of its own."""
    async with transaction(connection, "REPEATABLE READ READ ONLY"):
        signals = await connection.fetch(load("signal_list"))
        rows = await connection.fetch(load("recommendation_list"), limit)
    return {
        "collected_at": max((row["collected_at"] for row in signals), default=None),
        "signals": [SignalRow(signal=r["signal"], status=r["status"], detail=r["detail"]) for r in signals],
        "recommendations": [_recommendation(row) for row in rows],
    }


def _recommendation(row: Any) -> RecommendationRow:
    found: dict[str, Any] = dict(row)
    return RecommendationRow(**{**found, "evidence": json.loads(row["evidence"])})  # pyright: ignore[reportArgumentType]
