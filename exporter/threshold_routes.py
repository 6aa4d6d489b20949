"""Thresholds on the web: each beside what is measured, its changes; a pin and a revert.

In: the exporter. Out: /api/thresholds, /api/thresholds/{id}/history, POST /api/thresholds/{id}/pin and /revert.
Promise: nothing is changed without the bearer token, and every change names who asked for it.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from database import thresholds
from database.connect import AWAY, acquire
from database.thresholds import CrossedLimits, NoSuchThreshold
from exporter.changing import REFUSALS, refuse_change
from exporter.service import Exporter

MAX_CHANGES: Final = 1000
LARGEST: Final = 1e15


class ThresholdNow(BaseModel):
    """One threshold in the current bucket."""

    id: int
    metric: str
    route: str
    """Empty where the metric is not divided by route."""
    side: Literal["high", "low"]
    bucket: int
    """Hour of the day, UTC, and 24 more on Saturday and Sunday."""
    warn: float
    critical: float
    actual: float | None
    """Over the newest 5 minutes; null: not known."""
    severity: Literal["warn", "critical"] | None
    method: str
    """static, global, seasonal, manual."""
    n: int
    is_pinned: bool
    frozen: str | None
    """Why the newest recalibration changed nothing."""
    calibrated_at: datetime | None
    set_at: datetime


class ThresholdsNow(BaseModel):
    """All thresholds."""

    thresholds: list[ThresholdNow]


class Change(BaseModel):
    """One change of one bucket."""

    change_id: int
    threshold_id: int
    metric: str
    route: str
    side: str
    bucket: int
    at: datetime
    old_warn: float | None
    old_critical: float | None
    new_warn: float
    new_critical: float
    method: str
    n: int
    dropped: int
    mad: float | None
    reason: str
    actor: str


class Changes(BaseModel):
    """Changes, newest first."""

    changes: list[Change]


class Pin(BaseModel):
    """Limits to hold."""

    warn: float = Field(ge=0, le=LARGEST, allow_inf_nan=False)
    critical: float = Field(ge=0, le=LARGEST, allow_inf_nan=False)
    bucket: int | None = Field(default=None, ge=0, le=47)
    """None: all buckets."""


class Pinned(BaseModel):
    """How many buckets were changed."""

    id: int
    buckets: int


class ThresholdProblem(BaseModel):
    """Why there is no answer."""

    error: str


ThresholdId = Annotated[int, Path(ge=1, le=2**31 - 1)]
AWAY_ANSWER: Final[dict[int | str, dict[str, Any]]] = {503: {"model": ThresholdProblem}}
UNKNOWN_ANSWER: Final[dict[int | str, dict[str, Any]]] = {404: {"model": ThresholdProblem}}
CROSSED_ANSWER: Final[dict[int | str, dict[str, Any]]] = {400: {"model": ThresholdProblem}}
CHANGING: Final[dict[int | str, dict[str, Any]]] = {**AWAY_ANSWER, **UNKNOWN_ANSWER, **REFUSALS}


def _away(error: BaseException) -> JSONResponse:
    return JSONResponse({"error": f"the database does not answer: {type(error).__name__}"}, 503)


def _who(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def add_threshold_routes(app: FastAPI, exporter: Exporter) -> None:
    """Add the routes of this module."""
    _add_reading(app, exporter)
    _add_changing(app, exporter)


async def _list(exporter: Exporter) -> Any:
    async with acquire(exporter.pool) as connection:
        return await thresholds.list_thresholds(connection, datetime.now(UTC))


async def _history(exporter: Exporter, threshold_id: int, limit: int) -> Any:
    async with acquire(exporter.pool) as connection:
        return await thresholds.changes(connection, threshold_id, limit)


def _add_reading(app: FastAPI, exporter: Exporter) -> None:
    @app.get("/api/thresholds", response_model=ThresholdsNow, responses=AWAY_ANSWER)
    async def list_thresholds() -> Any:
        try:
            return {"thresholds": await exporter.in_time(_list(exporter))}
        except AWAY as error:
            return _away(error)

    @app.get("/api/thresholds/{threshold_id}/history", response_model=Changes, responses=AWAY_ANSWER)
    async def threshold_history(
        threshold_id: ThresholdId, limit: Annotated[int, Query(ge=1, le=MAX_CHANGES)] = 100
    ) -> Any:
        try:
            return {"changes": await exporter.in_time(_history(exporter, threshold_id, limit))}
        except AWAY as error:
            return _away(error)

    _ = list_thresholds, threshold_history


def _add_changing(app: FastAPI, exporter: Exporter) -> None:
    @app.post("/api/thresholds/{threshold_id}/pin", response_model=Pinned, responses=CHANGING | CROSSED_ANSWER)
    async def pin_threshold(threshold_id: ThresholdId, wanted: Pin, request: Request) -> Any:
        refusal = refuse_change(exporter.settings, request.headers.get("authorization", ""))
        if refusal is not None:
            return refusal
        try:
            async with acquire(exporter.pool) as connection:
                await thresholds.pin(
                    connection, threshold_id, wanted.warn, wanted.critical, _who(request), wanted.bucket
                )
        except NoSuchThreshold as error:
            return JSONResponse({"error": str(error)}, 404)
        except CrossedLimits as error:
            return JSONResponse({"error": str(error)}, 400)
        except AWAY as error:
            return _away(error)
        return {"id": threshold_id, "buckets": thresholds.BUCKETS if wanted.bucket is None else 1}

    @app.post("/api/thresholds/{threshold_id}/revert", response_model=Pinned, responses=CHANGING)
    async def revert_threshold(
        threshold_id: ThresholdId, request: Request, bucket: Annotated[int | None, Query(ge=0, le=47)] = None
    ) -> Any:
        refusal = refuse_change(exporter.settings, request.headers.get("authorization", ""))
        if refusal is not None:
            return refusal
        try:
            async with acquire(exporter.pool) as connection:
                return {
                    "id": threshold_id,
                    "buckets": await thresholds.revert(connection, threshold_id, _who(request), bucket),
                }
        except NoSuchThreshold as error:
            return JSONResponse({"error": str(error)}, 404)
        except AWAY as error:
            return _away(error)

    _ = pin_threshold, revert_threshold
