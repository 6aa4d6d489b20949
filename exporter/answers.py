"""Answers: what every JSON route says when it cannot answer as asked.

Promise: one shape, `error` and the `parameter` that it is about; an error's text never holds an address.
"""

from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException


class Refusal(BaseModel):
    """Why there is no answer."""

    error: str
    parameter: str | None = None
    """What it is about, when it is about one parameter."""


AWAY_ANSWER: Final[dict[int | str, dict[str, Any]]] = {503: {"model": Refusal}}
BAD_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Refusal, "description": "A parameter cannot be read."},
    404: {"model": Refusal, "description": "There is no such metric."},
    422: {"model": Refusal, "description": "A parameter is out of bounds."},
}
EVERYWHERE: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Refusal, "description": "The request cannot be read."},
    401: {"description": "A token is configured, and the request does not carry it."},
    422: {"model": Refusal, "description": "A parameter is out of bounds."},
}
"""What any route may answer."""


def away(error: BaseException) -> JSONResponse:
    """Return what is said when the database failed."""
    return JSONResponse({"error": f"the database does not answer: {type(error).__name__}"}, 503)


def add_refusals(app: FastAPI) -> None:
    """Let bad requests and unknown paths be refused in the one shape."""

    @app.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = [part for part in first["loc"] if part not in ("query", "path", "header", "body")]
        return JSONResponse({"error": str(first["msg"]), "parameter": str(where[0]) if where else None}, 422)

    @app.exception_handler(HTTPException)
    async def say(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    _ = refuse, say
