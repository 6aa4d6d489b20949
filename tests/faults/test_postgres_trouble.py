"""PostgreSQL that crashes, hangs, is slow or is demoted while events keep coming, and exporters that come and go.

Afterwards everything is committed once, nothing waits, and no scrape saw a counter fall.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from contract.streams import FIELD, full_key, stream_key
from producers.sender import MAX_WAITING
from streamgauge import processes
from tests import postgres_pair
from tests.batches import make_batch
from tests.exporting import samples
from tests.faults.bench import Bench
from tests.faults.link import Link
from tests.faults.oracle import total
from tests.faults.test_zombies import ended
from tests.fundamentals.test_one_effect import NOW_S
from tests.loading import COMMITTED, DEADLINE_S, DUPLICATES, FAST, Load, assert_exact, fetch
from tests.pipeline import Pipeline
from tests.postgres_pair import Server, until
from tests.served import Served

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

EVENTS = 16_000
RATE = 4_000
WRITERS_BACK_S = 30.0
"""A writer finds the new primary within the deadline of a connection (2 s); the rest is for a busy machine."""
MOST_CLAIMS = 3
"""Per batch, on average: whoever is slower than the claim time does some work again, not ever more of it."""
MOST_GROWTH_BYTES = 64 << 20
BATCHES = "SELECT sum(upper(r) - lower(r))::bigint FROM producers, unnest(applied) AS r"
SESSIONS = "FROM pg_stat_activity WHERE application_name = 'streamgauge-aggregator' AND datname = current_database()"


@pytest.fixture
def primary() -> Iterator[Server]:
    with postgres_pair.home() as home:
        made = Server(home / "a")
        try:
            made.open()
            made.make_database()
            yield made
        finally:
            made.close()


@contextmanager
def loaded(pipeline: Pipeline, *, at: str) -> Generator[Load, None, None]:
    """A load test that is a sixth through; `at`: where the totals are in the end."""
    load = Load(pipeline, at, events=EVENTS, rate=RATE, at=at)
    with ended(load):
        until(lambda: fetch(at, COMMITTED) > EVENTS // 6, "the load is on its way")
        yield load


def goes_on(dsn: str) -> None:
    """Wait for a commit that is made from now on."""
    before = fetch(dsn, COMMITTED)
    until(lambda: fetch(dsn, COMMITTED) > before, "a commit")


def test_backends_killed_and_the_server_stopped_at_once(tmp_path: Path, primary: Server, redis_url: str) -> None:
    """A killed backend takes all others with it; an immediate shutdown is recovered from as a crash."""
    with Pipeline(tmp_path, primary.dsn(), redis_url, **FAST) as pipeline:
        pipeline.aggregator("aggregator-1")
        pipeline.exporter()
        with Served(pipeline.port) as served, loaded(pipeline, at=primary.dsn()) as load:
            pid = primary.sql(f"SELECT pid {SESSIONS} ORDER BY state_change DESC LIMIT 1")
            os.kill(pid, signal.SIGKILL)
            goes_on(primary.dsn())
            primary.end(signal.SIGQUIT)
            served.told_down("database")
            primary.open()
            assert_exact(pipeline, load, primary.dsn())
        served.check(least=5)


def test_slow_postgresql_holds_back_and_costs_no_memory(tmp_path: Path, primary: Server, redis_url: str) -> None:
    """A slow network, a locked table, a stopped backend, one after the other: what waits, waits in the stream."""
    settings = FAST | {"STREAMGAUGE_RECLAIM_IDLE_S": "3"}
    with (
        Link("127.0.0.1", primary.port) as link,
        Pipeline(tmp_path, primary.dsn(at=link.address), redis_url, **settings) as pipeline,
    ):
        aggregator = psutil.Process(pipeline.aggregator("aggregator-1").pid)
        pipeline.exporter()
        with Served(pipeline.port) as served, loaded(pipeline, at=primary.dsn()) as load:
            before = aggregator.memory_info().rss
            link.delay(1.0)
            goes_on(primary.dsn())
            served.told("streamgauge_stream_oldest_wait_seconds", 2)
            link.pass_on()
            stop_while_locked(pipeline, primary)
            assert_exact(pipeline, load, primary.dsn())
            grown = peak_bytes(aggregator) - before
        served.check(least=5)
        assert grown < MOST_GROWTH_BYTES, f"grew by {grown / 2**20:.1f} MiB"
        batches = fetch(primary.dsn(), BATCHES)
        assert fetch(primary.dsn(), DUPLICATES) <= MOST_CLAIMS * batches, "claimed again and again"


def peak_bytes(process: psutil.Process) -> int:
    """Return the most memory that a process ever had (Linux)."""
    status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM:"))


def stop_while_locked(pipeline: Pipeline, primary: Server) -> None:
    """Lock the totals, stop the backend that waits for them, and look at what is told meanwhile."""
    locker = primary.psql("BEGIN; LOCK TABLE streamgauge.totals IN SHARE MODE; SELECT pg_sleep(3)")
    waiting = f"SELECT pid {SESSIONS} AND wait_event_type = 'Lock'"
    until(lambda: primary.sql(waiting) is not None, "a commit waits for the lock")
    pid = primary.sql(waiting)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert locker.wait(DEADLINE_S) == 0
        until(lambda: waiting_events(pipeline) > 0, "what waits is told")
    finally:
        os.kill(pid, signal.SIGCONT)


def test_producers_are_held_back_though_postgresql_is_away(tmp_path: Path, dsn: str, redis_url: str) -> None:
    """The cap of the stream holds for as long as nothing is committed, whoever of the aggregators was there before."""
    settings: Any = {"STREAMGAUGE_STREAM_MAX_BYTES": "1048576", "STREAMGAUGE_TRIM_INTERVAL_S": "0.5"}
    key, flag = stream_key(0), full_key(0)
    with Bench(tmp_path, dsn, redis_url, STREAMGAUGE_SHARDS="1", **settings) as bench, bench.client() as client:
        bench.exporter()
        name = bench.aggregator()
        bench.emitters.start(40_000, rate=1000)
        bench.grows()
        bench.postgres_link.blackhole()
        for seq, data in enumerate(fillers(), 1):
            client.xadd(key, {FIELD: data})
            assert seq < 100 or client.memory_usage(key) > 1 << 20
        bench.until(lambda: client.exists(flag), "producers are held back")
        held, meant = client.xlen(key), total(bench.emitters.books(), "meant")
        looks = [client.pttl(flag)]

        def is_renewed() -> bool:
            looks.append(client.pttl(flag))
            return looks[-1] > looks[-2]

        for _ in range(3):
            bench.until(is_renewed, "they are still held back")
        bench.until(lambda: total(bench.emitters.books(), "meant") > meant + 5000, "emitting goes on")
        assert client.xlen(key) <= held + 2 * MAX_WAITING, "and is merged"
        bench.told("streamgauge_stream_oldest_wait_seconds", 5, "/metrics/self")
        bench.kill(name)
        client.delete(flag)
        bench.begin_aggregator()
        bench.until(lambda: client.exists(flag), "held back by one that has never seen PostgreSQL")
        bench.postgres_link.pass_on()
        bench.until(lambda: not client.exists(flag), "it drains, and they may send")
        bench.check(5)


def fillers() -> list[bytes]:
    """Batches of another producer that take more than 1 MiB of a stream."""
    values = [random.Random(seq).random() for seq in range(4000)]
    return [
        make_batch(bytes(16), seq, histograms={b"filler": values}, window_s=NOW_S, accepted=4000 * seq)
        for seq in range(1, 101)
    ]


def waiting_events(pipeline: Pipeline) -> float:
    """Return the events in flight, by /metrics; 0 when it is not served."""
    text = pipeline.scrape()
    found = samples(text) if text else {}
    return sum(value for key, value in found.items() if key.startswith("streamgauge_in_flight_events"))


def test_a_demoted_primary_lets_go_of_its_writers(tmp_path: Path, primary: Server, redis_url: str) -> None:
    """Its connections stay open and answer 25006: they are closed, and the standby that took over is found."""
    standby = primary.standby(primary.home.with_name("b"), primary.port)
    both = primary.dsn(at=f"{primary.address},{standby.address}")
    again: Server | None = None
    try:
        with Pipeline(tmp_path, both, redis_url, **FAST) as pipeline:
            pipeline.aggregator("aggregator-1")
            pipeline.exporter()
            with Served(pipeline.port) as served, loaded(pipeline, at=standby.dsn()) as load:
                primary.sql("ALTER SYSTEM SET default_transaction_read_only = on")
                primary.sql("SELECT pg_reload_conf()")
                until(lambda: "ReadOnlySQLTransaction" in pipeline.log("aggregator-1").read_text(), "25006")
                served.told("streamgauge_stream_oldest_wait_seconds", 2)
                assert standby.sql("SELECT pg_promote()")
                promoted_at = time.monotonic()
                goes_on(standby.dsn())
                until(lambda: primary.sql(f"SELECT count(*) {SESSIONS}") == 0, "no writer is stuck")
                assert time.monotonic() - promoted_at < WRITERS_BACK_S
                primary.close()
                again = standby.standby(primary.home.with_name("c"), standby.port, port=primary.port)
                assert_exact(pipeline, load, standby.dsn())
                until(lambda: fetch(again.dsn(), COMMITTED) == EVENTS, "the old primary follows the new one")
            served.check(least=5)
            assert again.sql(f"SELECT count(*) {SESSIONS}") == 0, "nobody writes to it"
    finally:
        if again is not None:
            again.close()
        standby.close()


def test_exporters_that_come_and_go_never_show_less(tmp_path: Path, primary: Server, redis_url: str) -> None:
    """Two behind one address, asked at random; one is killed and restarted, the other reaches a lagging standby too."""
    standby = primary.standby(primary.home.with_name("b"), primary.port, recovery_min_apply_delay="3s")
    try:
        with Pipeline(tmp_path, primary.dsn(), redis_url, **FAST) as pipeline:
            pipeline.aggregator("aggregator-1")
            one = pipeline.exporter()
            two = start_exporter(pipeline, primary.dsn(at=f"{standby.address},{primary.address}"), "exporter-two")
            behind = start_exporter(pipeline, standby.dsn(), "exporter-behind")
            with Served(pipeline.port, two, behind) as served, loaded(pipeline, at=primary.dsn()) as load:
                pipeline.stop("exporter", signal.SIGKILL)
                assert one.returncode == -signal.SIGKILL
                pipeline.exporter()
                assert_exact(pipeline, load, primary.dsn())
            served.check(least=20)
            assert served.by_port[pipeline.port] and served.by_port[two]
            assert not served.by_port[behind], "a standby is never asked for totals"
    finally:
        standby.close()


def start_exporter(pipeline: Pipeline, dsn: str, name: str) -> int:
    """Start another exporter; returns its port."""
    port = processes.free_port()
    pipeline.start(
        name,
        sys.executable,
        "-m",
        "streamgauge",
        "export",
        env={"POSTGRES_DSN": dsn, "STREAMGAUGE_EXPORTER_PORT": str(port)},
    )
    return port
