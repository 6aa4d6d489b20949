"""Health: what a person or a load balancer wants to know of the pipeline, in one JSON object.

In: probes of PostgreSQL and Redis, heartbeats of aggregators. Out: status ok, degraded or down, and why.
Promise: probes run side by side under one deadline each; an answer comes, whatever is away.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Mapping
from typing import Any, Final

from database.connect import AWAY, acquire
from database.queries import load
from exporter.ledger import AGGREGATOR_CURRENT_S
from exporter.service import Exporter
from exporter.snapshot import Unavailable
from exporter.streams import AWAY as REDIS_AWAY

Component = dict[str, Any]
BAD: Final = (*AWAY, *REDIS_AWAY, Unavailable)


async def report(exporter: Exporter) -> tuple[dict[str, Any], int]:
    """Return the health of everything, and the HTTP status: 200 for ok and degraded, 503 for down."""
    deadline_s = exporter.settings.streamgauge_probe_deadline_s
    database, redis, aggregators = await asyncio.gather(
        _probe(_database(exporter), deadline_s),
        _probe(exporter.streams.ping(), deadline_s),
        _probe(_aggregators(exporter), deadline_s),
    )
    components: dict[str, Component] = {"database": database, "redis": redis, "aggregators": aggregators}
    status = judge(components)
    newest = exporter.refresher.newest
    answer = {
        "status": status,
        "reasons": [f"{name}: {one['reason']}" for name, one in components.items() if one.get("reason")],
        "components": components,
        "snapshot_age_s": exporter.refresher.age_s(),
        "series": None if newest is None else newest.shown,
        "services": [] if newest is None else [service._asdict() for service in newest.services],
        "in_flight": None if newest is None else newest.in_flight,
    }
    return answer, 503 if status == "down" else 200


def judge(components: Mapping[str, Component]) -> str:
    """Down without a database to show; degraded while anything else is not as it should be."""
    if components["database"]["status"] != "ok":
        return "down"
    return "ok" if all(one["status"] == "ok" for one in components.values()) else "degraded"


async def _probe(probe: Awaitable[Component | None], deadline_s: float) -> Component:
    began = time.perf_counter()
    try:
        details = await asyncio.wait_for(probe, deadline_s) or {}
    except BAD as error:
        reason = f"no answer within {deadline_s:g} s" if isinstance(error, TimeoutError) else _describe(error)
        details = {"status": "down", "reason": reason}
    return {"status": "ok", **details, "latency_ms": round((time.perf_counter() - began) * 1000, 2)}


def _describe(error: BaseException) -> str:
    return str(error) if isinstance(error, Unavailable) else f"does not answer: {type(error).__name__}"


async def _database(exporter: Exporter) -> Component:
    view = await exporter.refresher.fresh()
    return {"identity": view.head.identity}


async def _aggregators(exporter: Exporter) -> Component:
    async with acquire(exporter.pool) as connection:
        rows = await connection.fetch(load("exporter_aggregators"))
    members = [{"consumer": r["consumer"], "heartbeat_age_s": r["age_s"], **json.loads(r["facts"])} for r in rows]
    current = [row for row in rows if row["age_s"] <= AGGREGATOR_CURRENT_S]
    details: Component = {"current": len(current), "members": members}
    if not current:
        details |= {"status": "down", "reason": "no aggregator has a current heartbeat: nothing is committed"}
    elif len(current) < len(rows):
        details |= {"status": "degraded", "reason": f"{len(rows) - len(current)} without a current heartbeat"}
    return details
