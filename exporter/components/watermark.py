"""Watermark: up to which window all producers that live have been committed, and how long ago that was.

In: the ledger. Out: one component. Promise: it tells the whole way from producers to PostgreSQL: one that stands still
says that nothing arrives or nothing is committed; without producers there is none, which is no fault.
"""

from collections.abc import Mapping
from typing import Any, Final

from database.connect import acquire
from database.jobs import AGGREGATOR_CURRENT_S
from database.queries import load
from exporter.components.component import Component, Probe, Severity, Sources, Status
from exporter.components.producers import NEWS_S

STALLED_S: Final = 60.0
"""Windows are 10 s, and a producer without events beats every 5 s: 20 s are usual."""
NAME: Final = "watermark"


def probes(sources: Sources) -> list[Probe]:
    """Return one probe."""

    async def ask() -> list[Component]:
        live_s = sources.settings.streamgauge_live_s
        async with acquire(sources.pool) as connection:
            row = await connection.fetchrow(load("monitor_watermark"), live_s, NEWS_S)
        assert row is not None
        return [judge(dict(row))]

    return [Probe(NAME, NAME, Severity.WARNING, ask)]


def judge(row: Mapping[str, Any]) -> Component:
    """Say how far it is behind."""
    facts = {name: row[name] for name in ("watermark_s", "age_s", "live")}
    if not row["live"]:
        beat_s = row["aggregator_age_s"]
        if beat_s is None or beat_s > AGGREGATOR_CURRENT_S:
            return Component(NAME, Status.UNKNOWN, "no aggregator is there to hear of producers", facts)
        return Component(NAME, Status.OK, "no producer lives", facts)
    if row["age_s"] > STALLED_S:
        said = f"no window has closed for {row['age_s']:.0f} s: nothing arrives, or nothing is committed"
        return Component(NAME, Status.DEGRADED, said, facts)
    return Component(NAME, Status.OK, "", facts)
