"""The exposition on the web: /metrics from a fresh snapshot, /metrics/self of this exporter.

In: the exporter. Out: text 0.0.4 or OpenMetrics 1.0, gzip and ETag as the client asks.
Promise: /metrics is answered from a snapshot taken after the request arrived, or with 503.
"""

import asyncio
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from exporter.exposition import OPENMETRICS, TEXT
from exporter.negotiate import is_not_modified, takes_gzip, wants_openmetrics
from exporter.own import OwnMetrics
from exporter.service import Exporter
from exporter.snapshot import Unavailable, View

SHOWN: Final[dict[str, Any]] = {"text/plain": {"schema": {"type": "string"}}}
BOTH: Final[dict[str, Any]] = {**SHOWN, "application/openmetrics-text": {"schema": {"type": "string"}}}
METRICS_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": BOTH, "description": "All series."},
    304: {"description": "Nothing changed since the version that the client has."},
    503: {"content": SHOWN, "description": "No fresh snapshot, or totals are being restored: a gap is harmless."},
}


def add_exposition_routes(app: FastAPI, exporter: Exporter) -> None:
    """Add the two routes."""
    own = OwnMetrics(exporter.refresher)

    @app.get("/metrics", response_class=PlainTextResponse, responses=METRICS_ANSWERS, summary="All series")
    async def metrics(request: Request) -> Response:
        try:
            view = await exporter.refresher.fresh()
        except Unavailable as why:
            own.scrapes.labels("unavailable").inc()
            return PlainTextResponse(f"{why}\n", 503, {"Retry-After": "1"})
        return await _expose(request, view, own)

    @app.get("/metrics/self", response_class=PlainTextResponse, summary="Of this exporter; always answered")
    async def metrics_self() -> Response:
        own.components.report = await exporter.monitor.look()
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
