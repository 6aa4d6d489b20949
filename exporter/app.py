"""The web application: routes, token, and the life of the connections behind them.

In: settings. Out: an ASGI application.
Promise: /metrics is answered from a fresh snapshot or with 503; /healthz, /readyz and /metrics/self always answer.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from database.connect import AWAY, acquire
from database.queries import load
from exporter.access import CHALLENGES, carries_token
from exporter.database_routes import add_database_routes
from exporter.exposition import OPENMETRICS, TEXT
from exporter.history import answer
from exporter.job_routes import add_job_routes
from exporter.monitor_routes import add_monitor_routes
from exporter.negotiate import is_not_modified, takes_gzip, wants_openmetrics
from exporter.own import OwnMetrics
from exporter.page import add_page_routes
from exporter.question import BadQuestion, read_question
from exporter.service import Exporter
from exporter.settings import ExporterSettings
from exporter.snapshot import Unavailable, View

MAX_PRODUCERS: Final = 10_000
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})


def make_app(settings: ExporterSettings) -> FastAPI:
    """Return the application; servers are connected when it starts."""
    exporter = Exporter(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        await exporter.open()
        try:
            yield
        finally:
            await app.state.page.stop()
            await exporter.aclose()

    app = FastAPI(title="streamgauge exporter", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    token = settings.streamgauge_exporter_token
    if token is not None:
        _require_token(app, token.get_secret_value())
    _add_exposition(app, exporter, OwnMetrics(exporter.refresher))
    _add_probes(app, exporter)
    _add_json(app, exporter)
    app.state.page = add_page_routes(app, exporter)
    add_database_routes(app, exporter)
    add_job_routes(app, exporter)
    add_monitor_routes(app, exporter)
    return app


def _require_token(app: FastAPI, token: str) -> None:
    @app.middleware("http")
    async def check(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        given = request.headers.get("authorization", "")
        if request.url.path in OPEN_PATHS or carries_token(token, request.method, given):
            return await call_next(request)
        refused = PlainTextResponse("a token is needed\n", 401)
        for challenge in CHALLENGES:
            refused.headers.append("WWW-Authenticate", challenge)
        return refused

    _ = check


def _add_exposition(app: FastAPI, exporter: Exporter, own: OwnMetrics) -> None:
    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        try:
            view = await exporter.refresher.fresh()
        except Unavailable as why:
            own.scrapes.labels("unavailable").inc()
            return PlainTextResponse(f"{why}\n", 503, {"Retry-After": "1"})
        return await _expose(request, view, own)

    @app.get("/metrics/self")
    async def metrics_self() -> Response:
        return Response(generate_latest(own.registry), media_type=CONTENT_TYPE_LATEST)

    _ = metrics, metrics_self


async def _expose(request: Request, view: View, own: OwnMetrics) -> Response:
    openmetrics = wants_openmetrics(request.headers.get("accept", ""))
    gzip = takes_gzip(request.headers.get("accept-encoding", ""))
    etag = f'"{view.version}-{"o" if openmetrics else "t"}{"z" if gzip else ""}"'
    headers = {
        "Content-Type": OPENMETRICS if openmetrics else TEXT,
        "ETag": etag,
        "Vary": "Accept, Accept-Encoding",
        "Cache-Control": "no-cache",
    }
    if is_not_modified(request.headers.get("if-none-match", ""), etag):
        own.scrapes.labels("not_modified").inc()
        return Response(status_code=304, headers=headers)
    pages = view.pages[openmetrics]
    if gzip:
        headers["Content-Encoding"] = "gzip"
        body = await asyncio.to_thread(lambda: b"".join([page.gzip() for page in pages]))
    else:
        body = b"".join([page.plain() for page in pages])
    own.scrapes.labels("served").inc()
    return Response(body, headers=headers)


def _add_probes(app: FastAPI, exporter: Exporter) -> None:
    @app.get("/healthz")
    async def healthz() -> Response:
        return PlainTextResponse("ok\n")

    @app.get("/readyz")
    async def readyz() -> Response:
        reasons = await exporter.not_ready()
        return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    _ = healthz, readyz


def _add_json(app: FastAPI, exporter: Exporter) -> None:
    @app.get("/api/producers")
    async def producers() -> Response:
        settings = exporter.settings
        try:
            async with acquire(exporter.pool) as connection:
                rows = await connection.fetch(load("exporter_producers"), settings.streamgauge_live_s, MAX_PRODUCERS)
        except AWAY as error:
            return JSONResponse({"error": f"the database does not answer: {type(error).__name__}"}, 503)
        return JSONResponse({"producers": [{**row, "dropped": json.loads(row["dropped"])} for row in rows]})

    @app.get("/api/rollups")
    async def rollups(request: Request) -> Response:
        given = request.query_params
        try:
            question = read_question(
                given.get("metric", ""),
                given.get("match", ""),
                given.get("from", ""),
                given.get("to", ""),
                given.get("step", "1m"),
                [text for every in given.getlist("quantile") for text in every.split(",")],
                time.time(),
            )
            return JSONResponse(await answer(exporter.pool, question))
        except BadQuestion as error:
            return JSONResponse({"error": str(error), "parameter": error.parameter}, error.status)
        except AWAY as error:
            return JSONResponse({"error": f"the database does not answer: {type(error).__name__}"}, 503)

    _ = producers, rollups
