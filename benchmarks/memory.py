"""Memory: what 100 k series take in each service, beside prometheus_client holding as many.

In: a scratch stack. Out: a Section, MiB. Each figure is the growth over the same service without series, of the
proportional set size (shared pages divided among those who share them); the tables' is their size on disk.
"""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import asyncpg

from benchmarks.backlog import CounterBacklog, push
from benchmarks.measure import OURS, Section
from benchmarks.scrape import get_metrics
from benchmarks.scratch import Scratch, wait_committed

SERIES: Final = 100_000
MIB: Final = 2**20
PEER: Final = "prometheus_client, in-process"
BUDGET: Final = {"STREAMGAUGE_SERIES_BUDGET": "200000"}
TABLES: Final = "SELECT sum(pg_total_relation_size(relid))::float8 FROM pg_stat_user_tables WHERE relname = ANY ($1)"
KEPT: Final = ["series", "totals"]


def run(full: bool) -> Section:
    """Measure before and after; `full` holds twice as many series."""
    series = SERIES * (2 if full else 1)
    per = SERIES / series
    section = Section("memory", f"Memory per {SERIES // 1000} k counter series", less_is_better=True)
    with Scratch() as stack:
        aggregator = stack.aggregator(**BUDGET)
        empty = stack.exporter()
        get_metrics(stack.exporter_port)
        bare = {"aggregator": pss(aggregator.pid), "exporter": pss(empty.pid), "Redis": _redis(stack)}
        tables = _tables(stack)
        backlog = CounterBacklog(series)
        push(stack.client(), backlog.seal(range(series)))
        wait_committed(stack.dsn, backlog.events)
        get_metrics(stack.exporter_port)
        get_metrics(stack.exporter_port, "gzip")
        grown = {"aggregator": pss(aggregator.pid), "exporter": pss(empty.pid), "Redis": _redis(stack)}
        for name, before in bare.items():
            section.add(name, OURS, "MiB", [(grown[name] - before) * per])
        section.add("PostgreSQL: tables series and totals", OURS, "MiB", [(_tables(stack) - tables) * per])
        for name, subject in (("streamgauge", OURS), ("prometheus", PEER)):
            section.add("a producing process", subject, "MiB", [_process(stack, name, series) * per])
    before = ", ".join(f"{name} {value:.0f} MiB" for name, value in bare.items())
    section.notes.append(f"Without any series: {before}. Redis holds the stream's entries, not the series.")
    section.notes.append(
        "Counters of one label; the exporter holds a plain and a gzip exposition of them; the aggregator after one "
        f"commit of each. {series:,} series measured."
    )
    return section


def pss(pid: int) -> float:
    """Return the proportional set size of a process in MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel tells no Pss")


def _process(stack: Scratch, subject: str, series: int) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", subject, str(series)]
    environ = {**stack.environ, "STREAMGAUGE_MAX_SERIES_PER_METRIC": str(2 * series)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=True)
    return float(json.loads(done.stdout))


def _redis(stack: Scratch) -> float:
    return float(stack.client().info("memory")["used_memory"]) / MIB


def _tables(stack: Scratch) -> float:
    async def ask() -> float:
        connection = await asyncpg.connect(stack.dsn, timeout=10)
        try:
            return float(await connection.fetchval(TABLES, KEPT))
        finally:
            await connection.close(timeout=10)

    return asyncio.run(ask()) / MIB


def hold(subject: str, series: int) -> None:
    """Make that many counters, count once in each, and print by how many MiB this process grew."""
    if subject == "streamgauge":
        from producers import Counter
    else:
        from prometheus_client import Counter
    counter = Counter("bench_requests_total", "Benchmark.", ["route"])
    before = pss(os.getpid())
    children = [counter.labels(f"r{i:06d}") for i in range(series)]
    for child in children:
        child.inc()
    grown = pss(os.getpid()) - before
    assert len(set(map(id, children))) == series, "BUG: series were refused, so that fewer were measured"
    print(json.dumps(grown))


if __name__ == "__main__":
    hold(sys.argv[1], int(sys.argv[2]))
