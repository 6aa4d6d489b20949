"""Signals of the services on real servers: first runs know no growth, later ones do, a restart is no fall."""

import json
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from contract.streams import GROUP, SHARD_COUNT_KEY, stream_key
from database.connect import Pool, acquire, open_pool
from database.performance import note_counters
from database.settings import read_settings
from optimizers.job import Run
from optimizers.performance_optimizer import collect_metrics
from optimizers.settings import OptimizerSettings
from tests.exporting import exporter


@pytest.fixture
async def pool(dsn: str) -> AsyncGenerator[Pool, None]:
    found = await open_pool(read_settings(OptimizerSettings, {"POSTGRES_DSN": dsn}))
    yield found
    await found.close()


@pytest.fixture
def stream(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url, protocol=2, socket_timeout=10) as client:
        client.set(SHARD_COUNT_KEY, 1)
        client.xgroup_create(stream_key(0), GROUP, "0", mkstream=True)
        yield client


async def judged(pool: Pool, dsn: str, redis_url: str) -> dict[str, dict[str, Any]]:
    """Judge once; return what each signal says, with its advice by target."""
    settings = read_settings(OptimizerSettings, {"POSTGRES_DSN": dsn, "REDIS_URL": redis_url})
    await collect_metrics(Run(pool, settings, datetime.now(UTC)))
    async with exporter(dsn, redis_url) as client:
        shown = (await client.get("/metrics/performance")).json()
    said: dict[str, dict[str, Any]] = {one["signal"]: {**one, "advice": {}} for one in shown["signals"]}
    for one in shown["recommendations"]:
        if one["state"] == "proposed":
            said[one["kind"]]["advice"][one["target"]] = one
    return said


async def heartbeat(pool: Pool, committed: int, seconds: float) -> None:
    """Write what an aggregator would."""
    facts = {
        "committed_batches": committed,
        "commit_s": [seconds] * 30,
        "commit_batches": [400] * 30,
        "commit_max_batches": 400,
    }
    query = """INSERT INTO aggregators (consumer, seen_at, facts) VALUES ('test', now(), $1)
        ON CONFLICT (consumer) DO UPDATE SET seen_at = now(), facts = excluded.facts"""
    async with acquire(pool) as connection:
        await connection.execute(query, json.dumps(facts))


async def test_growth_is_known_from_the_second_run(dsn: str, redis_url: str, pool: Pool, stream: Any) -> None:
    await heartbeat(pool, 0, 0.5)
    stream.xadd(stream_key(0), {"b": b"x"})
    said = await judged(pool, dsn, redis_url)
    for signal in ("database_pool", "backlog"):
        assert said[signal]["status"] == "insufficient_data", said[signal]
    assert "compared with the run before" in said["backlog"]["detail"]
    assert said["redis"]["detail"].count("the next run can compare") == 1
    # Of commits the newest are known at once.
    assert said["writer_batch"]["advice"]["STREAMGAUGE_COMMIT_MAX_BATCHES"]["proposed"] == "200"
    with stream.pipeline() as pipe:
        for _ in range(500):
            pipe.xadd(stream_key(0), {"b": b"x"})
        pipe.execute()
    await heartbeat(pool, 10, 0.01)
    said = await judged(pool, dsn, redis_url)
    assert said["database_pool"]["status"] in ("ok", "warn")
    assert "busy on average" in said["database_pool"]["detail"]
    assert said["backlog"]["detail"].startswith("501 entries wait")
    assert (said["backlog"]["status"], list(said["backlog"]["advice"])) == ("warn", ["aggregator"])
    assert said["writer_batch"]["status"] == "ok"


async def test_a_lag_that_redis_does_not_know_is_not_judged(dsn: str, redis_url: str, pool: Pool, stream: Any) -> None:
    ids = [stream.xadd(stream_key(0), {"b": b"x"}) for _ in range(20)]
    stream.xreadgroup(GROUP, "test", {stream_key(0): ">"}, count=10)
    stream.xdel(stream_key(0), ids[15])
    await heartbeat(pool, 0, 0.1)
    await judged(pool, dsn, redis_url)
    said = await judged(pool, dsn, redis_url)
    assert (said["backlog"]["status"], said["backlog"]["advice"]) == ("insufficient_data", {})
    assert "does not know" in said["backlog"]["detail"]


async def test_a_redis_that_is_nearly_full_and_evicts_is_told(
    dsn: str, redis_url: str, pool: Pool, stream: Any
) -> None:
    await judged(pool, dsn, redis_url)
    try:
        stream.config_set("maxmemory", int(stream.info("memory")["used_memory"]) + 200_000)
        stream.config_set("maxmemory-policy", "allkeys-lru")
        for number in range(40):
            stream.set(f"filler {number}", b"x" * 20_000)
        assert stream.info("stats")["evicted_keys"] > 0
        said = await judged(pool, dsn, redis_url)
    finally:
        stream.config_set("maxmemory", 0)
        stream.config_set("maxmemory-policy", "noeviction")
    assert said["redis"]["status"] == "warn"
    assert {"redis memory", "redis eviction"} <= said["redis"]["advice"].keys()
    assert said["redis"]["advice"]["redis eviction"]["evidence"]["policy"] == "allkeys-lru"


async def test_a_source_that_began_anew_has_no_growth(pool: Pool) -> None:
    async with acquire(pool) as connection:
        assert await note_counters(connection, "s", "1", {"a": 5.0}) is None
        grown = await note_counters(connection, "s", "1", {"a": 7.0, "b": 1.0})
        assert grown is not None
        assert dict(grown.of) == {"a": 2.0}
        assert await note_counters(connection, "s", "2", {"a": 1.0}) is None
        fell = await note_counters(connection, "s", "2", {"a": 0.5})
        assert fell is not None
        assert dict(fell.of) == {}


async def test_redis_that_is_away_costs_its_own_signals_only(dsn: str, pool: Pool) -> None:
    said = await judged(pool, dsn, "redis://127.0.0.1:1")
    assert (said["backlog"]["status"], said["redis"]["status"]) == ("error", "error")
    assert said["writer_batch"]["status"] == "insufficient_data"
