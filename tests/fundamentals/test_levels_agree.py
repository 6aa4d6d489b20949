"""I7: in one snapshot, archived base + retained windows = totals at each level, at every stage of a window's life."""

import asyncio
import random
import time
from collections.abc import AsyncIterator

import pytest

from database import partitions, upkeep
from database.audit import snapshot
from database.audit_levels import check_levels, check_sketches
from database.connect import Pool, acquire, open_pool
from database.partitions import PARTS
from database.settings import PostgresSettings, RetentionSettings
from tests.batches import Store, make_batch

HOUR_S = 3600


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    """A pool on a fresh database."""
    opened = await open_pool(PostgresSettings.model_validate({"postgres_dsn": dsn}), size=8)
    async with acquire(opened) as connection:
        await partitions.ensure(connection)
    yield opened
    await opened.close()


async def assert_levels_agree(pool: Pool) -> None:
    """Compare all levels and the totals in one snapshot."""
    async with snapshot(pool) as connection:
        assert await check_levels(connection) == []
        assert await check_sketches(connection) == []


async def commit_some(store: Store, rng: random.Random, seq: int, accepted: int, windows: list[int]) -> int:
    """Commit a batch of random values into a random window; returns the producer's accepted count."""
    counter = {b'c_total{a="%d"}' % i: (rng.randint(1, 9), rng.random()) for i in rng.sample(range(9), 3)}
    samples = {b'h{a="%d"}' % i: [rng.gauss(0, 5) for _ in range(rng.randint(1, 9))] for i in rng.sample(range(9), 3)}
    accepted += sum(n for n, _ in counter.values()) + sum(map(len, samples.values())) + 1
    batch = make_batch(
        bytes(16), seq, counters=counter, histograms=samples, gauges={b"g": [rng.random()]},
        window_s=rng.choice(windows), accepted=accepted,
    )  # fmt: skip
    await store.commit(batch)
    return accepted


async def test_levels_agree_at_every_stage(pool: Pool) -> None:
    rng, store, accepted = random.Random(7), Store(pool), 0
    hour_s = int(time.time()) // HOUR_S * HOUR_S
    windows = [hour_s - 72 * HOUR_S + 10 * i for i in range(20)] + [hour_s - 3 * HOUR_S + 50 * i for i in range(50)]
    for stage in range(6):
        at_s = int(time.time()) - 180
        part = partitions.partition(PARTS, at_s)
        # Still open at the end of the minute in which it arrives: carried on.
        still_open = part.end_s - 10
        for seq in range(stage * 10 + 1, stage * 10 + 11):
            accepted = await commit_some(store, rng, seq, accepted, [*windows, *[still_open] * (len(windows) // 2)])
        await assert_levels_agree(pool)
        async with acquire(pool) as connection:
            await connection.execute("SELECT make_partition('parts', $1, $2::bigint, $3::bigint)", *part)
            await connection.execute("UPDATE parts SET arrived = to_timestamp($1)", at_s)
            await upkeep.compact_closed(connection)
        await assert_levels_agree(pool)
        if stage == 1:
            # Late data for windows of which the finer rows were dropped may only come within 24 h.
            windows = windows[20:]
        if stage % 2:
            assert await upkeep.run(pool, RetentionSettings(), drained=True) == []
            await assert_levels_agree(pool)
    assert await pool.fetchval("SELECT count(*) FROM archived WHERE level = '10s'") > 0
    assert await pool.fetchval("SELECT count(*) FROM windows WHERE revision > 0") > 0


async def test_a_snapshot_sees_whole_levels_while_upkeep_and_commits_go_on(pool: Pool) -> None:
    rng, store = random.Random(8), Store(pool)
    hour_s = int(time.time()) // HOUR_S * HOUR_S
    windows = [hour_s - 3 * HOUR_S + 10 * i for i in range(30)]
    done = asyncio.Event()

    async def commit_all() -> None:
        accepted = 0
        for seq in range(1, 61):
            accepted = await commit_some(store, rng, seq, accepted, windows)
        done.set()

    async def keep_up() -> None:
        while not done.is_set():
            at_s = int(time.time()) - 180
            async with acquire(pool) as connection:
                part = partitions.partition(PARTS, at_s)
                await connection.execute("SELECT make_partition('parts', $1, $2::bigint, $3::bigint)", *part)
                await connection.execute("UPDATE parts SET arrived = to_timestamp($1)", at_s)
            await upkeep.run(pool, RetentionSettings(), drained=True)

    async def watch() -> int:
        seen = 0
        while not done.is_set():
            await assert_levels_agree(pool)
            seen += 1
        return seen

    _, _, seen = await asyncio.wait_for(asyncio.gather(commit_all(), keep_up(), watch()), 60)
    assert seen > 1
    await assert_levels_agree(pool)
