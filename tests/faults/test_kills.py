"""Kill -9 of each part under load: afterwards every event the oracle wrote is committed, once."""

import asyncio
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest

from database.connect import SCHEMA
from streamgauge.embedded import PostgresServer, RedisServer
from streamgauge.processes import wait_until
from streamgauge.stack import get
from tests.exporting import samples
from tests.faults.bench import Bench
from tests.faults.oracle import SPOOLS, Spool
from tests.loading import COMMITTED, DEADLINE_S, DUPLICATES, EVENTS, FAST, Load, assert_exact, fetch
from tests.pipeline import Pipeline
from tests.served import Served

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@contextmanager
def loaded(
    tmp_path: Path, dsn: str, redis_url: str, aggregators: int = 1
) -> Generator[tuple[Pipeline, Load, Served], None, None]:
    """A load a tenth of which is through, and an exporter that is scraped until the end: no counter may fall."""
    with Pipeline(tmp_path, dsn, redis_url, **FAST) as pipeline:
        for number in range(aggregators):
            pipeline.aggregator(f"aggregator-{number + 1}")
        pipeline.exporter()
        with Served(pipeline.port) as served:
            served.told("streamgauge_aggregators", aggregators)
            load = Load(pipeline, dsn)
            try:
                assert wait_until(lambda: fetch(dsn, COMMITTED) > EVENTS // 10, DEADLINE_S)
                yield pipeline, load, served
            finally:
                load.process.kill()
                load.process.communicate()
        served.check(least=5)


def sample(pipeline: Pipeline, name: str) -> float:
    """Return the sum of a metric's samples; 0 while there is none, or while nothing is served."""
    status, body = get(pipeline.port, "/metrics")
    found = samples(body.decode()) if status == 200 else {}
    return sum(value for key, value in found.items() if key.partition("{")[0] == name)


@pytest.mark.parametrize("point", ["before_commit", "after_commit", "before_ack"])
def test_aggregator_killed_around_its_commit(point: str, tmp_path: Path, dsn: str, redis_url: str) -> None:
    """Between COMMIT and XACK the entries are delivered again and change nothing; before it they are not lost."""
    with loaded(tmp_path, dsn, redis_url) as (pipeline, load, served):
        pipeline.stop("aggregator-1", signal.SIGKILL)
        dying = pipeline.aggregator("aggregator-2", STREAMGAUGE_CRASH_AT=point)
        assert wait_until(lambda: dying.poll() is not None, DEADLINE_S)
        assert dying.wait() == -signal.SIGKILL
        pipeline.aggregator("aggregator-3")
        assert_exact(pipeline, load, dsn)
        if point != "before_commit":
            served.told("streamgauge_duplicate_batches_total")


def test_two_aggregators_of_which_either_is_killed(tmp_path: Path, dsn: str, redis_url: str) -> None:
    """They share the shards; the one that is left takes over the leases and the pending entries."""
    with loaded(tmp_path, dsn, redis_url, aggregators=2) as (pipeline, load, _):
        pipeline.stop("aggregator-1", signal.SIGKILL)
        before = fetch(dsn, COMMITTED)
        assert wait_until(lambda: fetch(dsn, COMMITTED) > before, DEADLINE_S)
        assert wait_until(lambda: sample(pipeline, "streamgauge_aggregators") == 1, DEADLINE_S), "it is told"
        pipeline.aggregator("aggregator-3")
        pipeline.stop("aggregator-2", signal.SIGKILL)
        assert_exact(pipeline, load, dsn)


def test_redis_killed_under_load(tmp_path: Path, dsn: str, redis_url: str, redis_server: RedisServer) -> None:
    """AOF everysec keeps what was acknowledged; producers send the last seconds again; nothing counts twice."""
    with loaded(tmp_path, dsn, redis_url) as (pipeline, load, served):
        redis_server.kill()
        served.told_down("redis")
        redis_server.open()
        assert_exact(pipeline, load, dsn)
        assert fetch(dsn, DUPLICATES) > 0, "the last seconds came again"


def test_postgres_killed_under_load(tmp_path: Path, dsn: str, redis_url: str, postgres_server: PostgresServer) -> None:
    """Commits in doubt are settled by the ledger."""
    with loaded(tmp_path, dsn, redis_url) as (pipeline, load, served):
        postgres_server.kill()
        served.told_down("database")
        served.told("streamgauge_scrapes_total", outcome="unavailable")
        postgres_server.open()
        assert_exact(pipeline, load, dsn)


@pytest.mark.parametrize("spool", SPOOLS)
def test_producer_killed_under_load(spool: Spool, tmp_path: Path, dsn: str, redis_url: str) -> None:
    """What it emitted and never sent is what its spool does not cover; all else is committed, and nothing differs."""
    # One shard: who lives is judged by what came later to the same one.
    with Bench(tmp_path, dsn, redis_url, spool=spool, STREAMGAUGE_SHARDS="1") as bench:
        bench.exporter()
        bench.aggregator()
        killed = bench.emitters.start(40_000, rate=2000)
        bench.emitters.start(6_000, rate=2000)
        bench.grows(4_000)
        bench.emitters.kill(killed)
        book = next(book for book in bench.check(5) if book.name == killed)
        assert 0 < book.emitted < 40_000
        assert book.accepted == book.committed > 0
        assert book.fin == (spool == "events"), "its successor knows that this was all"
        if not book.fin:
            bench.let_an_hour_pass()
            bench.emitters.start(10)
            bench.emitters.finish()
            bench.told("streamgauge_producers", 1, state="unclean")


IN_TRANSACTION = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'streamgauge-aggregator' "
    "AND datname = current_database() AND state LIKE 'idle in transaction%'"
)


def test_slow_aggregator_changes_nothing_twice(tmp_path: Path, dsn: str, redis_url: str) -> None:
    """Stopped inside its transaction for longer than the claim time, then continued: others did its work."""
    with loaded(tmp_path, dsn, redis_url) as (pipeline, load, served):
        slow = psutil.Process(pipeline.processes["aggregator-1"].pid)
        assert wait_until(lambda: stop_inside_transaction(slow, dsn), DEADLINE_S)
        pipeline.aggregator("aggregator-2")
        before = fetch(dsn, COMMITTED)
        assert wait_until(lambda: fetch(dsn, COMMITTED) > before, DEADLINE_S), "the other one goes on"
        stopped_at = time.monotonic()
        assert wait_until(lambda: time.monotonic() - stopped_at > 2, 5), "longer than the claim time"
        served.told("streamgauge_stream_oldest_wait_seconds", 1)
        slow.resume()
        assert_exact(pipeline, load, dsn)


WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'streamgauge-aggregator' "
    "AND datname = current_database() AND wait_event_type = 'Lock'"
)


def stop_inside_transaction(process: psutil.Process, dsn: str) -> bool:
    """SIGSTOP the process while PostgreSQL works for it: a lock on the totals holds its transaction until then."""
    return asyncio.run(_stop_inside(process, dsn))


async def _stop_inside(process: psutil.Process, dsn: str) -> bool:
    connection = await asyncpg.connect(dsn, timeout=10, command_timeout=10)
    try:
        await connection.execute(f"BEGIN; LOCK TABLE {SCHEMA}.totals IN SHARE MODE")
        is_waiting = await _holds(connection, WAITING)
        process.suspend()
        await connection.execute("ROLLBACK")
        if is_waiting and await _holds(connection, IN_TRANSACTION):
            return True
        process.resume()
        return False
    finally:
        await connection.close(timeout=10)


async def _holds(connection: "asyncpg.Connection[asyncpg.Record]", query: str) -> bool:
    """Whether something is counted within 8 s (the aggregator waits for a lock for 10 s)."""
    deadline = time.monotonic() + 8
    while not await connection.fetchval(query):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True
