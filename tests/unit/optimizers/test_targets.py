"""Targets: names and addresses from settings, mistakes named without showing an address."""

import pytest

from database.settings import SettingsError, read_settings
from optimizers.settings import OptimizerSettings
from optimizers.targets import Target, read_targets

OWN = {"POSTGRES_DSN": "postgresql://own"}


def read(**settings: str) -> list[Target]:
    return read_targets(read_settings(OptimizerSettings, OWN | settings))


def test_own_database_is_always_there_and_may_be_changed() -> None:
    """It comes first."""
    (own,) = read()
    assert (own.name, own.is_monitoring) == ("monitoring", True)
    assert own.apply == own.address


def test_targets_with_replicas_and_addresses_to_change_them_by() -> None:
    """Separated by spaces or lines."""
    found = read(
        STREAMGAUGE_OPTIMIZER_TARGETS="shop=postgresql://r@shop/x\nblog=postgres://r@blog/x",
        STREAMGAUGE_OPTIMIZER_APPLY_TARGETS="shop=postgresql://w@shop/x",
        STREAMGAUGE_OPTIMIZER_REPLICAS="shop=postgresql://a shop=postgresql://b monitoring=postgresql://c",
    )
    assert [(each.name, len(each.replicas), each.apply is None) for each in found] == [
        ("monitoring", 1, False),
        ("shop", 2, False),
        ("blog", 0, True),
    ]
    assert found[1].apply is not None
    assert found[1].apply.parts == {"dsn": "postgresql://w@shop/x"}


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("TARGETS", "hunter2", "part 1 is not name=dsn"),
        ("TARGETS", "a=postgresql://x Bad=postgresql://hunter2", "part 2 is not name=dsn"),
        ("TARGETS", "a=mysql://hunter2", "the address of a must begin with postgresql://"),
        ("TARGETS", "a=postgresql://hunter2 a=postgresql://hunter2", "a is there twice"),
        ("TARGETS", "monitoring=postgresql://hunter2", "monitoring is our own database"),
        ("APPLY_TARGETS", "a=postgresql://hunter2", "no target is called a"),
        ("REPLICAS", "a=postgresql://hunter2", "no target is called a"),
    ],
)
def test_mistake_is_named_without_the_address(name: str, value: str, why: str) -> None:
    """It may hold a password."""
    with pytest.raises(SettingsError) as caught:
        read(**{f"STREAMGAUGE_OPTIMIZER_{name}": value})
    assert str(caught.value).startswith(f"STREAMGAUGE_OPTIMIZER_{name}: {why}")
    assert "hunter2" not in str(caught.value)


def test_target_does_not_show_its_address() -> None:
    """In a log or a traceback."""
    assert "hunter2" not in repr(read(STREAMGAUGE_OPTIMIZER_TARGETS="a=postgresql://hunter2"))
