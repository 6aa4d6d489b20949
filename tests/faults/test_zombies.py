"""Zombies: a consumer that wakes up after others did its work, and a producer that runs twice under one id.

Promise: nothing counts twice, a late acknowledgement harms nobody; of two contents under one identity one is applied,
the other is kept with its bytes, told by a metric and found by the audit, whichever aggregator sees it and when.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
import redis

from contract.batch import read_envelope
from contract.streams import DEFAULT_SHARDS, FIELD, GROUP, stream_key
from streamgauge.processes import wait_until
from tests.faults.test_kills import IN_TRANSACTION
from tests.loading import COMMITTED, DEADLINE_S, DUPLICATES, FAST, Load, ask, assert_exact, fetch
from tests.pipeline import Pipeline
from tests.served import Served

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

CLAIM_S = 1.0
"""STREAMGAUGE_RECLAIM_IDLE_S of FAST."""


def test_a_consumer_that_wakes_up_before_its_transaction_finds_it_done(
    tmp_path: Path, dsn: str, redis_url: str
) -> None:
    """Stopped between reading and BEGIN, longer than the claim time: others commit what it holds, then it tries."""
    with Pipeline(tmp_path, dsn, redis_url, **FAST) as pipeline:
        # It gathers for long, so that what it read is most often not in a transaction yet.
        pipeline.start("zombie", sys.executable, "-m", "streamgauge", "aggregate", env={COMMIT_INTERVAL: "1"})
        pipeline.exporter()
        load = Load(pipeline, dsn)
        with Served(pipeline.port) as served, ended(load):
            assert wait_until(lambda: fetch(dsn, COMMITTED) > 0, DEADLINE_S)
            zombie = psutil.Process(pipeline.processes["zombie"].pid)
            assert wait_until(lambda: stop_before_begin(zombie, dsn, redis_url), DEADLINE_S)
            held, stopped_at = pending(redis_url), time.monotonic()
            pipeline.aggregator("aggregator")
            assert wait_until(lambda: not held & pending(redis_url), DEADLINE_S), "the other one took them over"
            assert wait_until(lambda: time.monotonic() - stopped_at > 2 * CLAIM_S, DEADLINE_S)
            before = fetch(dsn, DUPLICATES)
            zombie.resume()
            assert wait_until(lambda: fetch(dsn, DUPLICATES) >= before + len(held), DEADLINE_S), "it tried, too late"
            assert_exact(pipeline, load, dsn)
            served.told("streamgauge_duplicate_batches_total", len(held))
            served.told("streamgauge_stream_pending_entries")
        served.check(5)


@contextmanager
def ended(load: Load) -> Generator[None, None, None]:
    """End a load, whatever becomes of the block."""
    try:
        yield
    finally:
        load.process.kill()
        load.process.communicate()


COMMIT_INTERVAL = "STREAMGAUGE_COMMIT_INTERVAL_S"


def stop_before_begin(process: psutil.Process, dsn: str, redis_url: str) -> bool:
    """SIGSTOP the process while it holds entries, none of them committed, and no transaction of its is open."""
    process.suspend()
    is_idle = ask(dsn, f"{IN_TRANSACTION} OR state = 'active' AND {OF_AGGREGATOR}") == 0
    held = pending(redis_url)
    if is_idle and held and committed(held, dsn, redis_url) == 0:
        return True
    process.resume()
    return False


def committed(held: set[tuple[int, bytes]], dsn: str, redis_url: str) -> int:
    """Count entries that are in the ledger: committed, and perhaps not yet acknowledged."""
    with redis.Redis.from_url(redis_url, protocol=2, socket_timeout=10) as link:
        entries = [entry for shard, at in held for entry in cast("Any", link.xrange(stream_key(shard), at, at))]
    batches = [read_envelope(fields[FIELD]) for _, fields in entries]
    rows = ", ".join(f"('{batch.producer_id.hex()}'::uuid, {batch.seq}::bigint)" for batch in batches)
    return ask(
        dsn,
        f"SELECT count(*) FROM (VALUES {rows}) AS held (producer_id, seq) JOIN producers p USING (producer_id) "
        "WHERE p.applied @> held.seq",
    )


OF_AGGREGATOR = "application_name = 'streamgauge-aggregator' AND datname = current_database()"


def pending(redis_url: str) -> set[tuple[int, bytes]]:
    """Return shard and id of every entry that was read and not acknowledged."""
    with redis.Redis.from_url(redis_url, protocol=2, socket_timeout=10) as link:
        return {
            (shard, one["message_id"])
            for shard in range(DEFAULT_SHARDS)
            if link.exists(stream_key(shard))
            for one in cast("list[dict[str, Any]]", link.xpending_range(stream_key(shard), GROUP, "-", "+", 10_000))
        }


TWIN = """
import os, sys, time
real = os.urandom
os.urandom = lambda size: bytes.fromhex(os.environ["TWIN_ID"]) if size == 16 else real(size)
from streamgauge import Counter
events = Counter("twin_events_total", "Events.", ["of"]).labels(of=os.environ["TWIN"])
for _ in range(int(os.environ["TIMES"])):
    events.inc()
    time.sleep(0.05)
"""


def test_a_producer_started_twice_from_one_state_raises_the_alarm(tmp_path: Path, dsn: str, redis_url: str) -> None:
    """A copied machine: both send seq 1, 2, 3, each with its own content. An aggregator comes anew in between."""
    with Pipeline(tmp_path, dsn, redis_url, **FAST) as pipeline:
        pipeline.exporter()
        with Served(pipeline.port) as served:
            pipeline.aggregator("aggregator-1")
            of_both = {"TWIN_ID": os.urandom(16).hex()}
            first = pipeline.emitter(TWIN, "emitter-1", TWIN="one", TIMES="30", **of_both)
            assert first.wait(DEADLINE_S) == 0
            sent = contents(redis_url)
            assert wait_until(lambda: fetch(dsn, COMMITTED) == sum(sent), DEADLINE_S)
            pipeline.stop("aggregator-1")
            pipeline.aggregator("aggregator-2")
            second = pipeline.emitter(TWIN, "emitter-2", TWIN="two", TIMES="60", **of_both)
            assert second.wait(DEADLINE_S) == 0
            assert wait_until(lambda: not pending(redis_url) and conflicts(dsn) > 0, DEADLINE_S)
            assert wait_until(lambda: fetch(dsn, COMMITTED) + set_aside(dsn) == sum(contents(redis_url)), DEADLINE_S)
            assert fetch(dsn, "SELECT sum(n)::bigint FROM totals") == fetch(dsn, COMMITTED)
            told = f'streamgauge_quarantined_entries_total{{reason="conflict"}} {conflicts(dsn)}'
            assert wait_until(lambda: told in pipeline.scrape(), DEADLINE_S), pipeline.scrape()
            found = audit(pipeline)
            assert of_both["TWIN_ID"] in found, "its counts go up to two ends"
        served.check(5)


def contents(redis_url: str) -> list[int]:
    """Return the events of every entry in the streams."""
    with redis.Redis.from_url(redis_url, protocol=2, socket_timeout=10) as link:
        return [
            read_envelope(fields[FIELD]).events
            for shard in range(DEFAULT_SHARDS)
            for _, fields in cast("list[tuple[bytes, dict[bytes, bytes]]]", link.xrange(stream_key(shard)))
        ]


def conflicts(dsn: str) -> int:
    return fetch(dsn, "SELECT count(*) FROM quarantine WHERE reason = 'conflict'")


def set_aside(dsn: str) -> int:
    """Return the events of all payloads that were kept because of a conflict."""
    query = "SELECT string_agg(encode(payload, 'hex'), ' ') FROM quarantine WHERE reason = 'conflict'"
    return sum(read_envelope(bytes.fromhex(each)).events for each in (ask(dsn, query) or "").split())


def audit(pipeline: Pipeline) -> str:
    """Return what the audit finds."""
    command = [sys.executable, "-m", "streamgauge", "audit", "--json"]
    done = subprocess.run(command, env=pipeline.env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return str(json.loads(done.stdout.splitlines()[-1])["findings"])
