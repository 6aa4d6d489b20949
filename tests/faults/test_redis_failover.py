"""Redis fails over and the new master lacks a tail: three nodes and three Sentinels of the shipped files, under load.

Promise: what producers had acknowledged within 2 s is sent again, so that a tail no longer than that costs nothing; of
a longer one that nobody had read `lost` is exactly what the oracle misses; acknowledgements that come undone count
nothing twice; no id of the lost tail makes anybody skip or trim what follows; no served counter falls.
"""

import os
import re
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest
import redis

from contract.streams import DEFAULT_SHARDS, FIELD, stream_key
from database.connect import SCHEMA
from streamgauge.loadtest import compare_oracle
from streamgauge.processes import wait_until
from tests.batches import make_batch
from tests.loading import (
    COMMITTED,
    DEADLINE_S,
    DUPLICATES,
    FAST,
    STALLED_S,
    Load,
    assert_audit,
    assert_exact,
    fetch,
    since_last_commit,
)
from tests.pipeline import Pipeline
from tests.redis_deployed import SENTINELS, STREAMS, Deployment
from tests.served import Served

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

SOON = {
    **FAST,
    "STREAMGAUGE_UPKEEP_INTERVAL_S": "1",
    "STREAMGAUGE_SCHEDULE_JITTER_S": "0",
    "STREAMGAUGE_REPLAY_WINDOW_S": "4",
    "STREAMGAUGE_TRIM_INTERVAL_S": "1",
}
"""Gaps are closed and streams trimmed within seconds."""
SHORT_S = 1.0
"""Producers keep what was acknowledged 2 s ago (producers/sender.py); half of it is for what nobody had read before."""
ATTEMPTS = 4
EVENTS = 50_000
RATE = 5_000


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("redis")) as made:
        made.open()
        yield made


@contextmanager
def loaded(deployment: Deployment, dsn: str, folder: Path) -> Generator[tuple[Pipeline, Load], None, None]:
    """A load through Sentinels, an aggregator, and an exporter that is scraped all the time."""
    assert wait_until(lambda: deployment.replicas() == 2, DEADLINE_S)
    with deployment.client("admin") as client:
        client.flushall()
        assert client.wait(2, 10_000) == 2
    with Pipeline(folder, dsn, deployment.url("aggregator"), **SOON) as pipeline:
        pipeline.aggregator()
        pipeline.exporter()
        with Served(pipeline.port) as served:
            load = Load(pipeline, dsn, events=EVENTS, rate=RATE)
            try:
                assert wait_until(lambda: fetch(dsn, COMMITTED) > EVENTS // 10, DEADLINE_S)
                yield pipeline, load
            finally:
                load.process.kill()
                load.process.wait()
        served.check(least=5)


class Cut:
    """A replica's link, cut: it asks the master with a wrong password. (A stopped one would get what the kernel holds
    for it.) With both cut the master is in a minority."""

    def __init__(self, deployment: Deployment, *, both: bool = False) -> None:
        self.deployment = deployment
        self.master = deployment.master()
        self.behind, self.beside = (address for address in STREAMS if address != self.master)
        self.replicas = (self.behind, self.beside) if both else (self.behind,)
        self.began = time.monotonic()
        self._password("none")

    def _password(self, password: str) -> None:
        for replica in self.replicas:
            with self.deployment.client("admin", replica) as client:
                client.config_set("masterauth", password)
                client.execute_command("CLIENT", "KILL", "TYPE", "master")

    def _added(self, address: str) -> int:
        """Return how many entries a node's streams ever had."""
        with self.deployment.client("admin", address) as client:
            keys = [stream_key(n) for n in range(DEFAULT_SHARDS)]
            return sum(client.xinfo_stream(key)["entries-added"] for key in keys if client.exists(key))

    def tail(self) -> int:
        """Return how many entries the master has that the replica has not."""
        return self._added(self.master) - self._added(self.behind)

    def is_longer(self, than: int) -> bool:
        """Whether the tail has more entries than that."""
        return self.tail() > than

    def heal(self) -> None:
        """Let the replicas come back."""
        self._password(self.deployment.passwords["replica"])
        assert wait_until(lambda: self.deployment.replicas() == 2, DEADLINE_S)

    def kill_the_others(self) -> None:
        """The nodes that have the tail die at once, as on one host; the third takes over, then they come back."""
        for address in (self.beside, self.master):
            self.deployment.kill(address)
        promoted = wait_until(lambda: self.deployment.master() == self.behind, DEADLINE_S)
        assert promoted, self.deployment.log(SENTINELS[0]).read_text()
        self._password(self.deployment.passwords["replica"])
        for address in (self.beside, self.master):
            self.deployment.start(address, "streams")


STRANGERS = "SELECT coalesce(sum(committed_events), 0)::bigint FROM producers WHERE service = 'test'"


def read_ahead(deployment: Deployment, dsn: str) -> None:
    """Let everybody read an entry of each stream whose id is an hour ahead of all that the next master will give."""
    window_s = int(time.time()) // 10 * 10
    expected = fetch(dsn, STRANGERS) + 7 * DEFAULT_SHARDS
    ahead = f"{(int(time.time()) + 3600) * 1000}-0"
    with deployment.client("admin") as client:
        for shard in range(DEFAULT_SHARDS):
            stranger = make_batch(
                os.urandom(16), 1, counters={b"stranger_total": (7, 7.0)}, window_s=window_s, fin=True
            )
            client.xadd(stream_key(shard), {FIELD: stranger}, id=ahead)
    assert wait_until(lambda: fetch(dsn, STRANGERS) == expected, DEADLINE_S), "committed before it is lost"


def assert_lost_exactly(pipeline: Pipeline, load: Load, dsn: str) -> int:
    """What the ledger calls lost is what the oracle misses, to the event; returns it."""
    said = load.finish()
    assert said["sent"] == said["accepted"] == load.events, said
    assert said["committed"] + said["lost"] == load.events, said
    assert said["dropped"] == said["quarantined"] == said["in_flight"] == 0, said
    missing = [d for d in compare_oracle(load.oracle.parent.glob("oracle.*"), dsn, SCHEMA) if d.what == "n"]
    assert sum(int(str(d.expected)) - int(str(d.stored)) for d in missing) == said["lost"], said
    assert_audit(pipeline)
    return int(said["lost"])


def short_cut(deployment: Deployment, dsn: str, aggregator: psutil.Process) -> Cut:
    """Make a tail that nobody has read; once more where this machine was too slow for one that is shorter than 2 s."""
    for _ in range(ATTEMPTS):
        cut = Cut(deployment)
        read_ahead(deployment, dsn)
        began_s = time.monotonic()
        aggregator.suspend()
        assert wait_until(partial(cut.is_longer, cut.tail() + 2), DEADLINE_S), "a tail that nobody else has"
        if time.monotonic() - began_s < SHORT_S:
            return cut
        aggregator.resume()
        cut.heal()
    raise AssertionError(f"this machine is too slow for a test of seconds: {ATTEMPTS} attempts")


def test_a_lost_tail_is_sent_again(deployment: Deployment, dsn: str, tmp_path: Path) -> None:
    """Shorter than what producers keep: nothing is lost, and acknowledgements that came undone count nothing twice."""
    with loaded(deployment, dsn, tmp_path) as (pipeline, load):
        aggregator = psutil.Process(pipeline.processes["aggregator"].pid)
        cut = short_cut(deployment, dsn, aggregator)
        cut.kill_the_others()
        aggregator.resume()
        assert_exact(pipeline, load, dsn)
        assert fetch(dsn, DUPLICATES) > 0, "what was committed before the failover came again"


def test_of_a_longer_tail_the_loss_is_exact(deployment: Deployment, dsn: str, tmp_path: Path) -> None:
    """The aggregator stands still, so that the tail was in no other place."""
    with loaded(deployment, dsn, tmp_path) as (pipeline, load):
        aggregator = psutil.Process(pipeline.processes["aggregator"].pid)
        aggregator.suspend()
        cut = Cut(deployment)
        assert wait_until(lambda: time.monotonic() - cut.began > 5 * SHORT_S, DEADLINE_S)
        assert cut.tail() > 0
        cut.kill_the_others()
        aggregator.resume()
        lost = assert_lost_exactly(pipeline, load, dsn)
        assert lost > 0
        told = re.compile(rf'^streamgauge_lost_events{{service="loadtest-\w+"}} {lost}$', re.MULTILINE)
        assert wait_until(lambda: told.search(pipeline.scrape()) is not None, DEADLINE_S), "the metric tells it"


def test_a_master_in_the_minority_refuses_and_its_window_is_sent_again(
    deployment: Deployment, dsn: str, tmp_path: Path
) -> None:
    """8b: nobody may write what no replica has; what it took before it noticed is committed, or comes again."""
    with loaded(deployment, dsn, tmp_path) as (pipeline, load):
        cut = Cut(deployment, both=True)
        assert wait_until(lambda: refuses(deployment, cut.master), DEADLINE_S), "NOREPLICAS"
        told = wait_until(lambda: since_last_commit(pipeline) > STALLED_S, DEADLINE_S)
        assert told, "that nothing is committed is told"
        deployment.kill(cut.master)
        promoted = wait_until(lambda: deployment.master() != cut.master, DEADLINE_S)
        assert promoted, deployment.log(SENTINELS[0]).read_text()
        deployment.start(cut.master, "streams")
        cut.heal()
        assert_exact(pipeline, load, dsn)
        assert fetch(dsn, DUPLICATES) > 0, "the window came again"


def refuses(deployment: Deployment, address: str) -> bool:
    """Whether a node refuses to write for want of replicas."""
    with deployment.client("admin", address) as client:
        try:
            client.set("probe", "1")
        except redis.RedisError as error:
            return "NOREPLICAS" in str(error)
    return False


def test_a_switch_on_purpose_loses_nothing(deployment: Deployment, dsn: str, tmp_path: Path) -> None:
    with loaded(deployment, dsn, tmp_path) as (pipeline, load):
        former = deployment.master()
        assert wait_until(lambda: accepted(deployment), DEADLINE_S), deployment.log(SENTINELS[0]).read_text()
        assert wait_until(lambda: deployment.master() != former, DEADLINE_S)
        assert_exact(pipeline, load, dsn)


def accepted(deployment: Deployment) -> bool:
    """Whether a Sentinel begins a failover; a replica that has just come is not taken at once."""
    with deployment.sentinel("admin") as client:
        try:
            return bool(client.execute_command("SENTINEL", "FAILOVER", "streams"))
        except redis.ResponseError as error:
            assert "NOGOODSLAVE" in str(error) or "INPROG" in str(error), error
            return False
