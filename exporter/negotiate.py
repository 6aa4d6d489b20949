"""Negotiation: which format and encoding a client takes, from its Accept and Accept-Encoding headers.

Pure. RFC 9110 sections 12.4.2 and 12.5: a quality of 0 means "not acceptable"; the more specific range wins.
"""

from collections.abc import Iterator


def _parts(header: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for part in header.lower().split(","):
        value, *parameters = (piece.strip() for piece in part.split(";"))
        found: dict[str, str] = {}
        for parameter in parameters:
            name, _, text = parameter.partition("=")
            found[name.strip()] = text.strip().strip('"')
        try:
            quality = float(found.pop("q", "1"))
        except ValueError:
            quality = 0.0
        if value:
            yield value, found, quality


def wants_openmetrics(accept: str) -> bool:
    """Whether OpenMetrics 1.0 is preferred to the text format; equal preference goes to what is named first."""
    openmetrics = text = 0.0
    for value, parameters, quality in _parts(accept):
        if value == "application/openmetrics-text" and parameters.get("version", "1.0.0") in {"1.0.0", "0.0.1"}:
            openmetrics = max(openmetrics, quality)
        elif value in {"text/plain", "text/*", "*/*"}:
            text = max(text, quality if value == "text/plain" else quality / 2)
    return openmetrics > 0 and openmetrics >= text


def takes_gzip(accept_encoding: str) -> bool:
    """Whether a gzip body may be sent."""
    answer = False
    for value, _, quality in _parts(accept_encoding):
        if value in {"gzip", "x-gzip"}:
            return quality > 0
        if value == "*":
            answer = quality > 0
    return answer


def is_not_modified(if_none_match: str, etag: str) -> bool:
    """Whether the client has this version already."""
    return if_none_match.strip() == "*" or etag in (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
