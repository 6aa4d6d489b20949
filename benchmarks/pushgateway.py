"""Prometheus Pushgateway beside ours: workers hand over their series, then somebody scrapes.

In: a scratch stack; `prometheus-pushgateway` on PATH. Out: a Section, milliseconds. Each worker holds the same
histograms; the gateway keeps a group per worker in memory, ours adds the workers up and commits to PostgreSQL.
"""

import json
import shutil
import subprocess
import sys
import time
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import pushadd_to_gateway  # pyright: ignore[reportUnknownVariableType]

from benchmarks.backlog import Backlog, push
from benchmarks.measure import OURS, Section
from benchmarks.scrape import get_metrics
from benchmarks.scratch import Scratch, wait_committed
from streamgauge.processes import free_port
from streamgauge.stack import answers

WORKERS: Final = 8
SERIES: Final = 500
SAMPLES: Final = 2
PEER: Final = "Prometheus Pushgateway"
PROGRAM: Final = "prometheus-pushgateway"


def run(full: bool) -> Section:
    """Push and scrape in turns."""
    section = Section("pushgateway", f"Hand-over by {WORKERS} workers x {SERIES} series", less_is_better=True)
    program = shutil.which(PROGRAM)
    found: dict[tuple[str, str], list[float]] = {}

    def book(work: str, subject: str, value: float) -> None:
        found.setdefault((work, subject), []).append(value)

    with Scratch() as stack:
        stack.aggregator()
        backlog = Backlog(WORKERS, SERIES)
        _push_ours(stack, backlog)
        stack.exporter()
        get_metrics(stack.exporter_port)
        gateway = _gateway(stack, program) if program else 0
        for _ in range(9 if full else 3):
            book("all workers' series taken", OURS, _push_ours(stack, backlog))
            ours = get_metrics(stack.exporter_port)
            book("scrape after all changed", OURS, ours.seconds * 1000)
            book("lines of a scrape", OURS, ours.samples())
            if program:
                book("all workers' series taken", PEER, _push_theirs(stack, gateway))
                theirs = get_metrics(gateway)
                book("scrape after all changed", PEER, theirs.seconds * 1000)
                book("lines of a scrape", PEER, theirs.samples())
    units = {"lines of a scrape": "lines"}
    for (work, subject), values in sorted(found.items(), key=lambda item: list(found).index(item[0])):
        section.add(work, subject, units.get(work, "ms"), values)
    if program is None:
        section.notes.append(f"**{PEER}: not run: {PROGRAM} missing** (a Debian package).")
    section.notes.append(
        "Histograms with 14 buckets. Ours: sealed batches in Redis to committed in PostgreSQL, the commit interval "
        "included. The peer: a POST per worker by prometheus_client, one after the other, kept in memory; it does not "
        "add workers up, so it shows every worker's buckets."
    )
    return section


def _gateway(stack: Scratch, program: str) -> int:
    port = free_port()
    stack.start("pushgateway", [program, f"--web.listen-address=127.0.0.1:{port}"], answers(port, "/-/ready"))
    return port


def _push_ours(stack: Scratch, backlog: Backlog) -> float:
    """Return the milliseconds until a batch of each worker is committed."""
    sealed = backlog.seal(WORKERS, SAMPLES)
    began_s = time.perf_counter()
    push(stack.client(), sealed)
    wait_committed(stack.dsn, backlog.events)
    return (time.perf_counter() - began_s) * 1000


def _push_theirs(stack: Scratch, port: int) -> float:
    """Return the milliseconds of a push by each worker."""
    command = [sys.executable, "-m", "benchmarks.pushgateway", str(port)]
    done = subprocess.run(command, env=stack.environ, capture_output=True, text=True, timeout=120, check=True)
    return float(json.loads(done.stdout))


def push_all(port: int) -> None:
    """Push for each worker in turn; prints the milliseconds."""
    registry = CollectorRegistry()
    metric = Histogram("bench_latency_seconds", "Benchmark.", ["route"], registry=registry)
    for i in range(SERIES):
        for sample in range(SAMPLES):
            metric.labels(f"r{i:06d}").observe(i * sample / 1000)
    began_s = time.perf_counter()
    for worker in range(WORKERS):
        pushadd_to_gateway(f"127.0.0.1:{port}", "bench", registry, {"instance": f"w{worker}"}, timeout=60)
    print(json.dumps((time.perf_counter() - began_s) * 1000))


if __name__ == "__main__":
    push_all(int(sys.argv[1]))
