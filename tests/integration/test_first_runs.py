"""Each job's first run is said, also when its aggregator is late, gone or never comes."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from database import jobs
from database.connect import Pool, acquire, open_pool
from database.jobs import Planned
from database.queries import load
from database.settings import PostgresSettings, read_settings
from streamgauge import first_runs
from tests.integration.test_schedule import keep_nowhere

DAY_S = 86_400.0
MINE = Planned("mine", "a job of a test", DAY_S, judges_data=False)


@pytest.fixture
async def pool(dsn: str) -> AsyncGenerator[Pool, None]:
    found = await open_pool(read_settings(PostgresSettings, {"POSTGRES_DSN": dsn}))
    yield found
    await found.close()


async def beat(pool: Pool) -> None:
    """Be an aggregator that is alive."""
    async with acquire(pool) as connection:
        await connection.execute(load("heartbeat"), "one", "{}")


async def run_what_is_asked_for(pool: Pool) -> None:
    """Do as an aggregator that has begun a run and ended it."""
    async with asyncio.timeout(20):
        while not await jobs.open_runs(pool, ["mine"], 60.0):  # noqa: ASYNC110 - PostgreSQL tells nobody
            await asyncio.sleep(0.02)
    async with jobs.locked(pool, "mine") as connection:
        assert connection is not None
        claim = await jobs.take(connection, "mine", "one", 60.0, keep_nowhere)
    assert claim is not None
    await jobs.finish(pool, claim, "one", "insufficient_data", "too young", {}, keep_nowhere)


async def said_by(dsn: str, check: "list[str] | None" = None) -> list[str]:
    """Return what a person reads."""
    said: list[str] = []
    await asyncio.to_thread(first_runs.first_runs, dsn, said.append, lambda: (check or []).append("looked"))
    return said


@pytest.mark.parametrize("knows_an_earlier_one", [False, True])
async def test_an_aggregator_that_comes_late_is_waited_for(dsn: str, pool: Pool, knows_an_earlier_one: bool) -> None:
    """Its jobs are not registered yet; or those of an earlier `up` are, whose aggregator is dead."""
    looked = ["began"]
    if knows_an_earlier_one:
        await jobs.register(pool, [MINE])
    saying = asyncio.create_task(said_by(dsn, looked))
    async with asyncio.timeout(20):
        while len(looked) < 3:  # noqa: ASYNC110 - it looks from another thread
            await asyncio.sleep(0.02)
    await beat(pool)
    await jobs.register(pool, [MINE])
    await run_what_is_asked_for(pool)
    title, line = await saying
    assert title == "every job once:"
    assert line.split()[:2] == ["mine", "insufficient_data"]
    assert line.endswith("too young")


async def test_that_no_aggregator_comes_is_said(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_runs, "DEADLINE_S", 0.5)
    assert await said_by(dsn) == ["every job once:", "  no aggregator has offered a job within 0.5 s"]


async def test_an_aggregator_that_goes_at_that_moment_is_no_traceback(
    dsn: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def seems_alive(_: Pool) -> bool:
        return True

    monkeypatch.setattr(jobs, "is_aggregator_alive", seems_alive)
    await jobs.register(pool, [MINE])
    (_, line) = await said_by(dsn)
    assert (
        line.strip() == "the jobs could not be asked for: NoAggregator: no aggregator is running: nothing would be done"
    )
