"""Poison under load: each kind of bad entry many times over, among good ones, through a whole pipeline.

Promise: every entry that can never be applied is quarantined once, with its bytes, and told by the metric; one whose
decoding kills the process is found by a child process; the good ones commit, and everything drains by itself.
"""

import os
import random
import sys
from pathlib import Path

import pytest
import redis

from contract.streams import FIELD, SHARD_COUNT_KEY, stream_key
from streamgauge.processes import wait_until
from tests.faults.test_zombies import ended, pending
from tests.integration.test_hostile_input import TRUSTED, UNTRUSTED, good
from tests.loading import DEADLINE_S, FAST, Load, ask, assert_exact, fetch
from tests.pipeline import Pipeline
from tests.served import Served

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

DEADLY = b"SGB1 deadly"
CRASHING = f"""
import os, runpy, signal, sys
import contract.batch
read = contract.batch.read_envelope
def read_or_die(data):
    if bytes(data[:{len(DEADLY)}]) == {DEADLY!r}:
        os.kill(os.getpid(), signal.SIGSEGV)
    return read(data)
contract.batch.read_envelope = read_or_die
"""
"""As sitecustomize: a decoder that ends its process, whichever that is, at one kind of entry."""
QUARANTINED = "SELECT count(*) FROM quarantine"


def test_every_kind_of_poison_is_set_aside_once_and_harms_no_neighbour(
    tmp_path: Path, dsn: str, redis_url: str
) -> None:
    """Three of each, in random order, while a load goes on; the audit holds in the end."""
    poison = [make(os.urandom(16)) for make, _ in (*UNTRUSTED.values(), *TRUSTED.values()) for _ in range(3)]
    random.Random(1).shuffle(poison)
    different = len(set(poison))
    with Pipeline(tmp_path, dsn, redis_url, **FAST) as pipeline:
        pipeline.aggregator()
        pipeline.exporter()
        load = Load(pipeline, dsn, events=30_000)
        with Served(pipeline.port) as served, ended(load):
            with redis.Redis.from_url(redis_url, protocol=2, socket_timeout=10) as link:
                for data in poison:
                    link.xadd(stream_key(0), {FIELD: data})
            assert wait_until(lambda: fetch(dsn, QUARANTINED) == len(poison), DEADLINE_S), fetch(dsn, QUARANTINED)
            assert_exact(pipeline, load, dsn)
        served.check(5)
        assert wait_until(lambda: not pending(redis_url), DEADLINE_S)
        assert fetch(dsn, "SELECT count(DISTINCT md5(payload)) FROM quarantine") == different
        assert wait_until(lambda: told(pipeline.scrape()) == len(poison), DEADLINE_S), "the metric tells of each"


def told(scrape: str) -> int:
    """Return how many entries the metric says are quarantined."""
    lines = [line for line in scrape.splitlines() if line.startswith("streamgauge_quarantined_entries_total{")]
    return round(sum(float(line.rpartition(" ")[2]) for line in lines))


def test_entry_that_kills_its_decoder_is_found_by_a_child(tmp_path: Path, dsn: str, redis_url: str) -> None:
    """Each aggregator dies of it, a supervisor begins the next, until the deliveries say that it is the entry."""
    (tmp_path / "sitecustomize.py").write_text(CRASHING)
    with redis.Redis.from_url(redis_url, protocol=2, socket_timeout=10) as link:
        link.set(SHARD_COUNT_KEY, 1)
        for data in (good(os.urandom(16)), DEADLY, good(os.urandom(16))):
            link.xadd(stream_key(0), {FIELD: data})
    with Pipeline(tmp_path, dsn, redis_url, **FAST) as pipeline:
        path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
        deaths = 0
        for number in range(8):
            name = f"aggregator-{number}"
            process = pipeline.start(name, sys.executable, "-m", "streamgauge", "aggregate", env={"PYTHONPATH": path})
            assert wait_until(lambda p=process: p.poll() is not None or fetch(dsn, QUARANTINED) == 1, DEADLINE_S)
            if process.poll() is None:
                break
            deaths += 1
        assert 1 <= deaths <= 5, f"{deaths} aggregators died"
        assert ask(dsn, "SELECT reason FROM quarantine") == "crashed"
        assert ask(dsn, "SELECT payload FROM quarantine") == DEADLY
        assert wait_until(lambda: fetch(dsn, "SELECT coalesce(sum(n), 0)::bigint FROM totals") == 4, DEADLINE_S)
        pipeline.exporter()
        assert wait_until(lambda: told(pipeline.scrape()) == 1, DEADLINE_S), "the metric tells of it"
        assert wait_until(lambda: not pending(redis_url), DEADLINE_S)
