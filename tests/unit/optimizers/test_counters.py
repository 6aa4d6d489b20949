"""What was added between two snapshots."""

from optimizers.counters import increases


def test_objects_of_both_snapshots_have_increases() -> None:
    """New objects have no past, gone ones no present."""
    before = {"a": {"n": 1.0, "m": 5.0}, "gone": {"n": 1.0}}
    after = {"a": {"n": 4.0, "m": 5.0}, "new": {"n": 9.0}}
    assert increases(before, after) == {"a": {"n": 3.0, "m": 0.0}}


def test_object_whose_counter_fell_is_left_out() -> None:
    """It was reset, or dropped and made again: what it counted before is unknown."""
    assert increases({"a": {"n": 5.0, "m": 1.0}, "b": {"n": 1.0}}, {"a": {"n": 2.0, "m": 9.0}, "b": {"n": 2.0}}) == {
        "b": {"n": 1.0}
    }


def test_counter_that_is_new_in_an_object_has_no_increase() -> None:
    """Another version of the check kept fewer."""
    assert increases({"a": {"n": 1.0}}, {"a": {"n": 2.0, "m": 7.0}}) == {"a": {"n": 1.0}}
