"""Numbers read as a person writes them, and grades follow their thresholds."""

import pytest

from optimizers.check import Severity
from optimizers.wording import GB, MB, count, grade, percent, setting_size, size, span, worst


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 kB"), (1.5 * MB, "1.5 MB"), (100 * GB, "100 GB"), (3e15, "2.7 PB")],
)
def test_sizes_take_the_largest_unit(value: float, text: str) -> None:
    """1024 to the next."""
    assert size(value) == text


@pytest.mark.parametrize(("value", "text"), [(4 * GB, "4GB"), (64 * MB, "64MB"), (1536 * MB, "1536MB"), (1, "1MB")])
def test_settings_are_written_as_postgresql_takes_them(value: float, text: str) -> None:
    """Whole units, without a space."""
    assert setting_size(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (90_000, "1 d 1 h"),
        (86_401, "1 d"),
    ],
)
def test_spans_name_two_units_that_follow_each_other(seconds: float, text: str) -> None:
    """A day and a second are a day."""
    assert span(seconds) == text


def test_counts_and_shares() -> None:
    """Thousands apart; a decimal for small shares."""
    assert count(1_234_567.4) == "1 234 567"
    assert (percent(0.2), percent(0.0123)) == ("20 %", "1.2 %")


def test_grade_counts_the_threshold_itself() -> None:
    """At a threshold is above it."""
    assert [grade(value, 2, 3) for value in (1.9, 2, 2.9, 3)] == [
        None,
        Severity.WARN,
        Severity.WARN,
        Severity.CRITICAL,
    ]


def test_worst_of_none_is_none() -> None:
    """And of some the highest."""
    assert worst(None, None) is None
    assert worst(Severity.INFO, None, Severity.CRITICAL, Severity.WARN) is Severity.CRITICAL
