"""The page: one look at the exporter's `/` tells whether all is well.

In: the exporter. Out: routes: `/`, its files under /page/, /api/live (server-sent events), /api/heat.
Promise: what is shown was measured; the database is asked once for all who look, and not at all while nobody does.
"""

import asyncio
import time
from typing import Annotated, Any, Final

from fastapi import FastAPI, Path, Query, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel

from database.connect import AWAY
from exporter.answers import AWAY_ANSWER, BAD_ANSWERS
from exporter.page.guard import HEADERS
from exporter.page.heat import DEFAULT_RANGE
from exporter.page.live import Full, Live
from exporter.page.overview import Context, Overview
from exporter.page.pictures import Pictures
from exporter.page.render import STATIC, page, parts, picture, static
from exporter.question import BadQuestion
from exporter.service import Exporter
from exporter.snapshot import Unavailable

FRESH_S: Final = 1.0
"""A page that is opened may be painted from a context of this age."""
SELECTOR_MAX: Final = 4096


class Heat(BaseModel):
    """A picture of a histogram over time; without data it has `unit` and `html` only."""

    unit: str
    html: str
    from_s: int | None = None
    to_s: int | None = None
    step_s: int | None = None
    level: str | None = None
    series: int | None = None
    start_s: list[int] = []
    n: list[int | None] = []
    """Events per window; null: no data."""
    lines: dict[str, list[float | None]] = {}
    """Quantiles per window."""
    partial: list[bool] = []
    limits: list[float] = []
    cells: list[Any] = []


class Page:
    """What stands behind the routes."""

    def __init__(self, exporter: Exporter) -> None:
        self.exporter = exporter
        self.overview = Overview(exporter)
        self.live = Live(self.read_parts)
        self.pictures = Pictures(exporter)
        self._context: Context = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def context(self) -> Context:
        """Return a context of now; those who ask at the same time share one."""
        async with self._reading:
            if time.monotonic() - self._read_at >= FRESH_S:
                self._context = await self.overview.read()
                self._read_at = time.monotonic()
            return self._context

    async def read_parts(self) -> dict[str, str]:
        """Return the parts of now."""
        context = await self.context()
        return await asyncio.to_thread(parts, context)

    async def stop(self) -> None:
        """End the streams: the server waits for them before it closes anything else."""
        await self.live.stop()
        await self.pictures.aclose()


def add_page_routes(app: FastAPI, exporter: Exporter) -> Page:
    """Add the routes; the caller ends the streams with `page.stop` before it closes the exporter."""
    shown = Page(exporter)
    _add_page(app, shown)
    _add_live(app, shown)
    _add_heat(app, shown)
    return shown


def _add_page(app: FastAPI, shown: Page) -> None:
    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def index(
        series: Annotated[str, Query(max_length=SELECTOR_MAX, description="A histogram to draw")] = "",
        span: Annotated[str, Query(max_length=8, alias="range", description="15m, 1h, 6h, 24h or 7d")] = DEFAULT_RANGE,
    ) -> Response:
        context = await shown.context()
        context = {**context, "picked": await shown.pictures.pick(context["histograms"], series, span)}
        html = await asyncio.to_thread(lambda: page(context, parts(context)))
        return HTMLResponse(html, headers={**HEADERS, "Cache-Control": "no-store"})

    @app.get("/page/{name}", include_in_schema=False)
    async def file(name: Annotated[str, Path(max_length=64)]) -> Response:
        if name not in STATIC:
            return PlainTextResponse("no such file\n", 404, HEADERS)
        headers = {**HEADERS, "Content-Type": STATIC[name], "Cache-Control": "private, max-age=31536000, immutable"}
        return Response(static(name), headers=headers)

    _ = index, file


def _add_live(app: FastAPI, shown: Page) -> None:
    @app.get("/api/live", response_class=StreamingResponse, include_in_schema=False)
    async def live() -> Response:
        try:
            events = shown.live.watch()
        except Full as why:
            return PlainTextResponse(f"{why}\n", 503, {**HEADERS, "Retry-After": "10"})
        headers = {**HEADERS, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    _ = live


def _add_heat(app: FastAPI, shown: Page) -> None:
    @app.get("/api/heat", response_model=Heat, responses=AWAY_ANSWER | BAD_ANSWERS, summary="How values lie over time")
    async def heat(
        series: Annotated[str, Query(min_length=1, max_length=SELECTOR_MAX)],
        span: Annotated[str, Query(max_length=8, alias="range")] = DEFAULT_RANGE,
    ) -> Response:
        try:
            picked = await shown.pictures.draw(series, span)
            answer = {**(picked.picture or {}), "unit": picked.unit, "html": picture(picked)}
            return JSONResponse(answer, headers={**HEADERS, "Cache-Control": "no-store"})
        except BadQuestion as error:
            return JSONResponse({"error": str(error), "parameter": error.parameter}, error.status, HEADERS)
        except (*AWAY, Unavailable) as error:
            said = f"the database does not answer: {type(error).__name__}"
            return JSONResponse({"error": said}, 503, HEADERS)

    _ = heat
