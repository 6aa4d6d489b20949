"""The web application: routes, token, and the life of the connections behind them.

In: settings. Out: an ASGI application.
Promise: /metrics is answered from a fresh snapshot or with 503; /healthz, /readyz and /metrics/self always answer.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse

from exporter.access import CHALLENGES, carries_token
from exporter.answers import EVERYWHERE, add_refusals
from exporter.database_routes import add_database_routes
from exporter.exposition_routes import add_exposition_routes
from exporter.history_routes import add_history_routes
from exporter.job_routes import add_job_routes
from exporter.monitor_routes import add_monitor_routes
from exporter.page import add_page_routes
from exporter.performance_routes import add_performance_routes
from exporter.probe_routes import OPEN_PATHS, add_probe_routes
from exporter.service import Exporter
from exporter.settings import ExporterSettings
from exporter.threshold_routes import add_threshold_routes


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

    app = FastAPI(
        title="streamgauge exporter",
        version=version("streamgauge"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=EVERYWHERE,
    )
    add_refusals(app)
    token = settings.streamgauge_exporter_token
    if token is not None:
        _require_token(app, token.get_secret_value())
    add_exposition_routes(app, exporter)
    add_probe_routes(app, exporter)
    add_history_routes(app, exporter)
    app.state.page = add_page_routes(app, exporter)
    add_database_routes(app, exporter)
    add_job_routes(app, exporter)
    add_monitor_routes(app, exporter)
    add_threshold_routes(app, exporter)
    add_performance_routes(app, exporter)
    return app


def _require_token(app: FastAPI, token: str) -> None:
    @app.middleware("http")
    async def check(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        given = request.headers.get("authorization", "")
        # Not `request.url`, which is made from the Host header too: a client writes that.
        if request.scope["path"] in OPEN_PATHS or carries_token(token, request.method, given):
            return await call_next(request)
        refused = PlainTextResponse("a token is needed\n", 401)
        for challenge in CHALLENGES:
            refused.headers.append("WWW-Authenticate", challenge)
        return refused

    _ = check
