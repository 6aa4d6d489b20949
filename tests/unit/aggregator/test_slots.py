"""Slots: the same for everybody, met once each, whatever the jitter."""

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.slots import LARGEST_JITTER, SlotTrigger, slot_of

INTERVALS = st.sampled_from([0.3, 1.0, 7.0, 60.0, 3600.0, 21_600.0, 86_400.0])
TIMES = st.floats(1.7e9, 1.9e9)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_a_day_begins_at_midnight_utc() -> None:
    noon = datetime(2024, 2, 29, 12, 30, tzinfo=UTC)
    assert at(slot_of(noon.timestamp(), 86_400)) == datetime(2024, 2, 29, tzinfo=UTC)
    assert at(slot_of(noon.timestamp(), 21_600)) == datetime(2024, 2, 29, 12, tzinfo=UTC)


@given(TIMES, INTERVALS, st.floats(0, 1000), st.integers(0, 9))
def test_each_slot_is_met_once(start_s: float, every_s: float, jitter_s: float, seed: int) -> None:
    """Fire after fire, as the scheduler asks: every slot in turn, and never before it has begun."""
    trigger = SlotTrigger(every_s, jitter_s, seed=seed)
    fired = trigger.get_next_fire_time(None, at(start_s))
    slots = [slot_of(fired.timestamp() + 1e-5, every_s)]
    for _ in range(20):
        fired = trigger.get_next_fire_time(fired, fired)
        slots.append(slot_of(fired.timestamp() + 1e-5, every_s))
        assert fired.timestamp() - slots[-1] <= every_s * LARGEST_JITTER + 1e-4
    assert [b - a for a, b in itertools.pairwise(slots)] == pytest.approx([every_s] * 20)


def test_what_was_slept_through_is_fired_for_once() -> None:
    trigger = SlotTrigger(60, 0)
    assert trigger.get_next_fire_time(at(600), at(1000)) == at(1020)


def test_slots_are_those_of_the_database_clock() -> None:
    """Our clock is 5 s behind: the slot of 12:00:00 begins when our clock says 11:59:55."""
    trigger = SlotTrigger(60, 0, lambda: 5.0)
    assert trigger.get_next_fire_time(None, at(610)) == at(655)
