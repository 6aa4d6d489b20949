"""The schedule on the web: jobs with their last and next run, their history, and a run asked for now.

In: the exporter. Out: /api/monitoring/jobs, /api/monitoring/jobs/{job}/history, POST /api/monitoring/jobs/{job}/run.
Promise: nothing is run here: the request is written down and an aggregator takes it up within a second or two.
"""

from datetime import datetime
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from database import jobs
from database.connect import AWAY
from database.jobs import NoAggregator, NoSuchJob
from exporter.changing import REFUSALS, refuse_change
from exporter.service import Exporter

MAX_RUNS = 1000


class LastRun(BaseModel):
    """The newest run of a job that began or was skipped."""

    scheduled_for: datetime
    started_at: datetime | None
    finished_at: datetime | None
    """Null while it is under way."""
    outcome: str | None
    """done, failed, insufficient_data, skipped, timed_out; null while it is under way."""
    detail: str | None
    duration_s: float | None
    consumer: str | None
    attempt: int
    trigger: str
    """schedule, cli, api."""


class JobRow(BaseModel):
    """A job in the schedule."""

    job: str
    title: str
    every_s: float
    judges_data: bool
    last: LastRun | None
    next_run: datetime
    last_success_at: datetime | None
    is_overdue: bool


class Jobs(BaseModel):
    """All jobs."""

    jobs: list[JobRow]


class Attempt(BaseModel):
    """One attempt at a run that ended."""

    attempt: int
    consumer: str | None
    started_at: datetime
    ended_at: datetime | None
    """Of a crash: its last beat."""
    ended: str
    """An outcome, `crashed` or `handed_back`."""


class HistoryRow(LastRun):
    """One run with all its attempts that ended."""

    job: str
    requested_by: str | None
    attempts: list[Attempt]
    facts: dict[str, Any] | None


class History(BaseModel):
    """Runs of a job, newest first."""

    job: str
    runs: list[HistoryRow]


class Requested(BaseModel):
    """A run that was asked for."""

    job: str
    scheduled_for: datetime


class Problem(BaseModel):
    """Why there is no answer."""

    error: str


JobName = Annotated[str, Path(pattern="^[a-z][a-z0-9_]{0,62}$")]
AWAY_ANSWER: dict[int | str, dict[str, Any]] = {503: {"model": Problem}}
UNKNOWN_ANSWER: dict[int | str, dict[str, Any]] = {404: {"model": Problem}}


def _away(error: BaseException) -> JSONResponse:
    return JSONResponse({"error": f"the database does not answer: {type(error).__name__}"}, 503)


def add_job_routes(app: FastAPI, exporter: Exporter) -> None:
    """Add the routes of this module."""

    @app.get("/api/monitoring/jobs", response_model=Jobs, responses=AWAY_ANSWER)
    async def list_jobs() -> Any:
        try:
            return {"jobs": await exporter.in_time(jobs.list_jobs(exporter.pool))}
        except AWAY as error:
            return _away(error)

    @app.get("/api/monitoring/jobs/{job}/history", response_model=History, responses={**AWAY_ANSWER, **UNKNOWN_ANSWER})
    async def history(job: JobName, limit: Annotated[int, Query(ge=1, le=MAX_RUNS)] = 50) -> Any:
        try:
            runs = await exporter.in_time(jobs.history(exporter.pool, job, limit=limit))
            if not runs and job not in {row["job"] for row in await jobs.list_jobs(exporter.pool)}:
                return JSONResponse({"error": f"there is no job {job}"}, 404)
        except AWAY as error:
            return _away(error)
        return {"job": job, "runs": runs}

    @app.post(
        "/api/monitoring/jobs/{job}/run",
        status_code=202,
        response_model=Requested,
        responses={**AWAY_ANSWER, **UNKNOWN_ANSWER, **REFUSALS},
    )
    async def run(job: JobName, request: Request) -> Any:
        refusal = refuse_change(exporter.settings, request.headers.get("authorization", ""))
        if refusal is not None:
            return refusal
        who = request.client.host if request.client else "unknown"
        try:
            return {"job": job, "scheduled_for": await jobs.request(exporter.pool, job, "api", who)}
        except NoSuchJob as error:
            return JSONResponse({"error": str(error)}, 404)
        except NoAggregator as error:
            return JSONResponse({"error": str(error)}, 503)
        except AWAY as error:
            return _away(error)

    _ = list_jobs, history, run
