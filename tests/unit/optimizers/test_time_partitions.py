"""What follows a partition, and what counts as ahead."""

from datetime import UTC, datetime
from math import inf

from optimizers.time_partitions import Slice, TimeTable, following, width


def piece(start_s: float, end_s: float) -> Slice:
    """A partition of nothing."""
    return Slice(f"p{start_s}", start_s, end_s, 0, 0)


def test_ahead_ends_at_a_gap_and_does_not_count_the_present() -> None:
    """Order does not matter."""
    table = TimeTable("t", "at", [piece(40, 50), piece(0, 10), piece(10, 20), piece(20, 30)], has_default=False)
    assert [each.start_s for each in table.ahead(5)] == [10, 20]
    assert table.ahead(25) == []
    assert table.ahead(35) == []
    assert (table.holds(29), table.holds(30), table.holds(40)) == (True, False, True)


def test_open_end_is_all_that_follows() -> None:
    """MAXVALUE takes every row."""
    table = TimeTable("t", "at", [piece(-inf, 0), piece(0, inf)], has_default=False)
    assert table.holds(1e18)
    assert [each.end_s for each in table.ahead(-5)] == [inf]


def at(text: str) -> float:
    """Unix seconds of a moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_months_stay_months_over_the_end_of_a_year() -> None:
    """Their lengths differ; a quarter is three of them."""
    november = piece(at("2030-11-01"), at("2030-12-01"))
    starts = [f"{start:%Y-%m-%d}" for start, _ in following(november, 3)]
    assert starts == ["2030-12-01", "2031-01-01", "2031-02-01"]
    quarter = piece(at("2030-07-01"), at("2030-10-01"))
    assert [f"{end:%Y-%m-%d}" for _, end in following(quarter, 2)] == ["2031-01-01", "2031-04-01"]


def test_other_widths_are_repeated() -> None:
    """A week from any day."""
    week = piece(at("2030-01-30"), at("2030-02-06"))
    assert [f"{end:%m-%d}" for _, end in following(week, 2)] == ["02-13", "02-20"]


def test_width_is_one_that_people_use() -> None:
    """Rounded down; an hour at least."""
    assert [width(seconds).total_seconds() for seconds in (10, 4000, 90_000, 8 * 86_400)] == [
        3600,
        3600,
        86_400,
        604_800,
    ]
