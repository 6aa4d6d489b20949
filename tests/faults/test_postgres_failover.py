"""PostgreSQL failover: the standby that is promoted lacks a tail of commits, and nothing is lost.

Ledger and totals lack the same tail. The new timeline is noticed, a fence goes up, the retained streams are folded
again from before the switch, and the fence falls.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamgauge.processes import wait_until
from tests import postgres_pair
from tests.faults.link import Link
from tests.faults.test_zombies import ended
from tests.loading import COMMITTED, DEADLINE_S, DUPLICATES, FAST, Load, assert_exact, fetch
from tests.pipeline import Pipeline
from tests.postgres_pair import Server, until
from tests.served import Served

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

EVENTS = 24_000
TAIL = 3_000
"""Events that only the primary has committed, at least."""
RESTORED_S = "SELECT extract(epoch FROM max(lowered_at) - min(raised_at))::float8 FROM fences"
RUNS = "SELECT coalesce(sum(n), 0)::int FROM job_tallies"
"""Of jobs, ended: they are in no stream."""
OPEN_FENCES = "SELECT count(*) FROM fences WHERE lowered_at IS NULL"


AGGREGATORS_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'streamgauge-aggregator'"


def has_tail(primary: Server, standby: Server) -> bool:
    """Whether the standby has applied all that reached it, and still lacks so much."""
    if not standby.sql("SELECT pg_last_wal_replay_lsn() >= pg_last_wal_receive_lsn()"):
        return False
    return fetch(primary.dsn(), COMMITTED) > fetch(standby.dsn(), COMMITTED) + TAIL


def both(primary: Server, standby: Server) -> str:
    """Return the address that services have: whoever takes writes is used."""
    return primary.dsn(at=f"{primary.address},{standby.address}")


class Freezer:
    """SIGSTOP of a server with all its processes; called, it lets them go on."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stopped: list[int] = []

    def freeze(self) -> None:
        assert self._server.process is not None
        # The postmaster first: it must not make another one meanwhile.
        for pid in (self._server.process.pid, *self._server.backends()):
            os.kill(pid, signal.SIGSTOP)
            self._stopped.append(pid)

    def __call__(self) -> None:
        while self._stopped:
            os.kill(self._stopped.pop(), signal.SIGCONT)


@contextmanager
def frozen(server: Server) -> Generator[Freezer, None, None]:
    freezer = Freezer(server)
    try:
        yield freezer
    finally:
        freezer()


@pytest.fixture(params=postgres_pair.VERSIONS)
def primary(request: pytest.FixtureRequest) -> Iterator[Server]:
    with postgres_pair.home() as home:
        made = Server(home / "a", request.param)
        try:
            made.open()
            made.make_database()
            yield made
        finally:
            made.close()


@pytest.fixture
def link(primary: Server) -> Iterator[Link]:
    with Link("127.0.0.1", primary.port) as made:
        yield made


@pytest.fixture
def standby(primary: Server, link: Link) -> Iterator[Server]:
    made = primary.standby(primary.home.with_name("b"), link.port)
    try:
        yield made
    finally:
        made.close()


def test_a_lost_tail_of_commits_is_folded_again(
    tmp_path: Path,
    primary: Server,
    standby: Server,
    link: Link,
    redis_url: str,
    record_property: Callable[[str, object], None],
) -> None:
    """Asynchronous: the link is cut, the primary goes on alone, dies, and the standby takes over without the tail."""
    settings = FAST | {"STREAMGAUGE_COLLECT_METRICS_INTERVAL_S": "1"}
    with Pipeline(tmp_path, both(primary, standby), redis_url, **settings) as pipeline:
        pipeline.aggregator("aggregator-1")
        pipeline.aggregator("aggregator-2")
        pipeline.exporter()
        with Served(pipeline.port) as served:
            load = Load(pipeline, standby.dsn(), events=EVENTS)
            until(lambda: fetch(standby.dsn(), COMMITTED) > EVENTS // 10, "the standby follows")
            link.blackhole()
            until(lambda: has_tail(primary, standby), "a tail")
            until(lambda: fetch(primary.dsn(), RUNS) > fetch(standby.dsn(), RUNS), "a run of a job is in it")
            durable = fetch(primary.dsn(), COMMITTED)
            primary.kill()
            link.reset()
            assert fetch(standby.dsn(), COMMITTED) < durable - TAIL // 2, "the tail is lost"
            assert standby.sql("SELECT pg_promote()")
            promoted_at = time.monotonic()
            until(lambda: standby.sql(RESTORED_S) is not None, "restored", DEADLINE_S)
            record_property("restored_s", round(time.monotonic() - promoted_at, 1))
            record_property("refused_scrapes", served.refusals)
            assert_exact(pipeline, load, standby.dsn())
            assert wait_until(lambda: "streamgauge_committed" in pipeline.scrape(), DEADLINE_S), "served again"
            served.told("streamgauge_fenced")
        served.check(least=5)
        assert standby.sql(OPEN_FENCES) == 0
        assert fetch(standby.dsn(), DUPLICATES) > 0, "what the standby had was folded again and changed nothing"


@pytest.mark.parametrize("primary", ["18"], indirect=True)
def test_what_is_committed_to_a_second_primary_is_acknowledged_by_nobody(
    tmp_path: Path, primary: Server, standby: Server, link: Link, redis_url: str
) -> None:
    """An aggregator with connections from before goes on with the old one, which lives, is reached and takes writes."""
    settings = FAST | {"STREAMGAUGE_SHARDS": "1"}
    with (
        Link("127.0.0.1", primary.port) as name,
        Pipeline(tmp_path, primary.dsn(at=name.address), redis_url, **settings) as pipeline,
    ):
        pipeline.aggregator("aggregator-1")
        pipeline.exporter()
        pipeline.env["POSTGRES_DSN"] = standby.dsn()
        load = Load(pipeline, standby.dsn(), events=80_000)
        with Served(pipeline.port) as served, ended(load):
            until(lambda: fetch(standby.dsn(), COMMITTED) > EVENTS // 10, "the standby follows")
            link.blackhole()
            known = fetch(primary.dsn(), COMMITTED)
            until(lambda: fetch(primary.dsn(), COMMITTED) > known + TAIL, "a tail")
            assert standby.sql("SELECT pg_promote()")
            pipeline.start("aggregator-2", sys.executable, "-m", "streamgauge", "aggregate")
            until(lambda: standby.sql(RESTORED_S) is not None, "restored", DEADLINE_S)
            told = pipeline.log("aggregator-1")
            until(lambda: "not to be acknowledged any more" in told.read_text(), "its commits are refused")
            assert not pipeline.scrape(), "what the old one has is not served"
            name.lead_new_to("127.0.0.1", standby.port)
            assert_exact(pipeline, load, standby.dsn())
            assert wait_until(lambda: "streamgauge_committed" in pipeline.scrape(), DEADLINE_S), "served again"
        served.check(least=5)


@pytest.mark.parametrize("primary", ["18"], indirect=True)
def test_what_a_synchronous_standby_lacks_was_acknowledged_by_nobody(
    tmp_path: Path, primary: Server, standby: Server, link: Link, redis_url: str
) -> None:
    """7b: the standby is cut off, commits wait for it and are given up, again and again; then it takes over."""
    settings = FAST | {"STREAMGAUGE_STATEMENT_TIMEOUT_S": "1"}
    with Pipeline(tmp_path, both(primary, standby), redis_url, **settings) as pipeline:
        primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        primary.sql("SELECT pg_reload_conf()")
        pipeline.aggregator("aggregator-1")
        pipeline.exporter()
        with Served(pipeline.port) as served:
            load = Load(pipeline, standby.dsn(), events=EVENTS, at=standby.dsn())
            until(lambda: fetch(standby.dsn(), COMMITTED) > EVENTS // 10, "the standby follows")
            link.blackhole()
            until(lambda: "step_failed" in pipeline.log("aggregator-1").read_text(), "a commit is given up")
            served.told("streamgauge_stream_oldest_wait_seconds", 2)
            primary.kill()
            link.reset()
            assert standby.sql("SELECT pg_promote()")
            assert_exact(pipeline, load, standby.dsn())
        served.check(least=5)


@pytest.mark.parametrize("primary", ["18"], indirect=True)
def test_a_primary_that_hung_and_wakes_up_is_not_written_to(
    tmp_path: Path, primary: Server, standby: Server, redis_url: str
) -> None:
    """It accepts connections and never answers, then it does, and takes writes: it is on the older timeline."""
    settings = FAST | {"STREAMGAUGE_STATEMENT_TIMEOUT_S": "1"}
    with Pipeline(tmp_path, both(primary, standby), redis_url, **settings) as pipeline, frozen(primary) as wake_up:
        pipeline.aggregator("aggregator-1")
        pipeline.exporter()
        with Served(pipeline.port) as served:
            load = Load(pipeline, standby.dsn(), events=EVENTS, at=standby.dsn())
            until(lambda: fetch(standby.dsn(), COMMITTED) > EVENTS // 10, "the standby follows")
            wake_up.freeze()
            assert standby.sql("SELECT pg_promote()")
            until(lambda: standby.sql(RESTORED_S) is not None, "restored", DEADLINE_S)
            wake_up()
            assert primary.sql("SELECT NOT pg_is_in_recovery()"), "it would take writes"
            pipeline.aggregator("aggregator-2")
            pipeline.stop("aggregator-1", signal.SIGKILL)
            assert_exact(pipeline, load, standby.dsn())
            served.told_down("database")
        served.check(least=5)
        assert primary.sql(AGGREGATORS_SESSIONS) == 0
