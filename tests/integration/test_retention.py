"""Upkeep and retention on a real PostgreSQL: what is dropped keeps its sums, and one failure stops nothing else."""

import asyncio
import time
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from database import partitions, upkeep
from database.connect import Pool, acquire, open_pool
from database.load_runs import ensure_run, purge
from database.partitions import PARTS, ROLLUPS
from database.retention import drop_old
from database.settings import PostgresSettings, RetentionSettings
from tests.batches import Store, make_batch

COUNTER, GAUGE = b"c_total", b"g"
SETTINGS = RetentionSettings()
DAY_S = 86_400


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    """A pool on a fresh database whose partitions were made."""
    opened = await open_pool(PostgresSettings.model_validate({"postgres_dsn": dsn}))
    async with acquire(opened) as connection:
        await partitions.ensure(connection)
    yield opened
    await opened.close()


@pytest.fixture
def store(pool: Pool) -> Store:
    """Commits batches."""
    return Store(pool)


async def let_arrive(pool: Pool) -> None:
    """Let every part have arrived three minutes ago."""
    at_s = int(time.time()) - 180
    part = partitions.partition(PARTS, at_s)
    async with acquire(pool) as connection:
        await connection.execute(
            "SELECT make_partition($1, $2, $3::bigint, $4::bigint)", PARTS.parent, part.name, part.start_s, part.end_s
        )
        await connection.execute("UPDATE parts SET arrived = to_timestamp($1)", at_s)


async def run(pool: Pool, *, drained: bool = True) -> None:
    """Do one upkeep, in which nothing may fail."""
    assert await upkeep.run(pool, SETTINGS, drained=drained) == []


async def test_dropped_partitions_leave_their_sums(pool: Pool, store: Store) -> None:
    producer, old_s = uuid4().bytes, int(time.time()) // 3600 * 3600 - 3 * DAY_S
    await store.commit(make_batch(producer, 1, counters={COUNTER: (3, 4.5)}, window_s=old_s))
    await let_arrive(pool)
    await run(pool)
    assert await pool.fetchval("SELECT count(*) FROM rollup_10s") == 0
    archived = await pool.fetch("SELECT level, n, sum FROM archived")
    assert [tuple(row) for row in archived] == [("10s", 3, 4.5)]
    assert await pool.fetchval("SELECT n FROM rollup_1m") == 3
    assert await pool.fetchval("SELECT n FROM rollup_1h") == 3
    await store.commit(make_batch(producer, 2, counters={COUNTER: (1, 1.0)}, window_s=old_s, accepted=4))
    assert await pool.fetchval("SELECT n FROM totals") == 4


async def test_a_partition_that_holds_dirty_windows_is_kept(pool: Pool, store: Store) -> None:
    old_s = int(time.time()) // 3600 * 3600 - 3 * DAY_S
    await store.commit(make_batch(uuid4().bytes, 1, counters={COUNTER: (3, 4.5)}, window_s=old_s))
    await let_arrive(pool)
    async with acquire(pool) as connection:
        await upkeep.compact_closed(connection)
        assert await drop_old(connection, SETTINGS) == 0
    assert await pool.fetchval("SELECT n FROM rollup_10s") == 3


async def test_data_after_a_long_downtime_finds_its_partitions(pool: Pool, store: Store) -> None:
    now_s = int(time.time())
    async with acquire(pool) as connection:
        for kind in (PARTS, *ROLLUPS.values()):
            for part in await partitions.existing(connection, kind):
                await partitions.drop(connection, part)
        missed_s = now_s // 10 * 10 - 20 * 3600
        await partitions.ensure(connection, [missed_s])
        names = {
            part.name for kind in (PARTS, *ROLLUPS.values()) for part in await partitions.existing(connection, kind)
        }
    for kind in ROLLUPS.values():
        assert partitions.partition(kind, missed_s).name in names
        assert partitions.partition(kind, now_s + kind.width_s).name in names
    await store.commit(make_batch(uuid4().bytes, 1, counters={COUNTER: (1, 1.0)}, window_s=missed_s))


async def test_partitions_are_made_by_many_at_once(pool: Pool) -> None:
    async def make() -> None:
        async with acquire(pool) as connection:
            await partitions.ensure(connection, [int(time.time()) - 10 * DAY_S])

    await asyncio.gather(*(make() for _ in range(4)))


async def test_a_gap_is_lost_only_when_nothing_waits_and_its_producer_is_gone(pool: Pool, store: Store) -> None:
    producer, window_s = uuid4().bytes, int(time.time()) // 10 * 10
    await store.commit(make_batch(producer, 1, counters={COUNTER: (1, 1.0)}, window_s=window_s))
    await store.commit(make_batch(producer, 3, counters={COUNTER: (1, 1.0)}, window_s=window_s, accepted=6))
    await run(pool)
    assert await pool.fetchval("SELECT count(closed_at) FROM gaps") == 0
    await pool.execute("UPDATE producers SET last_seen = now() - interval '2 min'")
    await pool.execute("UPDATE gaps SET opened_at = now() - interval '2 min'")
    await run(pool, drained=False)
    assert await pool.fetchval("SELECT count(closed_at) FROM gaps") == 0
    await run(pool)
    assert await pool.fetchval("SELECT sum(sealed_after - sealed_before) FROM gaps WHERE closed_at IS NOT NULL") == 4


async def test_retired_producers_leave_their_counters(pool: Pool, store: Store) -> None:
    window_s = int(time.time()) // 10 * 10
    for service, drops in (("a", {"nonfinite": 1}), ("a", {"nonfinite": 2, "shutdown": 4}), ("b", {})):
        values = {GAUGE: [1.0]}
        batch = make_batch(
            uuid4().bytes, 1, counters={COUNTER: (2, 1.0)}, gauges=values, dropped=drops, service=service,
            window_s=window_s,
        )  # fmt: skip
        await store.commit(batch)
        await pool.execute("UPDATE producers SET last_seen = now() - interval '8 days'")
        await run(pool)
    retired = await pool.fetch(
        "SELECT producers, accepted, committed_events, dropped::text FROM retired ORDER BY service"
    )
    assert [tuple(row) for row in retired] == [(2, 13, 6, '{"shutdown": 4, "nonfinite": 3}'), (1, 3, 3, "{}")]
    assert await pool.fetchval("SELECT count(*) FROM producers") == 0
    assert await pool.fetchval("SELECT generation FROM state") == 4
    assert await pool.fetchval("SELECT sum(n) FROM totals") == 9


async def test_a_failing_step_does_not_stop_the_others(pool: Pool, store: Store) -> None:
    window_s = int(time.time()) // 60 * 60 - 600
    await store.commit(make_batch(uuid4().bytes, 1, counters={COUNTER: (3, 4.5)}, window_s=window_s))
    await let_arrive(pool)
    await pool.execute("ALTER TABLE quarantine RENAME TO elsewhere")
    failed = await upkeep.run(pool, SETTINGS, drained=True)
    assert [text.partition(":")[0] for text in failed] == ["pruning"]
    assert await pool.fetchval("SELECT n FROM rollup_1m") == 3


async def test_a_load_run_is_kept_up_apart_and_purged_for_good(pool: Pool, dsn: str) -> None:
    schema = await ensure_run(pool, "trial", 1, 1)
    assert schema is not None
    inside = await open_pool(PostgresSettings.model_validate({"postgres_dsn": dsn}), schema)
    try:
        window_s = int(time.time()) // 60 * 60 - 600
        batch = make_batch(uuid4().bytes, 1, counters={COUNTER: (3, 4.5)}, window_s=window_s, run_id="trial")
        await Store(inside).commit(batch)
        await let_arrive(inside)
        await run(pool)
        assert await inside.fetchval("SELECT n FROM rollup_10s") == 3
        assert await pool.fetchval("SELECT count(*) FROM rollup_10s") == 0
    finally:
        await inside.close()
    assert await purge(pool, "trial")
    assert await ensure_run(pool, "trial", 7, 1) is None
    assert await pool.fetchval("SELECT refused_events FROM load_runs") == 7
    assert not await pool.fetchval("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", schema)


async def test_activity_follows_the_commits(pool: Pool, store: Store) -> None:
    window_s = int(time.time()) // 10 * 10
    await store.commit(make_batch(uuid4().bytes, 1, counters={COUNTER: (3, 4.5)}, window_s=window_s))
    await pool.execute("UPDATE series SET active_at = now() - interval '2 days'")
    await pool.execute(
        "INSERT INTO series (metric_id, key_hash, key, active_at) "
        "SELECT metric_id, gen_random_uuid(), 'c_total{a=\"1\"}', now() - interval '2 days' FROM metrics"
    )
    await run(pool)
    assert await pool.fetchval("SELECT active FROM metrics") == 1
    assert await pool.fetchval("SELECT count(*) FROM series WHERE active_at > now() - interval '1 min'") == 1


async def test_two_upkeeps_do_not_run_at_once(pool: Pool, store: Store) -> None:
    window_s = int(time.time()) // 60 * 60 - 600
    await store.commit(make_batch(uuid4().bytes, 1, counters={COUNTER: (3, 4.5)}, window_s=window_s))
    await let_arrive(pool)
    async with upkeep.locked(pool, None) as connection:
        assert connection is not None
        await run(pool)
        assert await pool.fetchval("SELECT count(*) FROM rollup_10s") == 0
    await run(pool)
    assert await pool.fetchval("SELECT count(*) FROM rollup_10s") == 1
