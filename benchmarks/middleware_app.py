"""The app of the middleware benchmark: one no-op route, with the middleware that BENCH_MIDDLEWARE names.

Served as `uvicorn benchmarks.middleware_app:app`.
"""

import os

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse


def _make(middleware: str) -> FastAPI:
    if middleware == "streamgauge":
        from producers.asgi import instrument, lifespan

        made = FastAPI(lifespan=lifespan())
        instrument(made)
        return made
    made = FastAPI()
    if middleware == "instrumentator":
        from prometheus_fastapi_instrumentator import Instrumentator

        Instrumentator().instrument(made).expose(made)
    return made


app = _make(os.environ.get("BENCH_MIDDLEWARE", "none"))


@app.get("/items/{item}")
async def item(item: str) -> PlainTextResponse:
    """Answer at once."""
    return PlainTextResponse("ok")
