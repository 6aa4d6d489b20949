"""The committer's two stages share their cached numbers: one may find them stale while the other looks some up."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from aggregator import identities as module
from aggregator.committer import Committer
from aggregator.decode import Entry
from aggregator.identities import Identities
from aggregator.lanes import Lane
from contract.crash import NEVER
from contract.metric import Kind, MetricDef
from database.admission import Metric, Producer
from tests.batches import make_batch

GENERATION = 5


class Lanes:
    """One lane."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane

    async def main(self) -> Lane:
        return self.lane

    async def of(self, run_id: str | None, events: int) -> Lane:
        return self.lane


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Stand in for the database; returns what is set when producers are asked for, and what lets it answer."""
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def generation(_: Any) -> int:
        return GENERATION

    async def register(_: Any, wanted: dict[bytes, Any]) -> dict[bytes, Producer]:
        asked.set()
        await may_answer.wait()
        return {producer_id: Producer(1, 0, 0) for producer_id in wanted}

    async def admit(_: Any, wanted: dict[bytes, MetricDef], budget: int) -> Any:
        return dict.fromkeys(wanted, 7), {definition: Metric(1, Kind.COUNTER, 0) for definition in wanted.values()}

    for name, stand_in in (("read_generation", generation), ("register_producers", register), ("admit", admit)):
        monkeypatch.setattr(module, name, stand_in)
    return asked, may_answer


async def test_numbers_are_dropped_only_when_nobody_looks_some_up(
    database: tuple[asyncio.Event, asyncio.Event],
) -> None:
    """Dropped amid it, what had been looked up before would stay, as if it belonged to the next generation."""
    asked, may_answer = database
    lane = Lane("test", cast("Any", None), Identities(cast("Any", None), 100))
    with ThreadPoolExecutor(1) as threads:
        committer = Committer(cast("Any", Lanes(lane)), 0, "test", threads, NEVER)
        data = make_batch(b"p" * 16, 1, counters={b"hits_total": (1, 1.0)}, window_s=0)
        preparing = asyncio.create_task(committer.prepare([await committer.decode([Entry(0, "1-1", data)])]))
        await asked.wait()
        forgetting = asyncio.create_task(lane.identities.forget())
        await asyncio.sleep(0)
        may_answer.set()
        prepared = await preparing
        await forgetting
    assert [ready.generation for ready in prepared.ready] == [GENERATION]
    assert prepared.ready[0].folded.total_ids == [7]
    assert lane.identities.generation == 0
