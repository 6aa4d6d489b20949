"""Kill -9 of each part under load: afterwards every event the oracle wrote is committed, once."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from database.connect import AWAY, SCHEMA
from streamgauge.embedded import PostgresServer, RedisServer
from streamgauge.load_oracle import read_oracle
from streamgauge.loadtest import compare_oracle
from streamgauge.processes import wait_until
from tests.pipeline import Pipeline

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

DEADLINE_S = 90.0
EVENTS = 60_000
RATE = 8_000
FAST = {
    "STREAMGAUGE_RECLAIM_IDLE_S": "1",
    "STREAMGAUGE_RECLAIM_INTERVAL_S": "0.5",
    "STREAMGAUGE_LEASE_S": "1.5",
    "STREAMGAUGE_COMMIT_INTERVAL_S": "0.1",
}


class Load:
    """A load test in a process of its own, with its oracle files."""

    def __init__(self, pipeline: Pipeline, dsn: str, *options: str) -> None:
        self.dsn = dsn
        self.oracle = pipeline.folder / "oracle"
        command = [sys.executable, "-m", "streamgauge", "loadtest", "--real", "--json", "--oracle", str(self.oracle)]
        command += ["--events", str(EVENTS), "--rate", str(RATE), "--series", "40", "--producers", "2"]
        command += ["--deadline", str(DEADLINE_S), *options]
        self.process = subprocess.Popen(
            command, env=pipeline.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def finish(self) -> dict[str, Any]:
        """Wait for its end and return its last line."""
        out, err = self.process.communicate(timeout=2 * DEADLINE_S)
        assert out, err
        return json.loads(out.splitlines()[-1])

    def differences(self) -> list[str]:
        """Compare totals with the oracle, series by series: counts, sums, `le` counts."""
        files = sorted(self.oracle.parent.glob("oracle.*"))
        assert files
        return [str(difference) for difference in compare_oracle(files, self.dsn, SCHEMA)]


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


COMMITTED = "SELECT coalesce(sum(committed_events), 0)::bigint FROM producers"
DUPLICATES = "SELECT coalesce(sum(duplicates), 0)::bigint FROM producers"


def fetch(dsn: str, query: str) -> int:
    """Return one number; 0 while the server cannot be reached."""

    async def ask() -> int:
        connection = await asyncpg.connect(dsn, timeout=5, server_settings={"search_path": SCHEMA})
        try:
            return int(await connection.fetchval(query, timeout=5) or 0)
        finally:
            await connection.close(timeout=5)

    try:
        return asyncio.run(ask())
    except AWAY:
        return 0


def assert_exact(pipeline: Pipeline, load: Load, dsn: str) -> None:
    """Everything that was sent is committed once, says the oracle, the ledger and the audit."""
    said = load.finish()
    assert said["sent"] == EVENTS, said
    assert said["committed"] == said["accepted"] == EVENTS, said
    assert said["lost"] == said["dropped"] == said["quarantined"] == said["in_flight"] == 0, said
    assert load.differences() == []
    assert fetch(dsn, "SELECT sum(n)::bigint FROM totals") == fetch(dsn, COMMITTED)
    assert_audit(pipeline)


def assert_audit(pipeline: Pipeline) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "streamgauge", "audit", "--json"],
        env=pipeline.env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["ok"]


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
