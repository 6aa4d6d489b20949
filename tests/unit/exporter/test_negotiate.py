"""Which format and encoding a client takes."""

import pytest

from exporter.negotiate import is_not_modified, takes_gzip, wants_openmetrics


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain;version=0.0.4", False),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;version=2.0.0,text/plain;q=0.1", False),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", True),
    ],
)
def test_format_follows_the_accept_header(accept: str, wanted: bool) -> None:
    assert wants_openmetrics(accept) is wanted


@pytest.mark.parametrize(
    ("header", "taken"),
    [("", False), ("gzip", True), ("gzip;q=0", False), ("br, gzip;q=0.5", True), ("*", True), ("*, gzip;q=0", False)],
)
def test_encoding_follows_the_header(header: str, taken: bool) -> None:
    assert takes_gzip(header) is taken


def test_etag_is_compared_weakly() -> None:
    assert is_not_modified('"a", W/"b"', '"b"')
    assert is_not_modified("*", '"b"')
    assert not is_not_modified('"a"', '"b"')
