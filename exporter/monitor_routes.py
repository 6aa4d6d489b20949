"""Health on the web: a summary by kind, and every component.

In: the exporter's monitor. Out: /metrics/health, /health/detailed.
Promise: 200 when ok or degraded, 503 when down, always with a reason; an answer comes within the probes' deadline.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from fastapi import FastAPI, Response
from pydantic import BaseModel

from exporter.components.component import RANK, Severity, Status
from exporter.ledger import with_waiting
from exporter.monitor import Reading, Report, worst
from exporter.service import Exporter
from exporter.snapshot import View

VALUES: Final = {
    "database": "heartbeat_age_s",
    "slots": "kept_bytes",
    "replicas": "lag_s",
    "streams": "lag",
    "aggregators": "current",
    "producers": "live",
    "watermark": "age_s",
    "snapshot": "age_s",
}
"""The fact that is a component's value, by kind."""


class ComponentRow(BaseModel):
    """One thing that was looked at."""

    name: str
    kind: str
    status: Status
    reason: str
    """Empty when there is nothing to say."""
    severity: Severity
    """critical: when it is down, all is; warning: when it is not ok, all is degraded; info: it changes nothing."""
    latency_ms: float
    since: datetime
    """Since when its status is what it is, as far as any exporter looked."""
    value: float | None
    """The fact that says the most, where a kind has one: a lag, an age, a count; null: unknown."""
    facts: dict[str, Any]
    """What was measured; null is unknown."""


class Detailed(BaseModel):
    """Every component."""

    status: Status
    at: datetime
    took_ms: float
    components: list[ComponentRow]


class KindRow(BaseModel):
    """All components of a kind: the worst speaks for them."""

    status: Status
    reason: str
    severity: Severity
    latency_ms: float
    since: datetime
    value: float | None
    components: int
    facts: dict[str, Any]


class ServiceRow(BaseModel):
    """Account of a service's events: accepted = committed + dropped + quarantined + lost + in_flight."""

    service: str
    accepted: int | None
    """With what waits, as of the newest snapshot and count of the streams; null: unknown."""
    committed: int
    quarantined: int
    lost: int
    in_flight: int | None
    """What waits in the streams, is missing yet, or is parked; null: unknown."""
    open: int
    """Of these, in open gaps."""
    parked: int
    """Of these, parked above all that was committed."""
    duplicates: int
    states: dict[str, int]
    last_seen_s: float | None
    dropped: dict[str, int]


class Health(BaseModel):
    """In short."""

    status: Status
    at: datetime
    took_ms: float
    reasons: list[str]
    """One line for each component that is not ok, the worst first."""
    components: dict[str, KindRow]
    """By kind."""
    snapshot_age_s: float | None
    series: int | None
    services: list[ServiceRow]
    in_flight: dict[str, int] | None
    """Events by service that wait in the streams; null: unknown."""


def add_monitor_routes(app: FastAPI, exporter: Exporter) -> None:
    """Add the two routes."""

    @app.get("/metrics/health", response_model=Health, responses={503: {"model": Health}}, summary="Health in short")
    async def health(response: Response) -> Any:
        report = await exporter.monitor.look()
        response.status_code = status_code(report)
        return summarize(report, exporter)

    @app.get(
        "/health/detailed", response_model=Detailed, responses={503: {"model": Detailed}}, summary="Every component"
    )
    async def detailed(response: Response) -> Any:
        report = await exporter.monitor.look()
        response.status_code = status_code(report)
        return {
            "status": report.status,
            "at": report.at,
            "took_ms": report.took_ms,
            "components": [row(one) for one in report.readings],
        }

    _ = health, detailed


def status_code(report: Report) -> int:
    """Return the HTTP status."""
    return 503 if report.status is Status.DOWN else 200


def row(one: Reading) -> dict[str, Any]:
    """Return a component as it is told."""
    return {
        "name": one.component.name,
        "kind": one.kind,
        "status": one.status,
        "reason": one.component.reason,
        "severity": one.severity,
        "latency_ms": one.latency_ms,
        "since": one.since,
        "value": one.component.facts.get(VALUES.get(one.kind, "")),
        "facts": dict(one.component.facts),
    }


def summarize(report: Report, exporter: Exporter) -> dict[str, Any]:
    """Return the health in short."""
    kinds: dict[str, list[Reading]] = {}
    for one in report.readings:
        kinds.setdefault(one.kind, []).append(one)
    newest = exporter.refresher.newest
    ill = sorted((one for one in report.readings if one.status is not Status.OK), key=_weight, reverse=True)
    return {
        "status": report.status,
        "at": report.at,
        "took_ms": report.took_ms,
        "reasons": [f"{one.component.name}: {one.component.reason}" for one in ill],
        "components": {kind: _kind_row(of_kind) for kind, of_kind in kinds.items()},
        "snapshot_age_s": exporter.refresher.age_s(),
        "series": None if newest is None else newest.shown,
        "services": [] if newest is None else _accounts(newest),
        "in_flight": None if newest is None else newest.in_flight,
    }


def _accounts(view: View) -> list[dict[str, Any]]:
    waiting = view.in_flight
    return [
        {**s._asdict(), "accepted": s.accepted_so_far(waiting), "in_flight": s.in_flight(waiting)}
        for s in with_waiting(view.services, waiting)
    ]


def _kind_row(of_kind: Sequence[Reading]) -> dict[str, Any]:
    told = row(worst(of_kind))
    if len(of_kind) > 1 and told["reason"]:
        told["reason"] = f"{told['name']}: {told['reason']}"
    return {**told, "components": len(of_kind)}


def _weight(one: Reading) -> tuple[bool, int]:
    return one.severity is Severity.CRITICAL, RANK[one.status]
