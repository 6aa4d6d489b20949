"""Performance: a route that became slower is recommended while it lasts, and gone afterwards."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import numpy as np
import pytest

from database import partitions
from database.connect import Pool, acquire, open_pool
from database.rows import Rows, write
from database.settings import read_settings
from database.sketches import buckets_of, count_entries, encode_rows
from optimizers.job import Outcome, Result, Run
from optimizers.performance_optimizer import collect_metrics
from optimizers.settings import OptimizerSettings
from tests.exporting import exporter, scrape, writer

SAMPLES = 60


@pytest.fixture
async def pool(dsn: str) -> AsyncGenerator[Pool, None]:
    found = await open_pool(read_settings(OptimizerSettings, {"POSTGRES_DSN": dsn}))
    yield found
    await found.close()


def history(series: int, now_s: int, days: int, slower: float) -> Rows:
    """Rows of 60 samples per 5 minutes, the time of day on each day; the newest half hour `slower` times as slow."""
    end = now_s // 300 * 300
    spans = [
        np.arange(end - 3600 - d * 86_400, end + (1800 if d else 0) - d * 86_400, 300) for d in range(days, -1, -1)
    ]
    at = np.concatenate(spans).astype(np.int64)
    rng = np.random.default_rng(1)
    values = 0.1 * np.exp(rng.normal(0, 0.1, (len(at), SAMPLES)))
    values[at >= end - 1800] *= slower
    row = np.repeat(np.arange(len(at)), SAMPLES)
    lengths, packed = encode_rows(count_entries(row, buckets_of(values.ravel())), len(at))
    full = np.full(len(at), series, dtype=np.int64)
    n = np.full(len(at), SAMPLES, dtype=np.int64)
    ends = (values.sum(1), values.min(1), values.max(1))
    return Rows(at, full, np.zeros_like(full), n, *ends, np.full(len(at), np.nan), lengths, packed)


async def fill(dsn: str, pool: Pool, now: datetime, days: int) -> None:
    """Store minutes of a route that is as it was, and of one that became twice as slow."""
    async with writer(dsn) as w:
        metric = await w.metric("http_request_duration_seconds", 3)
        names = {"/same": 1.0, "/slow": 2.0}
        numbers = {
            route: await w.series(metric, f'http_request_duration_seconds{{method="GET",route="{route}"}}')
            for route in names
        }
    async with acquire(pool) as connection:
        for route, slower in names.items():
            rows = history(numbers[route], int(now.timestamp()), days, slower)
            await partitions.ensure(connection, np.unique(rows.window_s // 3600 * 3600).tolist())
            await write(connection, "rollup_1m", rows)


async def run(pool: Pool, dsn: str, redis_url: str, now: datetime) -> Result:
    settings = read_settings(OptimizerSettings, {"POSTGRES_DSN": dsn, "REDIS_URL": redis_url})
    return await collect_metrics(Run(pool, settings, now))


async def test_a_route_that_became_slower_is_recommended_until_it_is_not(dsn: str, redis_url: str, pool: Pool) -> None:
    now = datetime.now(UTC)
    await fill(dsn, pool, now, days=14)
    result = await run(pool, dsn, redis_url, now)
    assert result.outcome is Outcome.DONE, result
    async with exporter(dsn, redis_url) as client:
        shown = (await client.get("/metrics/performance")).json()
        (found,) = [one for one in shown["recommendations"] if one["kind"] == "latency_regression"]
        assert (found["target"], found["state"]) == ("/slow", "proposed")
        assert 1.8 < found["evidence"]["ratio"] < 2.2
        assert found["evidence"]["requests"] == 6 * SAMPLES
        said = {one["signal"]: one["status"] for one in shown["signals"]}
        assert said["latency_regression"] == "warn"
        seen = await scrape(client)
        assert seen['streamgauge_recommendations{kind="latency_regression",state="proposed"}'] == 1
        assert abs(seen["streamgauge_collected_timestamp_seconds"] - datetime.now(UTC).timestamp()) < 300
        await run(pool, dsn, redis_url, now)
        again = (await client.get("/metrics/performance")).json()
        kept = [one for one in again["recommendations"] if one["kind"] == "latency_regression"]
        assert [(one["id"], one["first_seen"]) for one in kept] == [(found["id"], found["first_seen"])]
        async with acquire(pool) as connection:
            await connection.execute(
                "UPDATE rollup_1m SET sketch = (SELECT sketch FROM rollup_1m "
                "WHERE window_start < now() - interval '1 day' ORDER BY window_start LIMIT 1) "
                "WHERE window_start > now() - interval '40 minutes'"
            )
        await run(pool, dsn, redis_url, now)
        later = (await client.get("/metrics/performance")).json()
        (gone,) = [one for one in later["recommendations"] if one["kind"] == "latency_regression"]
        assert (gone["id"], gone["state"]) == (found["id"], "gone")


async def test_too_little_history_is_said_and_recommends_nothing(dsn: str, redis_url: str, pool: Pool) -> None:
    now = datetime.now(UTC)
    await fill(dsn, pool, now, days=2)
    await run(pool, dsn, redis_url, now)
    async with exporter(dsn, redis_url) as client:
        shown = (await client.get("/metrics/performance")).json()
    said = {one["signal"]: one for one in shown["signals"]}
    assert said["latency_regression"]["status"] == "insufficient_data"
    assert "2 days with requests at this time, 5 needed" in said["latency_regression"]["detail"]
    assert shown["recommendations"] == []
