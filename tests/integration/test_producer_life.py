"""A producer's beginning and end in real processes: signals, wrong clocks, forks at a bad moment."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from streamgauge.processes import free_port, wait_until
from tests.stream_sums import read_streams

APP = """
from fastapi import FastAPI
from streamgauge import Counter, instrument
app = FastAPI()
orders = Counter("orders_total")
@app.post("/order")
def order():
    orders.inc()
instrument(app)
"""

WRONG_CLOCK = """
import time
true = time.time
time.time = lambda: true() + 3600
from streamgauge import Counter, stop
orders = Counter("orders_total")
for _ in range(10):
    orders.inc()
assert stop(20)
"""

FORKS_AT_ONCE = """
import os, sys
from streamgauge import Counter
orders = Counter("orders_total")
orders.inc()
pids = []
for _ in range(6):
    pid = os.fork()
    if pid == 0:
        orders.inc()
        sys.exit(0)
    pids.append(pid)
assert all(os.waitpid(pid, 0)[1] == 0 for pid in pids)
"""


def env(redis_url: str) -> dict[str, str]:
    return {"REDIS_URL": redis_url, "PATH": "/usr/bin:/bin", "STREAMGAUGE_EXIT_TIMEOUT_S": "20"}


def run(source: str, redis_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", source], env=env(redis_url), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_an_instrumented_app_sends_everything_when_its_server_is_stopped(redis_url: str, tmp_path: Path) -> None:
    """uvicorn ends by the signal it got, without `atexit`: `instrument` alone must be enough."""
    (tmp_path / "shop.py").write_text(APP)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "shop:app", "--port", str(port), "--log-level", "error"]
    server = subprocess.Popen(command, cwd=tmp_path, env=env(redis_url))
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            assert wait_until(lambda: _answers(client), 30)
            for _ in range(10):
                client.post("/order").raise_for_status()
        server.send_signal(signal.SIGTERM)
        server.wait(30)
    finally:
        server.kill()
        server.wait()
    sums = read_streams(redis_url)
    assert sums.series[b"orders_total"].sum == 10
    assert [body.fin for body in sums.bodies.values()].count(True) == 1


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/none").status_code == 404
    except httpx.TransportError:
        return False


def test_a_wall_clock_an_hour_ahead_changes_nothing(redis_url: str) -> None:
    """Windows are cut by the clock of Redis, from the first batch on."""
    run(WRONG_CLOCK, redis_url)
    bodies = read_streams(redis_url).bodies.values()
    assert bodies
    assert all(abs(body.flushed_ms / 1000 - time.time()) < 60 for body in bodies)


def test_children_forked_while_the_parent_connects_send_everything(redis_url: str) -> None:
    """An import or a lock that the parent's thread holds at that moment would hang them."""
    run(FORKS_AT_ONCE, redis_url)
    assert read_streams(redis_url).series[b"orders_total"].sum == 7
