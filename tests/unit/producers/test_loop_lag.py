"""Loop lag: a block is seen, nested apps watch a loop once, and a metric of the app's own name is no error."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from producers import Counter, default_client, loop_lag
from producers.loop_lag import LoopMetrics, loop_metrics, watching
from producers.metrics import Registry, set_default


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A registry that sends nothing, in place of the default client."""
    found = Registry()
    set_default(lambda: found)
    loop_metrics.cache_clear()
    yield found
    loop_metrics.cache_clear()
    set_default(default_client)


def values(registry: Registry, name: str) -> list[float]:
    return [value for child in registry.children if child.metric.name == name for value in child.values]


async def until_samples(registry: Registry, count: int) -> None:
    async with asyncio.timeout(10):
        while len(values(registry, "event_loop_lag_seconds")) < count:  # noqa: ASYNC110 - lists notify nobody
            await asyncio.sleep(0.01)


async def test_a_block_is_one_late_sample_as_long_as_the_block(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_lag, "TICK_S", 0.01)
    async with watching():
        await until_samples(registry, 3)
        before = len(values(registry, "event_loop_lag_seconds"))
        time.sleep(0.4)  # noqa: ASYNC251 - the block
        await until_samples(registry, before + 2)
    assert sum(value > 0.3 for value in values(registry, "event_loop_lag_seconds")) == 1


async def test_the_cpu_of_a_busy_loop_is_counted_and_the_watch_ends_with_the_app(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_lag, "TICK_S", 0.01)
    async with watching():
        await until_samples(registry, 1)
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
    assert 0.2 <= sum(values(registry, "process_cpu_seconds_total")) < 2
    assert [task.get_name() for task in asyncio.all_tasks() if "loop lag" in task.get_name()] == []
    assert loop_metrics().watched == set()


async def test_apps_within_one_another_watch_the_loop_once(registry: Registry) -> None:
    async with watching(), watching():
        assert len([task for task in asyncio.all_tasks() if "loop lag" in task.get_name()]) == 1
    async with watching():
        assert len(loop_metrics().watched) == 1


async def test_a_metric_of_the_same_name_is_left_to_the_app(registry: Registry) -> None:
    own = Counter("process_cpu_seconds_total", "Own.", registry=registry)
    async with watching():
        assert [task for task in asyncio.all_tasks() if "loop lag" in task.get_name()] == []
    assert own.definition.help == "Own."


async def test_an_app_that_fails_ends_the_watch_and_its_failure_passes(registry: Registry) -> None:
    with pytest.raises(ValueError, match="own failure"):
        async with watching():
            raise ValueError("own failure")
    assert loop_metrics().watched == set()


def test_cpu_time_that_begins_anew_in_a_child_is_never_negative() -> None:
    metrics = LoopMetrics()
    metrics.cpu_s = 1e9  # of the parent
    assert metrics.spent_s() == 0
    assert 0 <= metrics.spent_s() < 5
