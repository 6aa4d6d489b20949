"""How numbers read on the page."""

import math

import pytest

from exporter.page import words


@pytest.mark.parametrize("say", [words.count, words.short, words.duration, words.value, words.size, words.ago])
def test_what_is_not_known_is_never_a_number(say: object) -> None:
    assert callable(say)
    assert say(None) == "unknown"
    assert say(math.nan) == "unknown"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (2.4e-7, "240 ns"),
        (0.00024, "240 µs"),
        (0.0032, "3.2 ms"),
        (1.5, "1.5 s"),
        (59.94, "59.9 s"),
        (125, "2 min 5 s"),
        (1260, "21 min"),
        (12000, "3 h 20 min"),
        (86400 * 4, "4 d"),
        (-30, "-30 s"),
    ],
)
def test_a_duration_has_the_unit_a_person_would_take(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_counts_keep_all_digits_and_rates_three() -> None:
    assert words.count(1_234_567) == "1,234,567"
    assert words.short(1_234_567) == "1.23 M"
    assert words.short(45_600) == "45.6 k"
    assert words.short(9_999) == "9,999"
    assert words.short(0.1234) == "0.123"


def test_a_moment_ahead_or_past_says_which() -> None:
    assert words.ahead(75) == "in 1 min 15 s"
    assert words.ahead(-75) == "1 min 15 s ago"
    assert words.ago(0.4) == "just now"
    assert words.ago(3.9) == "3 s ago"


def test_evidence_takes_its_unit_from_its_name() -> None:
    assert words.evidence(88_123_392, "size_bytes") == "84 MiB"
    assert words.evidence(812.4, "mean_ms") == "812 ms"
    assert words.evidence(10822, "calls") == "10,822"
    assert (words.evidence(1.25, "requests_per_s"), words.unit_free("requests_per_s")) == ("1.25/s", "requests")
    assert words.evidence(None, "requests_per_s") == words.UNKNOWN
    assert words.evidence(["a", 1], "objects") == "a; 1"
    assert words.evidence([], "objects") == "none"
    queries = [{"queryid": "7", "mean_ms": 1200.0}, {"queryid": "8", "mean_ms": None}]
    assert words.evidence(queries, "queries") == f"queryid 7, mean 1.2 s; queryid 8, mean {words.UNKNOWN}"
    assert words.evidence("text", "size_bytes") == "text"
    assert words.unit_free("mean_exec_ms") == "mean exec"


def test_only_reasons_that_counted_are_told() -> None:
    assert words.reasons({"queue_full": 1200, "late": 0}) == "1,200 queue full"
