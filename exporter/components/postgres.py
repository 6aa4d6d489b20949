"""PostgreSQL: the primary takes writes, its replication slots are used, each replica receives and keeps up.

A replica has a heartbeat row nearly as young as the primary's. Its lag is the difference of two times that the
primary's clock wrote: it needs no clock of the replica, and unlike `pg_stat_replication` and replayed positions it
stays right when the link is dead or the primary is idle.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from database.connect import acquire
from database.jobs import AGGREGATOR_CURRENT_S
from database.queries import load
from exporter.components.component import Component, Probe, Severity, Sources, Status

SLOTS: Final = "replication slots"
LOSING: Final = ("unreserved", "lost")


def probes(sources: Sources) -> list[Probe]:
    """Return two probes for the primary and one for each replica that is named."""

    async def primary() -> list[Component]:
        return [await _primary(sources)]

    async def slots() -> list[Component]:
        async with acquire(sources.pool) as connection:
            return [judge_slots([dict(row) for row in await connection.fetch(load("check_r2_slots"))])]

    found = [
        Probe("database", "database", Severity.CRITICAL, primary, Status.DOWN),
        Probe(SLOTS, "slots", Severity.WARNING, slots),
    ]
    for name in sources.replicas:

        async def replica(name: str = name) -> list[Component]:
            return [await _replica(sources, name)]

        found.append(Probe(f"replica {name}", "replicas", Severity.WARNING, replica, Status.DOWN))
    return found


def judge_slots(rows: Sequence[Mapping[str, Any]]) -> Component:
    """Say whether somebody comes for the WAL that each slot keeps."""
    shown = ("name", "active", "wal_status", "kept_bytes")
    kept = [row["kept_bytes"] for row in rows if row["kept_bytes"] is not None]
    facts = {"kept_bytes": max(kept, default=None), "slots": [{key: row[key] for key in shown} for row in rows]}
    lost = [f"the WAL of {row['name']} is {row['wal_status']}" for row in rows if row["wal_status"] in LOSING]
    idle = [f"nobody uses {row['name']}" for row in rows if not row["active"] and row["wal_status"] not in LOSING]
    return Component(SLOTS, Status.DEGRADED if lost or idle else Status.OK, "; ".join(lost + idle), facts)


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
    facts |= {"receiver": row["receiver"]}
    name = f"replica {name}"
    if not row["is_standby"]:
        return Component(name, Status.DOWN, "is no standby: it takes writes of its own", facts)
    if lag_s is not None and lag_s > limit_s:
        return Component(name, Status.DEGRADED, f"is {lag_s:.1f} s behind; {limit_s:g} s are allowed", facts)
    if row["receiver"] is None:
        return Component(name, Status.DEGRADED, "receives nothing: no WAL receiver runs", facts)
    if lag_s is None or not is_beating:
        facts |= {"lag_s": None, "is_lag_known": False}
        said = "lag is unknown: no aggregator touches the heartbeat of the primary"
        return Component(name, Status.UNKNOWN, said, facts)
    return Component(name, Status.OK, "", facts)


def _lag_s(replica: datetime | None, primary: datetime | None) -> float | None:
    if primary is None or replica is None:
        return None
    return max(0.0, (primary - replica).total_seconds())
