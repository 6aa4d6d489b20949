"""What DatabaseOptimizer has to say: its state, in whole and in short.

In: the exporter. Out: /api/monitoring/database-optimization/status and /metrics/database.
Promise: rows of one snapshot within a probe's deadline; what nobody has measured is null, never 0; no address of a
target.
"""

from datetime import datetime
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from database.connect import AWAY
from database.optimization_status import SHOWN_ACTIONS, SHOWN_FINDINGS, read_status
from exporter.service import Exporter


class LastRun(BaseModel):
    """The newest run, also one that was skipped."""

    started: datetime
    finished: datetime | None
    """Null while it is under way."""
    duration_ms: float | None
    status: str
    skipped_reason: str | None
    statement_ms: float
    """Time its own statements took."""
    database_time_share: float | None
    """Of the time since the run before; null for the first."""
    connections: int
    """Most it had open at once."""


class CheckResult(BaseModel):
    """The newest answer of one check on one target."""

    target: str
    id: str
    title: str
    status: str
    """ok, warn, critical, error, insufficient_data."""
    at: datetime
    duration_ms: float
    findings: int
    """Found by its last look, also what is not published yet."""
    error: str | None
    """permission, timeout, unsupported, unreachable, fault."""
    detail: str | None


class FindingRow(BaseModel):
    """A finding that is open, or pending until the next run sees it too."""

    fingerprint: str
    target: str
    check: str
    object: str
    severity: str
    evidence: dict[str, Any]
    recommendation: str
    sql: str | None
    rollback: str | None
    tier: str
    state: str
    first_seen: datetime
    last_seen: datetime
    runs_seen: int
    acted_at: datetime | None
    """Since it was last seen its statement was executed; null: it was not."""


class AppliedAction(BaseModel):
    """A change that was made, or that failed."""

    at: datetime
    finished: datetime | None
    target: str
    check: str
    fingerprint: str
    tier: str
    sql: str
    rollback: str | None
    """Null: there is nothing to undo."""
    before: dict[str, Any]
    after: dict[str, Any] | None
    error: str | None


class TargetRow(BaseModel):
    """A database that is looked at."""

    target: str
    seen_at: datetime
    stats_age_days: float | None
    observed_since: datetime
    version: str | None
    has_pg_stat_statements: bool | None
    has_hypopg: bool | None
    nodes_seen: list[str]
    nodes_unseen: list[str]
    error: str | None


class Status(BaseModel):
    """All of it."""

    last_run: LastRun | None
    next_run: datetime | None
    checks: list[CheckResult]
    findings: list[FindingRow]
    applied_actions: list[AppliedAction]
    targets: list[TargetRow]
    stats_age_days: float | None
    """Of the monitoring database."""
    nodes_seen: list[str]
    """`target/node` of every server that answered."""


class Summary(BaseModel):
    """In short."""

    status: str
    """critical, warn; error when a check could not look (but for a lack that it names); ok; insufficient_data when no
    check has answered."""
    last_run: LastRun | None
    next_run: datetime | None
    checks: dict[str, int]
    """How many gave which answer."""
    findings: dict[str, int]
    """Open ones by severity."""
    open: list[FindingRow]
    """The worst of them."""


class Unavailable(BaseModel):
    """Why there is no answer."""

    error: str


UNAVAILABLE: dict[int | str, dict[str, Any]] = {503: {"model": Unavailable}}
SEVERITIES = ("critical", "warn", "info")
SHOWN_IN_SHORT = 10


def add_database_routes(app: FastAPI, exporter: Exporter) -> None:
    """Add the two routes."""

    @app.get("/api/monitoring/database-optimization/status", response_model=Status, responses=UNAVAILABLE)
    async def status(
        findings: Annotated[int, Query(ge=0, le=SHOWN_FINDINGS, description="findings at most")] = SHOWN_FINDINGS,
        actions: Annotated[int, Query(ge=0, le=SHOWN_ACTIONS, description="changes at most")] = SHOWN_ACTIONS,
    ) -> Any:
        try:
            return Status.model_validate(await exporter.in_time(read_status(exporter.pool, findings, actions)))
        except AWAY as error:
            return _unavailable(error)

    @app.get("/metrics/database", response_model=Summary, responses=UNAVAILABLE)
    async def summary() -> Any:
        try:
            found = await exporter.in_time(read_status(exporter.pool, SHOWN_FINDINGS, 0))
            return summarize(Status.model_validate(found))
        except AWAY as error:
            return _unavailable(error)

    _ = status, summary


def summarize(status: Status) -> Summary:
    """Return counts and the worst."""
    answers: dict[str, int] = {}
    for check in status.checks:
        answers[check.status] = answers.get(check.status, 0) + 1
    opened = [finding for finding in status.findings if finding.state == "open"]
    # A check that lacks an extension says so for ever: it is counted, and hides neither ok nor a failure.
    grades = {"unsupported" if check.error == "unsupported" else check.status for check in status.checks}
    order = {"critical": "critical", "warn": "warn", "error": "error", "ok": "ok", "unsupported": "error"}
    return Summary(
        status=next((word for grade, word in order.items() if grade in grades), "insufficient_data"),
        last_run=status.last_run,
        next_run=status.next_run,
        checks=answers,
        findings={name: sum(finding.severity == name for finding in opened) for name in SEVERITIES},
        open=opened[:SHOWN_IN_SHORT],
    )


def _unavailable(error: BaseException) -> JSONResponse:
    return JSONResponse({"error": f"the database does not answer: {type(error).__name__}"}, 503)
