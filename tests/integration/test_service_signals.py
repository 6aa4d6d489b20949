"""Signals of the services on real servers: first runs know no growth, later ones do, a restart is no fall."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from contract.streams import GROUP, SHARD_COUNT_KEY, stream_key
from database.connect import Pool, acquire, open_pool
from database.performance import note_counters
from database.redis_link import open_link
from database.settings import read_settings
from optimizers.job import Run
from optimizers.performance_optimizer import collect_metrics
from optimizers.service_signals import commits_of, read_aggregators, read_server
from optimizers.settings import OptimizerSettings
from streamgauge.embedded import RedisServer
from tests.exporting import exporter
from tests.pipeline import Pipeline
from tests.servers import Servers, redis_binaries

OLD_REDIS = [version for version in redis_binaries() if int(version.split(".")[0]) < 7]


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


async def age(pool: Pool, seconds: float = 60.0) -> None:
    """Let what the newest run noted be older."""
    async with acquire(pool) as connection:
        await connection.execute("UPDATE signal_counters SET at = at - make_interval(secs => $1)", seconds)


async def heartbeat(pool: Pool, committed: int, seconds: float, consumer: str = "test", *lacks: str) -> None:
    """Write what an aggregator would."""
    facts = {
        "committed_batches": committed,
        "commit_s": [seconds] * 30,
        "commit_batches": [400] * 30,
        "commit_rows": [8000] * 30,
        "commit_age_s": [1.0] * 30,
        "commit_max_batches": 400,
    }
    query = """INSERT INTO aggregators (consumer, seen_at, facts) VALUES ($2, now(), $1)
        ON CONFLICT (consumer) DO UPDATE SET seen_at = now(), facts = excluded.facts"""
    async with acquire(pool) as connection:
        told = {name: value for name, value in facts.items() if name not in lacks}
        await connection.execute(query, json.dumps(told), consumer)


async def leave(pool: Pool, consumer: str) -> None:
    """Sign an aggregator off."""
    async with acquire(pool) as connection:
        await connection.execute("DELETE FROM aggregators WHERE consumer = $1", consumer)


def add(stream: Any, count: int, shard: int = 0) -> None:
    """Add entries that nobody reads."""
    with stream.pipeline() as pipe:
        for _ in range(count):
            pipe.xadd(stream_key(shard), {"b": b"x"})
        pipe.execute()


async def test_growth_is_known_from_the_second_run(dsn: str, redis_url: str, pool: Pool, stream: Any) -> None:
    await heartbeat(pool, 0, 0.5)
    stream.xadd(stream_key(0), {"b": b"x"})
    said = await judged(pool, dsn, redis_url)
    for signal in ("database_pool", "backlog"):
        assert said[signal]["status"] == "insufficient_data", said[signal]
    assert "compared with the run before" in said["backlog"]["detail"]
    assert said["redis"]["detail"].count("the next run can compare") == 2
    # Of commits the newest are known at once.
    assert said["writer_batch"]["advice"]["STREAMGAUGE_COMMIT_MAX_BATCHES"]["proposed"] == "200"
    add(stream, 500)
    await heartbeat(pool, 10, 0.01)
    await age(pool)
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
        # Much more than buffers of clients take: Redis refuses a write where evicting every key is not enough.
        stream.config_set("maxmemory", int(stream.info("memory")["used_memory"]) + 4_000_000)
        stream.config_set("maxmemory-policy", "allkeys-lru")
        for number in range(300):
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


async def test_a_run_right_after_another_compares_with_nothing_and_keeps_what_was_noted(
    dsn: str, redis_url: str, pool: Pool, stream: Any
) -> None:
    await heartbeat(pool, 100, 0.1)
    add(stream, 10)
    await judged(pool, dsn, redis_url)
    await age(pool, 25)
    add(stream, 10)
    said = await judged(pool, dsn, redis_url)
    for signal in ("backlog", "database_pool"):
        assert said[signal]["status"] == "insufficient_data", said[signal]
        assert re.search(r"the run before was 2\d s ago, 30 needed", said[signal]["detail"])
    await age(pool, 10)
    # The same heartbeat 35 s later is an aggregator that stands still.
    said = await judged(pool, dsn, redis_url)
    assert (said["backlog"]["status"], said["database_pool"]["status"]) != ("insufficient_data", "insufficient_data")
    assert "nothing is processed" in said["backlog"]["detail"]


async def test_other_aggregators_than_before_are_no_standstill(
    dsn: str, redis_url: str, pool: Pool, stream: Any
) -> None:
    add(stream, 10)
    await heartbeat(pool, 100, 0.1, "old")
    await judged(pool, dsn, redis_url)
    await age(pool)
    await leave(pool, "old")
    await heartbeat(pool, 5, 0.1, "new")
    said = await judged(pool, dsn, redis_url)
    assert said["backlog"]["status"] == "insufficient_data", said["backlog"]
    assert "of the same aggregators" in said["backlog"]["detail"]
    # One more beside it is another set, too.
    await age(pool)
    await heartbeat(pool, 1, 0.1, "third")
    assert (await judged(pool, dsn, redis_url))["backlog"]["status"] == "insufficient_data"
    await age(pool)
    assert (await judged(pool, dsn, redis_url))["backlog"]["status"] == "warn"


async def test_a_sum_that_fell_is_unknown_and_not_zero(dsn: str, redis_url: str, pool: Pool, stream: Any) -> None:
    add(stream, 10)
    await heartbeat(pool, 100, 0.1)
    await judged(pool, dsn, redis_url)
    await age(pool)
    await heartbeat(pool, 5, 0.1)
    assert (await judged(pool, dsn, redis_url))["backlog"]["status"] == "insufficient_data"


async def test_a_shard_that_is_new_is_not_judged(dsn: str, redis_url: str, pool: Pool, stream: Any) -> None:
    add(stream, 10)
    await heartbeat(pool, 1, 0.1)
    await judged(pool, dsn, redis_url)
    await age(pool)
    stream.set(SHARD_COUNT_KEY, 2)
    add(stream, 10, shard=1)
    said = await judged(pool, dsn, redis_url)
    assert said["backlog"]["status"] == "insufficient_data", said["backlog"]
    assert "did not know every stream" in said["backlog"]["detail"]


async def test_a_heartbeat_of_an_older_version_costs_the_backlog_only(
    dsn: str, redis_url: str, pool: Pool, stream: Any
) -> None:
    await heartbeat(pool, 1, 0.1, "old", "committed_batches", "commit_s", "commit_age_s", "commit_max_batches")
    said = await judged(pool, dsn, redis_url)
    assert "of an older version" in said["backlog"]["detail"]
    assert (said["redis"]["status"], said["writer_batch"]["status"]) == ("ok", "insufficient_data")


async def test_a_bug_in_one_source_costs_its_own_signals_only(
    dsn: str, redis_url: str, pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    async with acquire(pool) as connection:
        await connection.execute("""INSERT INTO aggregators (consumer, seen_at, facts) VALUES ('odd', now(),
            '{"commit_s": 5, "commit_batches": 5, "commit_age_s": 5, "commit_max_batches": 5}')""")
    said = await judged(pool, dsn, redis_url)
    assert (said["writer_batch"]["status"], said["redis"]["status"]) == ("error", "ok")
    assert said["writer_batch"]["detail"] == "could not be read: TypeError"
    assert [one.exc_info is not None for one in caplog.records if one.msg == "signal_failed"] == [True]


async def test_redis_that_restarted_is_compared_with_nothing(
    dsn: str, redis_server: RedisServer, redis_url: str, pool: Pool, stream: Any
) -> None:
    add(stream, 50)
    await heartbeat(pool, 1, 0.1)
    await judged(pool, dsn, redis_url)
    await age(pool)
    said = await judged(pool, dsn, redis_url)
    assert said["backlog"]["status"] == "warn"
    assert "can compare" not in said["redis"]["detail"]
    redis_server.restart()
    await age(pool)
    said = await judged(pool, dsn, redis_url)
    assert said["backlog"]["status"] == "insufficient_data", said["backlog"]
    assert "in this life of Redis" in said["backlog"]["detail"]
    assert said["redis"]["detail"].count("the next run can compare") == 2


async def test_statistics_that_were_reset_are_compared_with_nothing(dsn: str, redis_url: str, pool: Pool) -> None:
    await judged(pool, dsn, redis_url)
    await age(pool)
    assert (await judged(pool, dsn, redis_url))["database_pool"]["status"] in ("ok", "warn")
    async with acquire(pool) as connection:
        # As if nothing had been busy before: that the counter fell is not what tells.
        await connection.execute("UPDATE signal_counters SET counters = '{\"busy_ms\": 0}'")
        await connection.execute("SELECT pg_stat_reset()")
    await age(pool)
    said = await judged(pool, dsn, redis_url)
    assert said["database_pool"]["status"] == "insufficient_data", said["database_pool"]
    assert "there is none yet" in said["database_pool"]["detail"]


@pytest.mark.skipif(not OLD_REDIS, reason="there is no Redis before version 7 here")
async def test_redis_6_is_said_not_to_tell(dsn: str, servers: Servers, pool: Pool) -> None:
    server = servers.redis(OLD_REDIS[0])
    with redis.Redis.from_url(server.url, protocol=2, socket_timeout=10) as client:
        client.flushall()
        client.set(SHARD_COUNT_KEY, 1)
        client.xgroup_create(stream_key(0), GROUP, "0", mkstream=True)
        await heartbeat(pool, 1, 0.1)
        await judged(pool, dsn, server.url)
        await age(pool)
        said = await judged(pool, dsn, server.url)
    assert said["backlog"]["status"] == "insufficient_data"
    assert "before version 7 does not tell" in said["backlog"]["detail"]


async def test_what_info_lacks_is_none(dsn: str, redis_url: str, pool: Pool) -> None:
    link = open_link(read_settings(OptimizerSettings, {"POSTGRES_DSN": dsn, "REDIS_URL": redis_url}))
    try:
        info = await link.info()
        async with acquire(pool) as connection:
            assert (await read_server(connection, link, info)).buffer_bytes is not None
            lacks = {name: info[name] for name in info if name != "aof_delayed_fsync" and "mem_clients" not in name}
            server = await read_server(connection, link, lacks)
    finally:
        await link.aclose()
    assert (server.buffer_bytes, server.delayed_fsyncs, server.tells_fsyncs) == (None, None, False)


async def test_a_stall_is_told_by_what_latency_noted_and_no_setting_is_read(
    dsn: str, redis_url: str, pool: Pool, stream: Any
) -> None:
    """As a user who may not CONFIG GET, which would show him passwords."""
    stream.acl_setuser("looks", enabled=True, nopass=True, commands=["+time", "+latency|latest"])
    stream.execute_command("LATENCY RESET")
    url = redis_url.replace("redis://", "redis://looks:@")
    link = open_link(read_settings(OptimizerSettings, {"POSTGRES_DSN": dsn, "REDIS_URL": url}))
    info = stream.info()
    try:
        async with acquire(pool) as connection:
            assert (await read_server(connection, link, info)).worst_ms is None
            stream.config_set("latency-monitor-threshold", 5)
            stream.eval("local at = redis.call('TIME') repeat local now = redis.call('TIME') "
                        "until (now[1] - at[1]) * 1000000 + now[2] - at[2] > 50000", 0)  # fmt: skip
            stalled_ms = (await read_server(connection, link, info)).worst_ms
    finally:
        await link.aclose()
        stream.config_set("latency-monitor-threshold", 0)
        stream.execute_command("LATENCY RESET")
        stream.acl_deluser("looks")
    assert stalled_ms is not None
    assert stalled_ms >= 40


@pytest.mark.parametrize("redis_server", redis_binaries(), indirect=True)
async def test_times_of_commands_and_look_ups_are_read_where_redis_tells(
    pool: Pool, redis_url: str, redis_server: RedisServer
) -> None:
    """Version 7 and newer tell of times; all count keys found and not found."""
    link = open_link(read_settings(OptimizerSettings, {"REDIS_URL": redis_url}))
    try:
        server = await told_by(pool, link)
        assert server.lookups is None, "nothing to compare with yet"
        await link.set("here", "1")
        for key in ("here", "here", "there"):
            await link.get(key)
        await link.xadd("sg:{00}", {"b": b"x"})
        server = await told_by(pool, link)
        version = int(str((await link.info())["redis_version"]).split(".")[0])
    finally:
        await link.aclose()
    found, missed = server.lookups or (0, 0)
    assert found >= 2 and missed >= 1
    if version < 7:
        assert server.percentiles_ms is None
    else:
        assert 0 < (server.percentiles_ms or {})["xadd"]["p99"] < 10_000


async def told_by(pool: Pool, link: Any) -> Any:
    async with acquire(pool) as connection:
        return await read_server(connection, link, await link.info())


EMIT = """
import time
from streamgauge import Counter
served = Counter("served_total", "Requests served.")
while True:
    served.inc()
    time.sleep(0.02)
"""


Heartbeats = dict[str, dict[str, Any]]


async def until(pool: Pool, claim: Callable[[Heartbeats], bool], highest: dict[str, int]) -> Heartbeats:
    """Wait for a claim on the heartbeats; what an aggregator says it committed may not fall meanwhile."""
    async with asyncio.timeout(40):
        while True:
            async with acquire(pool) as connection:
                found = await read_aggregators(connection)
            for name, facts in found.items():
                assert facts["committed_batches"] >= highest.get(name, 0), f"the sum of {name} fell: {facts}"
                highest[name] = facts["committed_batches"]
            if claim(found):
                return found
            await asyncio.sleep(0.05)


async def test_what_an_aggregator_says_is_read_and_never_falls(
    dsn: str, redis_url: str, pool: Pool, tmp_path: Path
) -> None:
    highest: dict[str, int] = {}
    fast = {"STREAMGAUGE_SHARDS": "2", "STREAMGAUGE_LEASE_S": "2", "STREAMGAUGE_HEARTBEAT_S": "0.2"}
    with Pipeline(tmp_path, dsn, redis_url, **fast, STREAMGAUGE_COMMIT_INTERVAL_S="0.2") as pipeline:
        pipeline.aggregator("aggregator 1")
        # Both shards get something: a producer has one, which its random identity decides.
        for number in range(6):
            pipeline.emitter(EMIT, f"emitter {number}", STREAMGAUGE_SERVICE="shop")
        found = await until(
            pool, lambda all_: any(facts["committed_batches"] >= 20 for facts in all_.values()), highest
        )
        ((name, commits),) = commits_of(found).items()
        assert commits.max_batches == 400
        assert len(commits.seconds) == len(commits.batches) > 0
        assert all(0 < seconds < 30 for seconds in commits.seconds)
        assert found[name]["shards"] == [0, 1]
        # With a setting of its own it is not waited for: the sums are watched from here on.
        pipeline.aggregator("aggregator 2", STREAMGAUGE_LEASE_S="2")
        said = pipeline.log("aggregator 1")
        await until(pool, lambda _: "shard_stopped" in said.read_text(), highest)
        # More than one interval of commits later, whoever committed, the heartbeat was written anew.
        enough = sum(highest.values()) + 12
        found = await until(
            pool, lambda all_: sum(each["committed_batches"] for each in all_.values()) >= enough, highest
        )
        assert len(found[name]["shards"]) == 1
