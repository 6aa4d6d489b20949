"""Thresholds are learnt from stored minutes, shown for the current hour, held by a pin and restored by a revert."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import numpy as np
import pytest

from contract import sketch
from database import partitions, thresholds
from database.connect import Pool, acquire, open_pool
from database.rows import Rows, write
from database.settings import read_settings
from database.sketches import buckets_of, count_entries, encode_rows
from optimizers.job import Outcome, Result, Run
from optimizers.recalibration import recalibrate
from optimizers.settings import OptimizerSettings
from tests.exporting import exporter, scrape, writer

DAYS = 28
METRIC = "http_request_p95_seconds"
KEY = 'http_request_duration_seconds{method="GET",route="/listings"}'
TOKEN = {"authorization": "Bearer secret"}


@pytest.fixture
async def pool(dsn: str) -> AsyncGenerator[Pool, None]:
    found = await open_pool(read_settings(OptimizerSettings, {"POSTGRES_DSN": dsn}))
    yield found
    await found.close()


def minutes(series: int, now_s: int, days: int, *, level: float = 0.1, step_s: int = 300, events: int = 30) -> Rows:
    """One row of `events` samples per 5 minutes, in its first minute; twice as slow by day, some noise."""
    at = np.arange(now_s // 300 * 300 - days * 86_400, now_s // 300 * 300, step_s, dtype=np.int64)
    rng = np.random.default_rng(1)
    daily = 1 + 0.5 * np.sin(2 * np.pi * (at % 86_400) / 86_400)
    values = level * daily[:, None] * np.exp(rng.normal(0, 0.1, (len(at), events)))
    row = np.repeat(np.arange(len(at)), events)
    lengths, packed = encode_rows(count_entries(row, buckets_of(values.ravel())), len(at))
    full = np.full(len(at), series, dtype=np.int64)
    n = np.full(len(at), events, dtype=np.int64)
    nan = np.full(len(at), np.nan)
    ends = (values.sum(1), values.min(1), values.max(1))
    return Rows(at, full, np.zeros_like(full), n, *ends, nan, lengths, packed)


async def fill(dsn: str, pool: Pool, days: int = DAYS) -> None:
    """Store minutes of one route."""
    now_s = int(datetime.now(UTC).timestamp())
    async with writer(dsn) as w:
        metric = await w.metric("http_request_duration_seconds", 3)
        series = await w.series(metric, KEY)
    async with acquire(pool) as connection:
        rows = minutes(series, now_s, days)
        await partitions.ensure(connection, np.unique(rows.window_s // 3600 * 3600).tolist())
        await write(connection, "rollup_1m", rows)


async def run(pool: Pool, dsn: str, now: datetime | None = None, **settings: str) -> Result:
    read = read_settings(OptimizerSettings, {"POSTGRES_DSN": dsn} | settings)
    return await recalibrate(Run(pool, read, now or datetime.now(UTC)))


async def number_of(pool: Pool, metric: str = METRIC) -> int:
    async with acquire(pool) as connection:
        return await connection.fetchval("SELECT threshold_id FROM thresholds WHERE metric = $1", metric)


async def of_one_hour(client: httpx.AsyncClient) -> tuple[dict[str, Any], dict[str, float]]:
    """Return a threshold and the samples of /metrics; an hour that ends between the two answers is asked for again."""
    while True:
        rows = (await client.get("/api/thresholds")).json()["thresholds"]
        seen = await scrape(client)
        mine = next(row for row in rows if row["metric"] == METRIC)
        if mine["bucket"] == thresholds.bucket_of(datetime.now(UTC)):
            return mine, seen


async def test_four_weeks_of_minutes_become_the_threshold_of_this_hour(dsn: str, redis_url: str, pool: Pool) -> None:
    await fill(dsn, pool)
    result = await run(pool, dsn)
    assert result.outcome is Outcome.DONE, result
    assert result.facts["methods"]["seasonal"] == 1, result.facts
    async with exporter(dsn, redis_url) as client:
        mine, seen = await of_one_hour(client)
        labels = f'metric="{METRIC}",route="/listings",severity="{{}}",side="high"'
        warn, critical = (seen[f"streamgauge_threshold{{{labels.format(s)}}}"] for s in ("warn", "critical"))
        hour = mine["bucket"] % 24 + 0.5
        usual = 0.1 * (1 + 0.5 * np.sin(2 * np.pi * hour / 24)) * np.exp(1.645 * 0.1)
        assert usual < warn < 2 * usual
        assert warn < critical
        assert seen[f'streamgauge_threshold_frozen{{metric="{METRIC}"}}'] == 0
        assert 0 <= seen["streamgauge_threshold_age_seconds"] < 300
    assert (mine["warn"], mine["critical"], mine["method"]) == (warn, critical, "seasonal")


async def test_too_little_history_keeps_the_static_thresholds_and_says_so(dsn: str, pool: Pool) -> None:
    await fill(dsn, pool, days=3)
    result = await run(pool, dsn)
    assert result.outcome is Outcome.INSUFFICIENT_DATA
    async with acquire(pool) as connection:
        rows = await thresholds.list_thresholds(connection, datetime.now(UTC))
    mine = next(row for row in rows if row["metric"] == METRIC)
    assert (mine["warn"], mine["critical"], mine["method"]) == (0.5, 1.0, "static")


async def test_a_pin_survives_the_next_run_and_a_revert_restores(dsn: str, redis_url: str, pool: Pool) -> None:
    await fill(dsn, pool)
    await run(pool, dsn)
    number = await number_of(pool)
    async with acquire(pool) as connection:
        learnt = await connection.fetch("SELECT bucket, warn, critical FROM threshold_values ORDER BY 1, 2")
        async with exporter(dsn, redis_url, STREAMGAUGE_EXPORTER_TOKEN="secret") as client:
            path, body = f"/api/thresholds/{number}", {"warn": 0.7, "critical": 0.9}
            assert (await client.post(f"{path}/pin", json=body)).status_code == 401
            crossed = await client.post(f"{path}/pin", json={"warn": 2, "critical": 1}, headers=TOKEN)
            assert (crossed.status_code, "critical may not be below" in crossed.text) == (400, True)
            pinned = await client.post(f"{path}/pin", json=body, headers=TOKEN)
            assert pinned.json() == {"id": number, "buckets": 48}
            await run(pool, dsn)
            values = await connection.fetch(
                "SELECT DISTINCT warn FROM threshold_values WHERE threshold_id = $1", number
            )
            assert [row["warn"] for row in values] == [0.7]
            assert (await client.post(f"{path}/revert", headers=TOKEN)).json()["buckets"] == 48
            assert (await client.post("/api/thresholds/999/revert", headers=TOKEN)).status_code == 404
            said = (await client.get(f"{path}/history", headers=TOKEN)).json()["changes"]
        assert await connection.fetch("SELECT bucket, warn, critical FROM threshold_values ORDER BY 1, 2") == learnt
        assert [row["reason"] for row in said[::48]][:3] == ["reverted", "pinned", "recalibrated"]
        assert not await connection.fetchval("SELECT bool_or(is_pinned) FROM threshold_values")


async def test_a_reverted_recalibration_is_not_done_again(dsn: str, pool: Pool) -> None:
    await fill(dsn, pool, days=3)
    await run(pool, dsn)
    number = await number_of(pool)
    async with acquire(pool) as connection:
        value = [thresholds.Value(5, 0.2, 0.3)]
        options = {"method": "seasonal", "reason": "recalibrated", "actor": "test"}
        await thresholds.set_values(connection, number, value, **options)  # type: ignore[arg-type]
        assert await thresholds.revert(connection, number, "test", 5) == 1
        await run(pool, dsn)
        query = "SELECT warn, is_pinned FROM threshold_values WHERE threshold_id = $1 AND bucket = 5"
        assert tuple(await connection.fetchrow(query, number) or ()) == (0.5, True)


async def test_without_a_token_nobody_may_pin(dsn: str, redis_url: str) -> None:
    async with exporter(dsn, redis_url) as client:
        answer = await client.post("/api/thresholds/1/pin", json={"warn": 1, "critical": 2})
    assert answer.status_code == 403
    assert "STREAMGAUGE_EXPORTER_TOKEN" in answer.text


async def test_a_breach_is_told_and_what_is_unknown_is_none(dsn: str, pool: Pool) -> None:
    await fill(dsn, pool, days=3)
    await run(pool, dsn)
    now = datetime.now(UTC)
    async with acquire(pool) as connection:
        assert await thresholds.breaches(connection, now) == []
        assert {row["actual"] for row in await thresholds.list_thresholds(connection, now)} == {None}
        series = await connection.fetchval("SELECT series_id FROM series WHERE key = $1", KEY)
        window = now.replace(microsecond=0) - timedelta(seconds=60 + now.second % 10)
        counts: dict[int, int] = {}
        sketch.fold([0.8] * 40, counts)
        await partitions.ensure(connection, [int(window.timestamp())])
        insert = "INSERT INTO rollup_10s VALUES ($1, $2, 0, 40, 32, 0.8, 0.8, NULL, $3)"
        await connection.execute(insert, window, series, sketch.encode(counts))
        found = await thresholds.breaches(connection, now)
    assert [(row["metric"], row["severity"]) for row in found] == [(METRIC, "warn")]
    assert found[0]["actual"] == pytest.approx(0.8, rel=0.02)


async def test_a_change_keeps_old_new_method_and_actor(dsn: str, pool: Pool) -> None:
    await fill(dsn, pool)
    await run(pool, dsn)
    async with acquire(pool) as connection:
        row = (await thresholds.changes(connection, await number_of(pool), 1))[0]
        once = await connection.fetchval("SELECT count(*) FROM threshold_changes")
    assert (row["old_warn"], row["method"], row["reason"]) == (None, "seasonal", "recalibrated")
    assert row["actor"] == "recalibrate_thresholds"
    assert row["n"] >= 60
    assert row["mad"] > 0
    await run(pool, dsn)
    async with acquire(pool) as connection:
        moved = await connection.fetchval("SELECT max(abs(new_warn / old_warn - 1)) FROM threshold_changes")
        again = await connection.fetchval("SELECT count(*) FROM threshold_changes")
    assert moved is None or moved < 0.001
    assert again <= 2 * once
