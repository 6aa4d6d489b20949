"""Roll-ups on a real PostgreSQL: what compaction writes, carries, merges and marks."""

import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from database import partitions, rollup
from database.connect import Pool, acquire, open_pool
from database.partitions import PARTS
from database.settings import PostgresSettings
from tests.batches import Store, make_batch

COUNTER, GAUGE, HISTOGRAM = b'c_total{a="1"}', b"g", b'h_seconds{a="1"}'


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


def minute() -> int:
    """Return the start of this minute (the tests' servers share our clock)."""
    return int(time.time()) // 60 * 60


async def arrive(pool: Pool, at_s: float) -> None:
    """Let every part that arrived just now have arrived at `at_s`, in the order it stands."""
    async with acquire(pool) as connection:
        await partitions.ensure(connection)
        part = partitions.partition(PARTS, int(at_s))
        await connection.execute(
            "SELECT make_partition($1, $2, $3::bigint, $4::bigint)", PARTS.parent, part.name, part.start_s, part.end_s
        )
        await connection.execute(
            "UPDATE parts SET arrived = to_timestamp($1) WHERE arrived > now() - interval '5 s'", at_s
        )


async def compact_all(pool: Pool) -> int:
    """Compact every closed minute; returns how many there were."""
    async with acquire(pool) as connection:
        closed = await rollup.closed_parts(connection)
        for part in closed:
            await rollup.compact(connection, part)
    return len(closed)


async def rows(pool: Pool, table: str, key: bytes) -> list[dict[str, Any]]:
    """Return a series' rows in window order."""
    async with acquire(pool) as connection:
        found = await connection.fetch(
            f"SELECT extract(epoch FROM window_start)::bigint AS window_s, n, sum, min, max, last, sketch "
            f"FROM {table} JOIN series USING (series_id) WHERE key = $1 ORDER BY window_start",
            key.decode(),
        )
    return [dict(row) for row in found]


async def test_commits_of_a_window_become_one_row(pool: Pool, store: Store) -> None:
    producer, window_s = uuid4().bytes, minute() - 300
    for seq in (1, 2):
        values = {HISTOGRAM: [0.5 * seq, 2.0]}
        batch = make_batch(
            producer, seq, counters={COUNTER: (3, 4.5)}, gauges={GAUGE: [7.0, seq]}, histograms=values,
            window_s=window_s, accepted=7 * seq,
        )  # fmt: skip
        await store.commit(batch)
    await arrive(pool, minute() - 200)
    assert await compact_all(pool) == 1
    (counter,) = await rows(pool, "rollup_10s", COUNTER)
    (gauge,) = await rows(pool, "rollup_10s", GAUGE)
    (histogram,) = await rows(pool, "rollup_10s", HISTOGRAM)
    assert (counter["n"], counter["sum"], counter["min"], counter["sketch"]) == (6, 9.0, None, None)
    assert (gauge["n"], gauge["min"], gauge["max"], gauge["last"]) == (4, 1.0, 7.0, 2.0)
    assert (histogram["n"], histogram["sum"], histogram["min"], histogram["max"]) == (4, 5.5, 0.5, 2.0)
    assert not await rows(pool, "parts", COUNTER)


async def test_a_window_still_open_at_the_end_of_its_minute_is_written_once(pool: Pool, store: Store) -> None:
    producer, end_s = uuid4().bytes, minute() - 120
    await store.commit(make_batch(producer, 1, gauges={GAUGE: [1.0]}, window_s=end_s - 10))
    await arrive(pool, end_s - 1)
    await store.commit(make_batch(producer, 2, gauges={GAUGE: [2.0]}, window_s=end_s - 10, accepted=2))
    await arrive(pool, end_s + 1)
    await compact_all(pool)
    (gauge,) = await rows(pool, "rollup_10s", GAUGE)
    assert (gauge["n"], gauge["last"]) == (2, 2.0)
    assert await pool.fetchval("SELECT max(revision) FROM windows WHERE level = '10s'") == 0


async def test_late_data_is_merged_and_restates_its_window(pool: Pool, store: Store) -> None:
    producer, window_s = uuid4().bytes, minute() - 600
    for seq, samples in ((1, [1.0]), (2, [2.0, 4.0])):
        batch = make_batch(producer, seq, histograms={HISTOGRAM: samples}, window_s=window_s, accepted=2 * seq - 1)
        await store.commit(batch)
        await arrive(pool, minute() - 200)
        await compact_all(pool)
    (histogram,) = await rows(pool, "rollup_10s", HISTOGRAM)
    assert (histogram["n"], histogram["sum"], histogram["max"]) == (3, 7.0, 4.0)
    assert await pool.fetchval("SELECT revision FROM windows WHERE level = '10s'") == 1


async def test_levels_follow_and_late_data_reaches_them(pool: Pool, store: Store) -> None:
    producer, hour_s = uuid4().bytes, minute() // 3600 * 3600 - 7200
    for seq, window_s in enumerate((hour_s, hour_s + 10, hour_s + 60, hour_s + 10), 1):
        await store.commit(make_batch(producer, seq, counters={COUNTER: (1, 2.0)}, window_s=window_s, accepted=seq))
        await arrive(pool, minute() - 200)
        await compact_all(pool)
        async with acquire(pool) as connection:
            for level in ("1m", "1h"):
                while await rollup.roll_up(connection, level):
                    pass
    by_minute = [(row["window_s"], row["n"], row["sum"]) for row in await rows(pool, "rollup_1m", COUNTER)]
    assert by_minute == [(hour_s, 3, 6.0), (hour_s + 60, 1, 2.0)]
    assert [(row["window_s"], row["n"]) for row in await rows(pool, "rollup_1h", COUNTER)] == [(hour_s, 4)]
    assert await pool.fetchval("SELECT count(*) FROM dirty") == 0


async def test_compaction_waits_for_a_writer_that_is_still_in_flight(pool: Pool, store: Store) -> None:
    producer, window_s = uuid4().bytes, minute() - 300
    await store.commit(make_batch(producer, 1, counters={COUNTER: (1, 1.0)}, window_s=window_s))
    await arrive(pool, minute() - 200)
    async with acquire(pool) as writer, acquire(pool) as compactor:
        await writer.execute("BEGIN")
        await writer.execute("INSERT INTO parts SELECT p.* FROM parts p")
        await compactor.execute("SET lock_timeout = '200ms'")
        (closed,) = await rollup.closed_parts(compactor)
        with pytest.raises(Exception, match="lock timeout"):
            await rollup.compact(compactor, closed)
        await writer.execute("COMMIT")
        assert await rollup.compact(compactor, closed) == 2
    (counter,) = await rows(pool, "rollup_10s", COUNTER)
    assert counter["n"] == 2
