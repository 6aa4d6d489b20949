"""Signals of what producers send: services and releases are read from rollups as they were stored."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from database import partitions
from database.connect import Pool, acquire, open_pool
from database.performance import read_performance, store_signal
from database.rows import Rows, write
from database.settings import read_settings
from database.sketches import buckets_of, count_entries, encode_rows
from optimizers.job import Run
from optimizers.performance_optimizer import collect_metrics
from optimizers.producer_signals import read_services
from optimizers.release_history import read_releases
from optimizers.settings import OptimizerSettings
from optimizers.signals.staffing import Load
from tests.exporting import writer

ADVICE: dict[str, Any] = {
    "target": "/a", "current": "", "proposed": "", "expected_effect": "", "evidence": {}, "confidence": "low"
}  # fmt: skip


@pytest.fixture
async def pool(dsn: str) -> AsyncGenerator[Pool, None]:
    found = await open_pool(read_settings(OptimizerSettings, {"POSTGRES_DSN": dsn}))
    yield found
    await found.close()


async def store(
    pool: Pool, level: str, series: int, starts: range, samples: list[float], counter: bool = False
) -> None:
    """Store the same samples in each window."""
    at = np.array(starts, dtype=np.int64)
    value = np.array(samples)
    full = np.full(len(at), series, dtype=np.int64)
    none = np.full(len(at), np.nan)
    row = np.repeat(np.arange(len(at)), len(samples))
    lengths, packed = encode_rows(count_entries(row, buckets_of(np.tile(value, len(at)))), len(at))
    if counter:
        lengths, packed = np.full(len(at), -1, dtype=np.int64), np.empty(0, dtype=np.uint8)
    sums = np.full(len(at), value.sum())
    ends = (none, none) if counter else (np.full(len(at), value.min()), np.full(len(at), value.max()))
    count = np.full(len(at), len(samples), dtype=np.int64)
    async with acquire(pool) as connection:
        await partitions.ensure(connection, np.unique(at // 3600 * 3600).tolist())
        rows = Rows(at, full, np.zeros_like(full), count, sums, *ends, none, lengths, packed)
        await write(connection, level, rows)


def now_minute() -> tuple[datetime, int]:
    now = datetime.now(UTC)
    return now, int(now.timestamp()) // 60 * 60


async def test_services_are_kept_apart_and_minutes_without_data_are_not_idle(dsn: str, pool: Pool) -> None:
    now, end = now_minute()
    async with writer(dsn) as w:
        cpu = await w.metric("process_cpu_seconds_total", 1)
        lag = await w.metric("event_loop_lag_seconds", 3)
        series = {
            name: (
                await w.series(cpu, f'process_cpu_seconds_total{{service="{name}"}}'),
                await w.series(lag, f'event_loop_lag_seconds{{service="{name}"}}'),
            )
            for name in ("shop", "mail")
        }
        for age_s, fin in ((0, False), (0, False), (60, False), (0, True)):
            await w.producer("shop", age_s=age_s, fin=fin)
    shop = range(end - 1200, end, 60)
    await store(pool, "rollup_1m", series["shop"][0], shop, [2.0] * 60, counter=True)
    await store(pool, "rollup_1m", series["shop"][1], shop, [0.001] * 97 + [0.3] * 3)
    await store(pool, "rollup_1m", series["mail"][0], range(end - 3600, end - 1860, 60), [9.0], counter=True)
    async with acquire(pool) as connection:
        found = await read_services(connection, now)
    assert found.loads == {"shop": Load(2, 2.0, 20, None)}
    assert found.lags["shop"].p99_s == pytest.approx(0.3, rel=0.011)
    assert (list(found.lags), found.lags["shop"].samples) == (["shop"], 2000)


async def test_requests_are_known_of_a_service_that_is_alone(dsn: str, pool: Pool) -> None:
    now, end = now_minute()
    async with writer(dsn) as w:
        cpu = await w.metric("process_cpu_seconds_total", 1)
        http = await w.metric("http_requests_total", 1)
        number = await w.series(cpu, 'process_cpu_seconds_total{service="shop"}')
        routes = [await w.series(http, f'http_requests_total{{route="{route}"}}') for route in ("/a", "/b")]
    minutes = range(end - 600, end, 60)
    await store(pool, "rollup_1m", number, minutes, [30.0], counter=True)
    for route in routes:
        await store(pool, "rollup_1m", route, minutes, [1.0] * 90, counter=True)
    async with acquire(pool) as connection:
        assert (await read_services(connection, now)).loads == {"shop": Load(0, 0.5, 10, 3.0)}


@pytest.mark.parametrize(("age_s", "level", "step_s"), [(3000, "rollup_1m", 60), (6 * 3600, "rollup_1h", 3600)])
async def test_releases_are_compared_around_the_moment_the_newest_began(
    dsn: str, redis_url: str, pool: Pool, age_s: int, level: str, step_s: int
) -> None:
    now, end = now_minute()
    began = (end - age_s) // step_s * step_s
    key = 'http_request_duration_seconds{{method="GET",release="{}",route="/a",status_class="{}"}}'
    async with writer(dsn) as w:
        metric = await w.metric("http_request_duration_seconds", 3)
        created = "UPDATE series SET created_at = to_timestamp($2) WHERE series_id = $1"
        old, new, failed = [
            await w.series(metric, key.format(*of)) for of in (("1", "2xx"), ("2", "2xx"), ("2", "5xx"))
        ]
        for number, at in ((old, began - 20 * 86_400), (new, began), (failed, began + 60)):
            await w.connection.execute(created, number, at)
    await store(pool, level, old, range(began - 5 * step_s, began, step_s), [0.1] * 60)
    await store(pool, level, old, range(began - 9 * 86_400, began - 9 * 86_400 + step_s, step_s), [9.0] * 600)
    await store(pool, level, new, range(began, began + 4 * step_s, step_s), [0.2] * 50)
    await store(pool, level, failed, range(began, began + step_s, step_s), [0.2] * 10)
    async with acquire(pool) as connection:
        found = (await read_releases(connection, now))["/a"]
    assert (found.newest.release, found.newest.requests) == ("2", 210)
    assert (found.before.release, found.before.requests) == ("1", 300)
    assert found.before.p95_s == pytest.approx(0.1, rel=0.011)
    settings = read_settings(OptimizerSettings, {"POSTGRES_DSN": dsn, "REDIS_URL": redis_url})
    await collect_metrics(Run(pool, settings, now))
    async with acquire(pool) as connection:
        stored = await read_performance(connection)
    (advice,) = [one for one in stored["recommendations"] if one["kind"] == "release_latency"]
    assert (advice["target"], advice["evidence"]["release"]) == ("/a", "2")
    assert {one["signal"]: one["status"] for one in stored["signals"]}["workers"] == "insufficient_data"


async def test_advice_on_what_was_not_judged_stays_for_14_days(pool: Pool) -> None:
    async with acquire(pool) as connection:

        async def states(status: str, judged: list[str] | None) -> dict[str, str]:
            await store_signal(connection, "latency_drift", status, "", [], judged)
            return {one["target"]: one["state"] for one in (await read_performance(connection))["recommendations"]}

        await store_signal(connection, "latency_drift", "warn", "", [ADVICE, {**ADVICE, "target": "/b"}], ["/a", "/b"])
        assert await states("ok", ["/b", "/c"]) == {"/a": "proposed", "/b": "gone"}
        assert (await states("insufficient_data", None))["/a"] == "proposed"
        await connection.execute("UPDATE recommendations SET last_seen = now() - interval '15 days'")
        assert (await states("insufficient_data", None))["/a"] == "gone"
