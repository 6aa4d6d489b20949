"""What PerformanceOptimizer has to say: its signals and what it recommends.

In: the exporter. Out: /metrics/performance. Promise: rows of one snapshot; a signal without enough data says so.
"""

from datetime import datetime
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from database.connect import AWAY, acquire
from database.performance import SHOWN, read_performance
from exporter.service import Exporter


class SignalAnswer(BaseModel):
    """What a signal said last."""

    signal: str
    status: str
    """ok, warn, insufficient_data, error."""
    detail: str


class RecommendationAnswer(BaseModel):
    """One recommendation."""

    id: int
    kind: str
    target: str
    current: str | None
    """Null: not known."""
    proposed: str
    expected_effect: str
    evidence: dict[str, Any]
    confidence: str
    """low, medium, high."""
    state: str
    """proposed, applied, undone, superseded, gone."""
    first_seen: datetime
    last_seen: datetime


class Performance(BaseModel):
    """All of it."""

    collected_at: datetime | None
    """Null: never yet."""
    signals: list[SignalAnswer]
    recommendations: list[RecommendationAnswer]


class PerformanceUnavailable(BaseModel):
    """Why there is no answer."""

    error: str


async def _read(exporter: Exporter, limit: int) -> Any:
    async with acquire(exporter.pool) as connection:
        return await read_performance(connection, limit)


def add_performance_routes(app: FastAPI, exporter: Exporter) -> None:
    """Add the route."""

    @app.get("/metrics/performance", response_model=Performance, responses={503: {"model": PerformanceUnavailable}})
    async def performance(
        limit: Annotated[int, Query(ge=0, le=SHOWN, description="recommendations at most")] = SHOWN,
    ) -> Any:
        try:
            return Performance.model_validate(await exporter.in_time(_read(exporter, limit)))
        except AWAY as error:
            return JSONResponse({"error": f"the database does not answer: {type(error).__name__}"}, 503)

    _ = performance
