"""History on the web: /api/rollups over time, /api/producers with each producer's account.

In: the exporter. Out: JSON. Promise: every parameter has bounds; a value that is not known is null.
"""

import json
import time
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from contract.series import MAX_KEY_BYTES, MAX_NAME_BYTES
from database.connect import AWAY, acquire
from database.queries import load
from exporter.answers import AWAY_ANSWER, BAD_ANSWERS, away
from exporter.history import answer
from exporter.question import INSTANT, MAX_QUANTILES, QUANTILES, STEP, BadQuestion, read_question
from exporter.service import Exporter

MAX_PRODUCERS: Final = 10_000


class ProducerRow(BaseModel):
    """One producer's account of its events."""

    producer_no: int
    producer_id: str
    service: str
    shard: int
    state: str
    """live, ended, unclean."""
    accepted: int
    committed: int
    dropped: dict[str, int]
    quarantined: int
    lost: int
    in_gaps: int
    duplicates: int
    displaced: int
    top_seq: int
    first_seen_s: float
    last_seen_s: float
    clock_offset_us: int
    clock_uncertainty_us: int


class Producers(BaseModel):
    """Producers, newest heard first."""

    producers: list[ProducerRow]


class Point(BaseModel):
    """One window that has data."""

    start_s: int
    n: int
    sum: float | None
    mean: float | None
    min: float | None
    max: float | None
    last: float | None
    quantiles: dict[str, float | None]
    status: str
    """complete; partial: some producers may still have something to say; restated: changed after it was rolled up."""
    missing: list[str]
    """`service/number` of the producers that a partial window waits for."""
    revision: int


class Rollups(BaseModel):
    """Windows of everything that matched, merged."""

    metric: str
    match: dict[str, str]
    series: int
    from_s: int
    to_s: int
    step_s: int
    level: str
    server: str
    """`primary`, or the replica that answered."""
    heartbeat_age_s: float | None
    """Of a replica: how long ago, by its clock, aggregators wrote the newest heartbeat that it has."""
    points: list[Point]


Instant = Annotated[
    str,
    Query(
        max_length=40, pattern=INSTANT, description="Unix seconds, ISO 8601, `now`, or `-1h` before now (s, m, h, d)"
    ),
]
Metric = Annotated[str, Query(min_length=1, max_length=MAX_NAME_BYTES, pattern="^[a-zA-Z_:][a-zA-Z0-9_:]*$")]
Match = Annotated[str, Query(max_length=MAX_KEY_BYTES, description='`{label="value",…}`, labels sorted by name')]
Step = Annotated[str, Query(max_length=10, pattern=STEP, description="a multiple of 10 s: 10s, 5m, 1h, 1d")]
Quantiles = Annotated[
    list[Annotated[str, Query(max_length=200, pattern=QUANTILES)]],
    Query(max_length=MAX_QUANTILES, description="0 to 1; several, or one text with commas"),
]


def add_history_routes(app: FastAPI, exporter: Exporter) -> None:
    """Add the two routes."""

    @app.get("/api/producers", response_model=Producers, responses=AWAY_ANSWER, summary="Each producer's account")
    async def producers(limit: Annotated[int, Query(ge=1, le=MAX_PRODUCERS)] = MAX_PRODUCERS) -> Any:
        settings = exporter.settings
        try:
            async with acquire(exporter.pool) as connection:
                rows = await connection.fetch(load("exporter_producers"), settings.streamgauge_live_s, limit)
        except AWAY as error:
            return away(error)
        return {"producers": [{**row, "dropped": json.loads(row["dropped"])} for row in rows]}

    @app.get("/api/rollups", response_model=Rollups, responses=AWAY_ANSWER | BAD_ANSWERS, summary="A metric over time")
    async def rollups(
        metric: Metric,
        match: Match = "",
        since: Annotated[Instant, Query(alias="from")] = "",
        until: Annotated[Instant, Query(alias="to")] = "",
        step: Step = "1m",
        quantile: Quantiles = [],  # noqa: B006
    ) -> Any:
        quantiles = [text for every in quantile for text in every.split(",")]
        try:
            question = read_question(metric, match, since, until, step, quantiles, time.time())
            return await answer(exporter.history, question)
        except BadQuestion as error:
            return JSONResponse({"error": str(error), "parameter": error.parameter}, error.status)
        except AWAY as error:
            return away(error)

    _ = producers, rollups
