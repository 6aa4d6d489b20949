"""Kill -9 of a producer that keeps a spool: a successor sends what it had sealed, under its own id, once."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest
import redis

from contract.batch import read_body, read_envelope
from producers.journal import SERIES, Tail
from producers.spool import SUFFIX, Flush
from streamgauge.embedded import RedisServer
from streamgauge.processes import free_port, wait_until
from tests.faults.bench import Bench
from tests.faults.oracle import SUCCESSOR
from tests.loading import ask, assert_audit
from tests.stream_sums import read_streams

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

EMITTER = """
import itertools, mmap, os, struct, time
from streamgauge import Counter, Gauge, Histogram
fd = os.open(os.environ["DONE"], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 8)
page = mmap.mmap(fd, 8)
orders = Counter("orders_total", "Orders.", ["shop"]).labels("a")
waits = Histogram("wait_seconds", "Waits.", ["shop"]).labels("a")
level = Gauge("level", "A level.", merge="sum")
done = itertools.count(1)
def count():  # on a page that outlives this process: so many emits have returned
    page[:8] = struct.pack("<Q", next(done))
for i in range(1, 1_000_000):
    orders.inc()
    count()
    waits.observe(0.25)
    count()
    level.set(i)
    count()
    time.sleep(0.0002)
"""
ORDERS = b'orders_total{shop="a"}'
POINTS = ["before_seal@4", "after_seal@4", "after_send@4", "after_acknowledged@4"]


def env(redis_url: str, tmp_path: Path, **more: str) -> dict[str, str]:
    spool = {"STREAMGAUGE_SPOOL_DIR": str(tmp_path / "spool"), "STREAMGAUGE_FLUSH_INTERVAL_S": "0.1"}
    return {"REDIS_URL": redis_url, "PATH": os.environ["PATH"], "DONE": str(tmp_path / "done")} | spool | more


def emitted(page: Path) -> int:
    """Return how many emits have returned."""
    return int.from_bytes(page.read_bytes(), "little") if page.exists() else 0


def kill(environ: Mapping[str, str], at: str) -> None:
    """Let an emitter run until it kills itself."""
    command = [sys.executable, "-c", EMITTER]
    done = subprocess.run(command, env={**environ, "STREAMGAUGE_CRASH_AT": at}, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL


def succeed(environ: Mapping[str, str]) -> None:
    subprocess.run([sys.executable, "-c", SUCCESSOR], env=dict(environ), timeout=60, check=True)


def flushes(folder: Path) -> list[Flush]:
    return [msgspec.msgpack.decode(f.read_bytes(), type=Flush) for f in sorted(folder.glob(f"*{SUFFIX}"))]


def estates(tmp_path: Path) -> dict[tuple[bytes, int], int]:
    """Return the events of each batch that the spool holds, sealed or drafted, by producer and seq."""
    found: dict[tuple[bytes, int], int] = {}
    for folder in (tmp_path / "spool").iterdir():
        kept = flushes(folder)
        for data in [d for flush in kept for d in flush.sealed] + kept[-1].drafts:
            envelope = read_envelope(data)
            found[envelope.producer_id, envelope.seq] = envelope.events
    return found


def assert_farewells(tmp_path: Path, most: int) -> None:
    """What is left was acknowledged by its producer's own stop, to be sent again by whoever comes next."""
    left = list((tmp_path / "spool").iterdir())
    assert len(left) <= most
    for folder in left:
        data = flushes(folder)[-1].sealed[-1]
        assert read_body(read_envelope(data), data).fin


@pytest.mark.parametrize("point", POINTS)
def test_what_was_sealed_is_sent_by_the_successor(point: str, redis_url: str, tmp_path: Path) -> None:
    """Whatever the moment: the streams then hold every batch of the dead one once, without a gap."""
    environ = env(redis_url, tmp_path)
    kill(environ, point)
    before, left = read_streams(redis_url), estates(tmp_path)
    assert left, "it was killed while something was on its way"
    succeed(environ)
    after = read_streams(redis_url)
    assert left.keys() <= after.bodies.keys()
    assert after.missing() == []
    sent_before = point.partition("@")[0] in ("after_send", "after_acknowledged")
    assert (left.keys() <= before.bodies.keys()) == (sent_before or point.startswith("before_seal"))
    assert (
        0
        < sum(series.n for key, series in after.series.items() if key != b"started_total")
        <= emitted(tmp_path / "done") + 1
    )
    assert_farewells(tmp_path, 1)


@pytest.mark.parametrize("point", ["before_seal@1", "after_seal@4", "after_send@4"])
def test_with_a_journal_every_emit_that_returned_is_sent(point: str, redis_url: str, tmp_path: Path) -> None:
    """Nothing is unknown, so the successor says farewell for it: the account of the dead one is closed."""
    environ = env(redis_url, tmp_path, STREAMGAUGE_SPOOL_EVENTS="1")
    kill(environ, point)
    succeed(environ)
    sums = read_streams(redis_url)
    assert sums.missing() == []
    orders, waits, level = (sums.series[key] for key in (ORDERS, b'wait_seconds{shop="a"}', b"level"))
    events = orders.n + waits.n + level.n
    assert emitted(tmp_path / "done") <= events <= emitted(tmp_path / "done") + 1, (
        "one may have been on the page when it died"
    )
    assert level.n <= waits.n <= orders.n <= level.n + 1
    assert level.last == level.n
    assert max(body.accepted for body in sums.bodies.values()) == events
    assert [body.fin for body in sums.bodies.values()].count(True) == 2
    assert_farewells(tmp_path, 1)


BOOK = """
SELECT jsonb_build_object('accepted', accepted, 'committed', committed_events, 'fin', fin)
  FROM producers WHERE service = '{}'
"""


def test_what_was_emitted_while_redis_was_away_and_the_producer_killed_is_accounted_for(
    dsn: str, redis_url: str, tmp_path: Path
) -> None:
    """Recovered; where the spool does not say what series it was, lost to the event, as the exporter shows it."""
    pages = {service: tmp_path / service for service in ("whole", "unnamed")}
    with Bench(tmp_path, dsn, redis_url) as bench:
        bench.aggregator()
        bench.exporter()
        environ = env(f"redis://{bench.producer_link.address}/0", tmp_path, STREAMGAUGE_SPOOL_EVENTS="1")
        shops: list[subprocess.Popen[bytes]] = []
        for service, page in pages.items():
            own = environ | {"STREAMGAUGE_SERVICE": service, "DONE": str(page)}
            shops.append(bench.pipeline.emitter(EMITTER, f"emitter-{service}", **own))
        bench.until(lambda: all(ask(dsn, BOOK.format(service)) for service in pages), "both are known")
        bench.producer_link.blackhole()
        before = {page: emitted(page) for page in pages.values()}
        bench.until(lambda: all(emitted(page) > n + 3000 for page, n in before.items()), "they emit without Redis")
        for shop in shops:
            shop.send_signal(signal.SIGKILL)
            shop.wait()
        lost = {"whole": 0, "unnamed": forget_series(tmp_path / "spool", "unnamed")}
        bench.producer_link.pass_on()
        succeed(environ)
        for service in pages:
            bench.until(lambda of=service: '"fin": true' in (ask(dsn, BOOK.format(of)) or ""), f"farewell of {service}")
        bench.close_gaps()
        for service, page in pages.items():
            book = msgspec.json.decode(ask(dsn, BOOK.format(service)))
            assert emitted(page) <= book["accepted"] <= emitted(page) + 1
            assert book["accepted"] - book["committed"] == lost[service]
            bench.told("streamgauge_lost_events", lost[service], service=service)
            assert bench.sample("streamgauge_lost_events", service=service) == lost[service]
        assert_audit(bench.pipeline)


def forget_series(spool: Path, service: str) -> int:
    """Cut off what names a dead one's last series; returns how many of its events are in no flush."""
    (folder,) = (folder for folder in spool.iterdir() if flushes(folder)[-1].service == service)
    tail = Tail(folder, flushes(folder)[-1].positions)
    data = (folder / SERIES).read_bytes()
    (folder / SERIES).write_bytes(data[:-1])
    return len(tail.children[-1].values)


def test_what_a_producer_said_last_outlives_it_and_redis(
    redis_server: RedisServer, redis_url: str, tmp_path: Path
) -> None:
    """It stopped, all was acknowledged, and power failed under Redis: a successor sends it again."""
    environ = env(redis_url, tmp_path)
    succeed(environ)
    sent = read_streams(redis_url)
    assert sent.series[b"started_total"].n == 1
    assert_farewells(tmp_path, 1)
    with redis.Redis.from_url(redis_url, protocol=2, socket_timeout=10) as link:
        link.flushall()
    redis_server.restart()
    succeed(environ)
    after = read_streams(redis_url)
    assert sent.bodies.keys() < after.bodies.keys()
    assert after.series[b"started_total"].n == 2


APP = """
from fastapi import FastAPI
from streamgauge import Counter, instrument
app = FastAPI()
orders = Counter("orders_total")
@app.post("/order")
def order():
    orders.inc()
@app.get("/pid")
def pid():
    import os
    return os.getpid()
instrument(app)
"""


def test_a_worker_that_its_supervisor_starts_again_sends_what_the_killed_one_left(
    redis_url: str, tmp_path: Path
) -> None:
    """uvicorn starts a new process in the place of the dead one, with the same spool."""
    (tmp_path / "shop.py").write_text(APP)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "shop:app", "--port", str(port), "--log-level", "error"]
    environ = env(redis_url, tmp_path, STREAMGAUGE_SPOOL_EVENTS="1", STREAMGAUGE_EXIT_TIMEOUT_S="20")
    server = subprocess.Popen([*command, "--workers", "2"], cwd=tmp_path, env=environ)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            assert wait_until(lambda: worker(client) > 0, 30)
            first = worker(client)
            for _ in range(20):
                client.post("/order").raise_for_status()
            os.kill(first, signal.SIGKILL)
        assert wait_until(lambda: b"orders_total" in read_streams(redis_url).series, 40)
        assert wait_until(lambda: read_streams(redis_url).series[b"orders_total"].sum == 20, 40)
        server.send_signal(signal.SIGTERM)
        server.wait(30)
    finally:
        for process in psutil.Process(server.pid).children(recursive=True) if server.poll() is None else []:
            process.kill()
        server.kill()
        server.wait()
    assert read_streams(redis_url).missing() == []
    assert_farewells(tmp_path, 3)


def worker(client: httpx.Client) -> int:
    """Return the process that answers; 0 while none does."""
    try:
        return client.get("/pid").json()
    except httpx.TransportError:
        return 0
