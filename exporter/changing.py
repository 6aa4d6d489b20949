"""Changing: what a route that changes something asks of a request.

In: the exporter's settings and the Authorization header. Out: the refusal, or None. Pure.
Promise: such a route is never open: without a configured token nobody may call it, also on loopback, where any page
in a browser could; and a browser's stored password is not enough.
"""

from typing import Any, Final

from fastapi.responses import JSONResponse

from exporter.access import carries_token
from exporter.settings import ExporterSettings

REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    401: {"description": "The bearer token is missing or wrong."},
    403: {"description": "No token is configured, so that nobody may."},
}
"""For `responses=` of a route."""


def refuse_change(settings: ExporterSettings, authorization: str) -> JSONResponse | None:
    """Return why this request may change nothing; None if it carries the bearer token."""
    token = settings.streamgauge_exporter_token
    if token is None:
        text = "set STREAMGAUGE_EXPORTER_TOKEN to allow changes: without a token nobody may make them"
        return JSONResponse({"error": text}, 403)
    if not carries_token(token.get_secret_value(), "POST", authorization):
        return JSONResponse({"error": "the bearer token is needed"}, 401, {"WWW-Authenticate": "Bearer"})
    return None
