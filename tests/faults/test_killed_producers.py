"""Kill -9 of a producer that keeps a spool: a successor sends what it had sealed, under its own id, once."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from contract.batch import read_envelope
from producers.spool import SUFFIX, Flush
from streamgauge.processes import wait_until
from tests.stream_sums import Sums, read_streams

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

EMITTER = """
import mmap, os, struct, sys, time
from streamgauge import Counter, Gauge, Histogram
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 8)
done = mmap.mmap(fd, 8)
orders = Counter("orders_total", "Orders.", ["shop"]).labels("a")
waits = Histogram("wait_seconds", "Waits.", ["shop"]).labels("a")
level = Gauge("level", "A level.", merge="sum")
for i in range(1, 1_000_000):
    orders.inc()
    done[:8] = struct.pack("<Q", i)  # on a page that outlives this process: so many emits have returned
    waits.observe(0.25)
    level.set(i)
    time.sleep(0.0002)
"""
SUCCESSOR = """
import sys, time
from streamgauge import Counter, stop
Counter("started_total").inc()
time.sleep(0.5)
assert stop(20)
"""
"""Sends one event of its own; looks for estates on its first connection."""
ORDERS = b'orders_total{shop="a"}'
POINTS = ["before_seal@4", "after_seal@4", "before_send@4", "after_send@4", "after_acknowledged@4"]


def env(redis_url: str, tmp_path: Path, **more: str) -> dict[str, str]:
    spool = {"STREAMGAUGE_SPOOL_DIR": str(tmp_path / "spool"), "STREAMGAUGE_FLUSH_INTERVAL_S": "0.1"}
    return {"REDIS_URL": redis_url, "PATH": os.environ["PATH"]} | spool | more


def kill(tmp_path: Path, environ: Mapping[str, str], at: str) -> None:
    """Let an emitter run until it kills itself."""
    command = [sys.executable, "-c", EMITTER, str(tmp_path / "done")]
    done = subprocess.run(command, env={**environ, "STREAMGAUGE_CRASH_AT": at}, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL


def succeed(environ: Mapping[str, str]) -> None:
    subprocess.run([sys.executable, "-c", SUCCESSOR], env=dict(environ), timeout=60, check=True)


def estates(tmp_path: Path) -> dict[tuple[bytes, int], int]:
    """Return the events of each batch that the spool holds, sealed or drafted, by producer and seq."""
    found: dict[tuple[bytes, int], int] = {}
    for folder in (tmp_path / "spool").iterdir():
        flushes = [msgspec.msgpack.decode(f.read_bytes(), type=Flush) for f in sorted(folder.glob(f"*{SUFFIX}"))]
        for data in [d for flush in flushes for d in flush.sealed] + flushes[-1].drafts:
            envelope = read_envelope(data)
            found[envelope.producer_id, envelope.seq] = envelope.events
    return found


def committed(sums: Sums, key: bytes) -> int:
    return sums.series[key].n if key in sums.series else 0


@pytest.mark.parametrize("point", POINTS)
def test_what_was_sealed_is_sent_by_the_successor(point: str, redis_url: str, tmp_path: Path) -> None:
    """Whatever the moment: the streams then hold every batch of the dead one once, without a gap."""
    environ = env(redis_url, tmp_path)
    kill(tmp_path, environ, point)
    before, left = read_streams(redis_url), estates(tmp_path)
    assert left, "it was killed while something was on its way"
    succeed(environ)
    after = read_streams(redis_url)
    assert left.keys() <= after.bodies.keys()
    assert after.missing() == []
    sent_before = point.partition("@")[0] in ("after_send", "after_acknowledged")
    assert (left.keys() <= before.bodies.keys()) == (sent_before or point.startswith("before_seal"))
    emitted = int.from_bytes((tmp_path / "done").read_bytes(), "little")
    assert 0 < committed(after, ORDERS) <= emitted + 1
    assert wait_until(lambda: not list((tmp_path / "spool").iterdir()), 10), "both are gone, with what they left"


@pytest.mark.parametrize("point", [*POINTS, "before_seal@1"])
def test_with_a_journal_every_emit_that_returned_is_sent(point: str, redis_url: str, tmp_path: Path) -> None:
    """Nothing is unknown, so the successor says farewell for it: the account of the dead one is closed."""
    environ = env(redis_url, tmp_path, STREAMGAUGE_SPOOL_EVENTS="1")
    kill(tmp_path, environ, point)
    emitted = int.from_bytes((tmp_path / "done").read_bytes(), "little")
    succeed(environ)
    sums = read_streams(redis_url)
    assert sums.missing() == []
    orders, waits, level = (sums.series[key] for key in (ORDERS, b'wait_seconds{shop="a"}', b"level"))
    assert emitted <= orders.n <= emitted + 1, "one may have been on the page when it died"
    assert orders.n - 1 <= waits.n <= orders.n
    assert orders.n - 1 <= level.last <= orders.n
    dead = max(body.accepted for body in sums.bodies.values())
    assert dead == orders.n + waits.n + level.n
    assert [body.fin for body in sums.bodies.values()].count(True) == 2
    assert not list((tmp_path / "spool").iterdir())
