"""PostgreSQL: the primary takes writes; each replica has a heartbeat row nearly as young as the primary's.

A replica's lag is the difference of two times that the primary's clock wrote: it needs no clock of the replica, and
unlike `pg_stat_replication` and replayed positions it stays right when the link is dead or the primary is idle.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from database.connect import acquire
from database.jobs import AGGREGATOR_CURRENT_S
from database.queries import load
from exporter.components.component import Component, Probe, Severity, Sources, Status


def probes(sources: Sources) -> list[Probe]:
    """Return one probe for the primary and one for each replica that is named."""

    async def primary() -> list[Component]:
        return [await _primary(sources)]

    found = [Probe("database", "database", Severity.CRITICAL, primary, Status.DOWN)]
    for name in sources.replicas:

        async def replica(name: str = name) -> list[Component]:
            return [await _replica(sources, name)]

        found.append(Probe(f"replica {name}", "replicas", Severity.WARNING, replica, Status.DOWN))
    return found


async def _primary(sources: Sources) -> Component:
    async with acquire(sources.pool) as connection:
        row = await connection.fetchrow(load("monitor_primary"))
        assert row is not None
    facts = {"role": "primary", "version": row["version"], "heartbeat_age_s": row["beat_age_s"]}
    return Component("database", Status.OK, facts=facts)


async def _replica(sources: Sources, name: str) -> Component:
    async with acquire(sources.replicas[name]) as connection:
        row = await connection.fetchrow(load("monitor_replica"))
    # Read second: what the primary wrote in between makes the lag look longer, never shorter.
    async with acquire(sources.pool) as connection:
        primary = await connection.fetchrow(load("monitor_primary"))
    assert row is not None
    assert primary is not None
    return judge_replica(name, dict(row), dict(primary), sources.settings.streamgauge_replica_lag_s)


def judge_replica(name: str, row: Mapping[str, Any], primary: Mapping[str, Any], limit_s: float) -> Component:
    """Compare a replica's heartbeat with the primary's."""
    lag_s = _lag_s(row["beat_at"], primary["beat_at"])
    is_beating = primary["beat_age_s"] is not None and primary["beat_age_s"] <= AGGREGATOR_CURRENT_S
    facts = {"role": "standby" if row["is_standby"] else "primary", "version": row["version"]}
    facts |= {"lag_s": lag_s, "is_lag_known": lag_s is not None, "heartbeat_age_s": row["beat_age_s"]}
    name = f"replica {name}"
    if not row["is_standby"]:
        return Component(name, Status.DOWN, "is no standby: it takes writes of its own", facts)
    if lag_s is not None and lag_s > limit_s:
        return Component(name, Status.DEGRADED, f"is {lag_s:.1f} s behind; {limit_s:g} s are allowed", facts)
    if lag_s is None or not is_beating:
        facts |= {"lag_s": None, "is_lag_known": False}
        said = "lag is unknown: no aggregator touches the heartbeat of the primary"
        return Component(name, Status.UNKNOWN, said, facts)
    return Component(name, Status.OK, "", facts)


def _lag_s(replica: datetime | None, primary: datetime | None) -> float | None:
    if primary is None or replica is None:
        return None
    return max(0.0, (primary - replica).total_seconds())
