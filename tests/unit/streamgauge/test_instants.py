"""Instants: what a person may write."""

import pytest

from streamgauge.instants import parse_instant


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", 10_001),
        ("15m", 9_100),
        ("-15m", 9_100),
        ("1700000000", 1_700_000_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000),
        ("2023-11-14T22:13:20", 1_700_000_000),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000),
    ],
)
def test_each_form_is_read(text: str, expected: int) -> None:
    assert parse_instant(text, 10_000.7) == expected


@pytest.mark.parametrize("text", ["", "m", "soon", "15x", "--5m"])
def test_anything_else_is_quoted_in_the_error(text: str) -> None:
    with pytest.raises(ValueError, match="is no instant"):
        parse_instant(text, 0)
