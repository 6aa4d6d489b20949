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
from streamgauge.load_oracle import read_oracle
from streamgauge.processes import wait_until
from tests.loading import (
    COMMITTED,
    DEADLINE_S,
    DUPLICATES,
    EVENTS,
    FAST,
    Load,
    assert_audit,
    assert_exact,
    fetch,
)
from tests.pipeline import Pipeline

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@contextmanager
def loaded(tmp_path: Path, dsn: str, redis_url: str) -> Generator[tuple[Pipeline, Load], None, None]:
    with Pipeline(tmp_path, dsn, redis_url, **FAST) as pipeline:
        pipeline.aggregator("aggregator-1")
        load = Load(pipeline, dsn)
        try:
            assert wait_until(lambda: fetch(dsn, COMMITTED) > EVENTS // 10, DEADLINE_S)
            yield pipeline, load
        finally:
            load.process.kill()
            load.process.wait()


@pytest.mark.parametrize("point", ["before_commit", "after_commit", "before_ack"])
def test_aggregator_killed_around_its_commit(point: str, tmp_path: Path, dsn: str, redis_url: str) -> None:
    """Between COMMIT and XACK the entries are delivered again and change nothing; before it they are not lost."""
    with loaded(tmp_path, dsn, redis_url) as (pipeline, load):
        pipeline.stop("aggregator-1", signal.SIGKILL)
        dying = pipeline.aggregator("aggregator-2", STREAMGAUGE_CRASH_AT=point)
        assert wait_until(lambda: dying.poll() is not None, DEADLINE_S)
        assert dying.wait() == -signal.SIGKILL
        pipeline.aggregator("aggregator-3")
        assert_exact(pipeline, load, dsn)
        if point != "before_commit":
            assert fetch(dsn, DUPLICATES) > 0


def test_two_aggregators_of_which_either_is_killed(tmp_path: Path, dsn: str, redis_url: str) -> None:
    """They share the shards; the one that is left takes over the leases and the pending entries."""
    with loaded(tmp_path, dsn, redis_url) as (pipeline, load):
        pipeline.aggregator("aggregator-2")
        pipeline.stop("aggregator-1", signal.SIGKILL)
        before = fetch(dsn, COMMITTED)
        assert wait_until(lambda: fetch(dsn, COMMITTED) > before, DEADLINE_S)
        pipeline.aggregator("aggregator-3")
        pipeline.stop("aggregator-2", signal.SIGKILL)
        assert_exact(pipeline, load, dsn)


def test_redis_killed_under_load(tmp_path: Path, dsn: str, redis_url: str, redis_server: RedisServer) -> None:
    """AOF everysec keeps what was acknowledged; producers send the last seconds again; nothing counts twice."""
    with loaded(tmp_path, dsn, redis_url) as (pipeline, load):
        redis_server.kill()
        redis_server.open()
        assert_exact(pipeline, load, dsn)


def test_postgres_killed_under_load(tmp_path: Path, dsn: str, redis_url: str, postgres_server: PostgresServer) -> None:
    """Commits in doubt are settled by the ledger."""
    with loaded(tmp_path, dsn, redis_url) as (pipeline, load):
        postgres_server.kill()
        postgres_server.open()
        assert_exact(pipeline, load, dsn)


def test_producer_killed_under_load(tmp_path: Path, dsn: str, redis_url: str) -> None:
    """What it never sealed is an unknown tail; everything it sealed is committed, and nothing else differs."""
    with loaded(tmp_path, dsn, redis_url) as (pipeline, load):
        worker = next(c for c in psutil.Process(load.process.pid).children() if c.is_running())
        worker.send_signal(signal.SIGKILL)
        said = load.finish()
        assert said["killed"] == 1, said
        meant = read_oracle(load.oracle.parent.glob("oracle.*"))
        assert said["accepted"] == said["committed"] <= sum(series.n for series in meant.values()), said
        assert said["lost"] == said["quarantined"] == said["in_flight"] == 0, said
        unclean = "SELECT count(*) FROM producers WHERE NOT fin"
        assert fetch(dsn, unclean) == 1
        assert fetch(dsn, "SELECT sum(n)::bigint FROM totals") == fetch(dsn, COMMITTED) == said["committed"]
        assert_audit(pipeline)


IN_TRANSACTION = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'streamgauge-aggregator' "
    "AND datname = current_database() AND state LIKE 'idle in transaction%'"
)


def test_slow_aggregator_changes_nothing_twice(tmp_path: Path, dsn: str, redis_url: str) -> None:
    """Stopped inside its transaction for longer than the claim time, then continued: others did its work."""
    with loaded(tmp_path, dsn, redis_url) as (pipeline, load):
        slow = psutil.Process(pipeline.processes["aggregator-1"].pid)
        assert wait_until(lambda: stop_inside_transaction(slow, dsn), DEADLINE_S)
        pipeline.aggregator("aggregator-2")
        before = fetch(dsn, COMMITTED)
        assert wait_until(lambda: fetch(dsn, COMMITTED) > before, DEADLINE_S), "the other one goes on"
        stopped_at = time.monotonic()
        assert wait_until(lambda: time.monotonic() - stopped_at > 2, 5), "longer than the claim time"
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
