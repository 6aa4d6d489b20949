"""Who may open a WebSocket, how many, and how fast it may send."""

import pytest

from producers.reference.settings import SettingError, Settings
from producers.reference.sockets import BURST, Pace, Sockets


@pytest.mark.parametrize(
    ("origin", "why"),
    [
        (None, None),
        ("https://api.example", None),
        ("https://app.example", None),
        ("https://stranger.example", "origin"),
        ("null", "origin"),
        ("https://api.example.stranger.example", "origin"),
    ],
)
def test_pages_of_other_origins_are_refused(origin: str | None, why: str | None) -> None:
    assert Sockets(["https://app.example"], 2).refusal(origin, "api.example", "10.0.0.1") == why


def test_a_client_has_so_many_and_no_more_until_one_is_closed() -> None:
    sockets = Sockets([], 2)
    for _ in range(2):
        assert sockets.refusal(None, "h", "a") is None
        sockets.opened("a")
    assert sockets.refusal(None, "h", "a") == "too_many"
    assert sockets.refusal(None, "h", "b") is None
    sockets.closed("a")
    assert sockets.refusal(None, "h", "a") is None


def test_a_burst_is_allowed_and_then_so_many_a_second() -> None:
    now = 0.0
    pace = Pace(10.0, lambda: now)
    assert [pace.takes() for _ in range(BURST + 1)] == [True] * BURST + [False]
    now = 0.1
    assert (pace.takes(), pace.takes()) == (True, False)
    now = 1000.0
    assert [pace.takes() for _ in range(BURST + 1)].count(True) == BURST


@pytest.mark.parametrize("text", ["app.example", "https://app.example/path", "ftp://a"])
def test_an_origin_that_is_none_is_named(text: str) -> None:
    with pytest.raises(SettingError, match="REFERENCE_WS_ORIGINS"):
        Settings.read({"REFERENCE_WS_ORIGINS": text})
    assert Settings.read({"REFERENCE_WS_ORIGINS": "https://a, http://b:8000"}).ws_origins == (
        "https://a",
        "http://b:8000",
    )
