"""Scrape of many workers: ours, whose cost follows the series, beside the multi-process collector, which reads files.

In: a scratch stack. Out: a Section, milliseconds a scrape. 40 workers hold the same 500 histogram series.
"""

import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.backlog import Backlog, push
from benchmarks.measure import OURS, Section
from benchmarks.scrape import get_metrics
from benchmarks.scratch import Scratch, wait_committed

WORKERS: Final = 40
SERIES: Final = 500
PEER: Final = "prometheus_client MultiProcessCollector"
CODE: Final = """
import sys, time
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
    """Leave what 40 workers leave: one set of files a process."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    try:
        context = multiprocessing.get_context("spawn")
        for _ in range(WORKERS // 4):
            group = [context.Process(target=_worker, args=(folder,)) for _ in range(4)]
            for process in group:
                process.start()
            for process in group:
                process.join(60)
    finally:
        del os.environ["PROMETHEUS_MULTIPROC_DIR"]
    assert len(list(Path(folder).glob("histogram_*.db"))) == WORKERS, "BUG: a worker left no file"


def _worker(folder: str) -> None:
    from prometheus_client import Histogram

    metric = Histogram("bench_latency_seconds", "Benchmark.", ["route"])
    for i in range(SERIES):
        child = metric.labels(f"r{i:06d}")
        for _ in range(2):
            child.observe(random.random())


def _peer(folder: str) -> float:
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": folder}
    time.sleep(0.1)
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environ, capture_output=True, text=True, timeout=120, check=True
    )
    return float(done.stdout.split()[0])
