"""Probes on the web: /healthz says that this process lives, /readyz whether a scrape would be answered now.

In: the exporter. Out: 200, or 503 with reasons. Promise: both answer without a token and within a probe's deadline.
"""

from typing import Final

from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from exporter.service import Exporter

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""Paths that need no token."""


class Ready(BaseModel):
    """Whether a scrape would be answered."""

    ready: bool
    reasons: list[str]


def add_probe_routes(app: FastAPI, exporter: Exporter) -> None:
    """Add the two routes."""

    @app.get("/healthz", response_class=PlainTextResponse, summary="This process lives")
    async def healthz() -> Response:
        return PlainTextResponse("ok\n")

    @app.get("/readyz", responses={503: {"model": Ready}}, summary="A scrape would be answered")
    async def readyz(response: Response) -> Ready:
        reasons = await exporter.not_ready()
        response.status_code = 503 if reasons else 200
        return Ready(ready=not reasons, reasons=reasons)

    _ = healthz, readyz
