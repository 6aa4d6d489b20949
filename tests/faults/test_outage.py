"""Redis away for a whole minute while threads, tasks and forked workers emit."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from streamgauge.embedded import RedisServer
from streamgauge.processes import wait_until
from tests.stream_sums import read_streams

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

AWAY_S = 60.0
SERIES = 200
MOST_GROWTH_BYTES = 32 << 20

EMITTER = """
import asyncio, os, signal, sys, threading
from streamgauge import Counter, Histogram
hits = Counter("hits", labelnames=["by"])
size = Histogram("size", labelnames=["x"])
children = [size.labels(i) for i in range(200)]
stopping = threading.Event()
counts = {"thread": 0, "task": 0}
def emit(name, pause):
    child = hits.labels(name)
    while not stopping.wait(pause):
        for i, one in enumerate(children):
            one.observe(i / 10)
        child.inc(len(children))
        counts[name] += len(children)
async def emit_in_a_task():
    child = hits.labels("task")
    while not stopping.is_set():
        child.inc(); counts["task"] += 1
        await asyncio.sleep(0.001)
worker = os.fork()
signal.signal(signal.SIGTERM, lambda *_: stopping.set())
threads = [threading.Thread(target=emit, args=("thread", 0.005))]
for thread in threads: thread.start()
asyncio.run(emit_in_a_task())
for thread in threads: thread.join()
if worker:
    os.kill(worker, signal.SIGTERM); os.waitpid(worker, 0)
sys.stdout.write(f"{counts['thread']} {counts['task']}\\n"); sys.stdout.flush()
"""


def resident(process: subprocess.Popen[str]) -> int:
    parent = psutil.Process(process.pid)
    return sum(p.memory_info().rss for p in (parent, *parent.children()))


def test_a_minute_without_redis_costs_no_event_and_no_memory(redis_server: RedisServer, redis_url: str) -> None:
    """Memory stays flat, nothing raises, and afterwards every count is in the stream."""
    process = subprocess.Popen(
        [sys.executable, "-c", EMITTER],
        env={"REDIS_URL": redis_url, "PATH": os.environ["PATH"], "STREAMGAUGE_EXIT_TIMEOUT_S": "30"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert wait_until(lambda: read_streams(redis_url).events > 10_000, 60)
    redis_server.kill()
    before, began = resident(process), time.monotonic()
    sizes: list[int] = []
    assert wait_until(lambda: sizes.append(resident(process)) or time.monotonic() - began > AWAY_S, AWAY_S + 30)
    redis_server.open()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0 and "Traceback" not in err, err
    assert max(sizes) - before < MOST_GROWTH_BYTES, f"grew by {(max(sizes) - before) / 2**20:.1f} MiB"
    said = [tuple(map(int, line.split())) for line in out.splitlines()]
    assert len(said) == 2, out
    sums = read_streams(redis_url)
    assert sums.series[b'hits_total{by="thread"}'].sum == sum(thread for thread, _ in said)
    assert sums.series[b'hits_total{by="task"}'].sum == sum(task for _, task in said)
    assert sum(sums.series[f'size{{x="{i}"}}'.encode()].n for i in range(SERIES)) == sum(t for t, _ in said)
    assert not sums.missing()
