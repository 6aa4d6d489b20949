"""Aggregators: those that said lately that they live.

In: their heartbeats in PostgreSQL. Out: one component with all of them as its members.
"""

import json
from typing import Any

from database.connect import acquire
from database.jobs import AGGREGATOR_CURRENT_S
from database.queries import load
from exporter.components.component import Component, Probe, Severity, Sources, Status

NOT_SHOWN = frozenset({"commit_s", "commit_batches", "commit_rows", "commit_age_s"})
"""Dozens of numbers each, for those who judge them (the signal `writer_batch`)."""
NONE = "no aggregator has a current heartbeat: nothing is committed"


def probes(sources: Sources) -> list[Probe]:
    """Return one probe: the database knows them all."""

    async def ask() -> list[Component]:
        async with acquire(sources.pool) as connection:
            rows = await connection.fetch(load("exporter_aggregators"))
        return judge([(row["consumer"], row["age_s"], json.loads(row["facts"])) for row in rows])

    return [Probe("aggregators", "aggregators", Severity.WARNING, ask)]


def judge(members: list[tuple[str, float, dict[str, Any]]]) -> list[Component]:
    """Say how they are together."""
    current = sum(age_s <= AGGREGATOR_CURRENT_S for _, age_s, _ in members)
    shown = [
        {"consumer": name, "heartbeat_age_s": age_s} | {key: told[key] for key in told if key not in NOT_SHOWN}
        for name, age_s, told in members
    ]
    facts = {"current": current, "members": shown}
    if not current:
        together = Component("aggregators", Status.DOWN, NONE, facts)
    elif current < len(members):
        said = f"{len(members) - current} of {len(members)} without a current heartbeat"
        together = Component("aggregators", Status.DEGRADED, said, facts)
    else:
        together = Component("aggregators", Status.OK, "", facts)
    return [together]
