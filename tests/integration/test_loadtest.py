"""The load test against real servers: it counts outside the library, and it says so when nothing is committed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from database.connect import SCHEMA
from streamgauge.loadtest import compare_oracle
from streamgauge.processes import Known, start, stop, wait_ready, wait_until
from streamgauge.stack import Heartbeat

DEADLINE_S = 60.0


@pytest.fixture
def environ(redis_url: str, dsn: str) -> dict[str, str]:
    """Environment of the services under test."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("STREAMGAUGE_", "POSTGRES_", "REDIS_"))}
    return {**kept, "REDIS_URL": redis_url, "POSTGRES_DSN": dsn}


@pytest.fixture
def aggregator(environ: dict[str, str], dsn: str, tmp_path: Path) -> Iterator[None]:
    """A running aggregator."""
    log = tmp_path / "aggregator.log"
    process = start([sys.executable, "-m", "streamgauge", "aggregate"], log, env=environ)
    try:
        wait_ready(process, Heartbeat(dsn), "aggregator", log, DEADLINE_S)
        yield
    finally:
        stop(process, signal.SIGTERM, 30.0)


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "streamgauge", "loadtest", "--json", "--producers", "2", *options]


def loadtest(environ: dict[str, str], *options: str) -> tuple[int, dict[str, Any], str]:
    """Run it; returns exit code, the last line and what it said."""
    done = subprocess.run(
        command(*options), env=environ, capture_output=True, text=True, timeout=DEADLINE_S * 2, check=False
    )
    return done.returncode, json.loads(done.stdout), done.stderr


@pytest.mark.usefixtures("aggregator")
def test_every_event_of_a_load_test_is_followed_to_its_commit(environ: dict[str, str]) -> None:
    code, said, _ = loadtest(environ, "--events", "20001", "--series", "50", "--rate", "40000")
    assert code == 0
    assert said["sent"] == said["accepted"] == said["committed"] == 20001
    assert said["dropped"] == said["quarantined"] == said["lost"] == said["in_flight"] == 0
    assert said["events_per_s"] > 0 and said["freshness_p50_s"] <= said["freshness_p99_s"]


@pytest.mark.usefixtures("aggregator")
def test_the_oracle_agrees_with_the_totals_per_series(environ: dict[str, str], dsn: str, tmp_path: Path) -> None:
    oracle = tmp_path / "oracle"
    code, said, _ = loadtest(environ, "--real", "--events", "20000", "--series", "50", "--oracle", str(oracle))
    assert code == 0 and said["run_id"] is None
    files = sorted(tmp_path.glob("oracle.*"))
    assert len(files) == 2
    assert compare_oracle(files, dsn, SCHEMA) == []
    with files[0].open("a") as file:
        file.write('["loadtest_requests_total{route=\\"r000001\\"}", 1, 0.5, []]\n')
    found = compare_oracle(files, dsn, SCHEMA)
    assert [(d.key, d.what) for d in found] == [
        ('loadtest_requests_total{route="r000001"}', "n"),
        ('loadtest_requests_total{route="r000001"}', "sum"),
    ]


def test_a_load_test_without_an_aggregator_says_so_and_fails(environ: dict[str, str]) -> None:
    code, said, text = loadtest(environ, "--real", "--events", "1000", "--series", "10", "--deadline", "3")
    assert code == 1
    assert said["committed"] == 0 and said["sent"] == said["in_flight"] == 1000
    assert "no aggregator was ever heard of" in text and "nothing was committed" in text


@pytest.mark.usefixtures("aggregator")
def test_a_killed_generator_is_reported_and_leaves_no_process(environ: dict[str, str]) -> None:
    options = ("--real", "--events", "1000000", "--series", "10", "--rate", "20000")
    with subprocess.Popen(command(*options), env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        parent = psutil.Process(process.pid)
        assert wait_until(lambda: len(parent.children()) == 2, DEADLINE_S)
        generators = [Known.of(child.pid) for child in parent.children()]
        os.kill(generators[0].pid, signal.SIGKILL)
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 130
    assert wait_until(lambda: not any(g.is_alive() for g in generators), DEADLINE_S)
