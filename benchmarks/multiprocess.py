"""Scrape of many workers: ours, whose cost follows the series, beside the multi-process collector, which reads files.

In: a scratch stack. Out: a Section, milliseconds a scrape. 40 workers hold the same 500 histogram series.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.backlog import Backlog, push
from benchmarks.measure import OURS, Section
from benchmarks.scrape import get_metrics
from benchmarks.scratch import Scratch, wait_committed

WORKERS: Final = 40
SERIES: Final = 500
PEER: Final = "prometheus_client MultiProcessCollector"
WRITE: Final = f"""
import os, random
from prometheus_client import Histogram
for worker in range({WORKERS}):
    if os.fork():
        os.wait()
        continue
    metric = Histogram("bench_latency_seconds", "Benchmark.", ["route"])
    for i in range({SERIES}):
        for _ in range(2):
            metric.labels(f"r{{i:06d}}").observe(random.random())
    os._exit(0)
"""
CODE: Final = """
import time
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
began = time.perf_counter()
registry = CollectorRegistry()
MultiProcessCollector(registry)
size = len(generate_latest(registry))
print((time.perf_counter() - began) * 1000, size)
"""


def run(full: bool) -> Section:
    """Scrape both in turns; before each of ours a part of the series has changed."""
    section = Section("multiprocess", f"Scrape of {WORKERS} workers x {SERIES} series", less_is_better=True)
    ours: list[float] = []
    theirs: list[float] = []
    with Scratch() as stack, tempfile.TemporaryDirectory(dir=stack.home) as folder:
        _write_files(folder)
        stack.aggregator()
        backlog = Backlog(WORKERS, SERIES)
        push(stack.client(), backlog.seal(WORKERS, 2))
        wait_committed(stack.dsn, backlog.events)
        stack.exporter()
        get_metrics(stack.exporter_port)
        for _ in range(15 if full else 5):
            push(stack.client(), backlog.seal(WORKERS, 2))
            wait_committed(stack.dsn, backlog.events)
            ours.append(get_metrics(stack.exporter_port).seconds * 1000)
            theirs.append(_peer(folder))
    work = "scrape after all changed"
    section.add(work, OURS, "ms", ours)
    section.add(work, PEER, "ms", theirs)
    ratio = section.ratio(section.rows[-1]) or 0.0
    section.add("ratio to the peer", OURS, "x", [ratio], at_least=100.0)
    section.notes.append(
        "Histograms with 14 buckets; the peer's own HTTP server is left out, ours is measured with it."
    )
    return section


def _write_files(folder: str) -> None:
    """Leave what 40 workers leave: one file a process."""
    _run(WRITE, folder)
    assert len(list(Path(folder).glob("histogram_*.db"))) == WORKERS, "BUG: a worker left no file"


def _peer(folder: str) -> float:
    return float(_run(CODE, folder).split()[0])


def _run(code: str, folder: str) -> str:
    """Run a few lines in a process of its own: prometheus_client looks for the folder when it is imported."""
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": folder}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=True).stdout
