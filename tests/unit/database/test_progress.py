"""Which minutes are partial, from how far producers came."""

import pytest

from database.progress import Partial, Progress, partial_minutes

FROM_S, TO_S = 600, 1200


def producer(watermark_s: int = TO_S, last_s: float = TO_S, **fields: object) -> Progress:
    """One that is live and came to the end."""
    return Progress(7, "shop", False, watermark_s, 0.0, last_s, 1.0, [])._replace(**fields)


def minutes(*producers: Progress) -> Partial:
    return partial_minutes(producers, FROM_S, TO_S)


def test_without_producers_and_with_those_that_came_to_the_end_all_is_complete() -> None:
    assert minutes() == Partial(0, 10, [], False)
    assert minutes(producer()) == Partial(0, 10, [], False)


def test_a_live_producer_that_is_on_its_way_is_waited_for() -> None:
    assert minutes(producer(1190)) == Partial(1, 10, ["shop/7"], True)


def test_one_that_died_without_a_farewell_lacks_the_minute_of_its_last_words_for_ever() -> None:
    assert minutes(producer(690, 695.0, age_s=500.0)) == Partial(1, 10, ["shop/7"], False)


def test_one_that_ended_lacks_nothing() -> None:
    assert minutes(producer(690, 695.0, ended=True)).minutes == 0


@pytest.mark.parametrize(
    ("gap", "age_s", "count", "may_come"),
    [
        ([700, 700, 1], 1.0, 1, True),
        ([700, 790, 1], 1.0, 3, True),
        ([700, 790, 0], 1.0, 3, False),
        ([700, 790, 1], 60.0, 3, False),
        ([0, 5000, 1], 1.0, 10, True),
        ([0, 550, 1], 1.0, 0, False),
    ],
    ids=["within a minute", "over three", "closed: lost", "of one that is silent", "all of it", "earlier"],
)
def test_a_gap_makes_its_minutes_partial(gap: list[int], age_s: float, count: int, may_come: bool) -> None:
    found = minutes(producer(gaps=[gap], age_s=age_s))
    assert (found.minutes, found.may_come) == (count, may_come)


def test_a_minute_is_counted_once_whoever_it_waits_for() -> None:
    found = minutes(producer(gaps=[[700, 700, 1]]), producer(producer_no=8, gaps=[[700, 790, 0]]))
    assert found == Partial(3, 10, ["shop/7", "shop/8"], True)


def test_the_minutes_are_those_that_misses_says() -> None:
    for one in (producer(1190), producer(690, 695.0), producer(gaps=[[660, 720, 1], [1140, 1199, 0]])):
        told = [one.misses(start_s, start_s + 60) for start_s in range(FROM_S, TO_S, 60)]
        assert sum(told) == minutes(one).minutes > 0
