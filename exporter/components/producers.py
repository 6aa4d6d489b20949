"""Producers: who lives, who left without a word, and what of their sequences is missing.

In: the ledger in PostgreSQL, which counts what producers sealed against what was committed: this finds what Redis
lost without a trace. Out: one component. What is older than NEWS_S is told, but is no reason any more.
"""

from collections.abc import Mapping
from typing import Any, Final

from database.connect import acquire
from database.queries import load
from exporter.components.component import Component, Probe, Severity, Sources, Status

NEWS_S: Final = 900.0
_SHOWN: Final = (
    "live",
    "ended",
    "unclean",
    "open_gaps",
    "open_events",
    "lost_events",
    "newest_age_s",
    "ever_committed_events",
)


def probes(sources: Sources) -> list[Probe]:
    """Return one probe."""

    async def ask() -> list[Component]:
        async with acquire(sources.pool) as connection:
            row = await connection.fetchrow(load("monitor_producers"), sources.settings.streamgauge_live_s, NEWS_S)
        assert row is not None
        return [judge(dict(row))]

    return [Probe("producers", "producers", Severity.WARNING, ask)]


def judge(row: Mapping[str, Any]) -> Component:
    """Say how the producers are together."""
    facts = {name: row[name] for name in _SHOWN} | {"newly_lost_events": row["newly_lost_events"]}
    reasons: list[str] = []
    if row["newly_lost_events"]:
        reasons.append(f"{row['newly_lost_events']} events were lost in the last {NEWS_S / 60:g} min")
    if row["open_gaps"]:
        reasons.append(f"{row['open_gaps']} open gaps with {row['open_events']} events")
    if row["newly_unclean"]:
        reasons.append(f"{row['newly_unclean']} ended without a farewell in the last {NEWS_S / 60:g} min")
    if reasons:
        return Component("producers", Status.DEGRADED, "; ".join(reasons), facts)
    said = "" if row["newest_age_s"] is not None else "none was heard of yet"
    return Component("producers", Status.OK, said, facts)
