"""One subject of the emit benchmark in a process of its own: `python -m benchmarks.emit_subject NAME`.

Out: one JSON line, nanoseconds an event. `bound` and `labels` are the caller's time (median of blocks), `cpu` the
processor time of the whole process for each event, other threads and the flush at the end included.
"""

import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, Final

SERIES: Final = 100
BLOCK: Final = 20_000
BLOCKS: Final = 60
PACED_EVENTS: Final = 1_500_000
PACE_S: Final = 0.02

Emit = Callable[[float], object]


def main() -> None:
    """Measure the subject named in argv[1]."""
    bound, labelled, stop = SUBJECTS[sys.argv[1]]()
    values = [random.random() for _ in range(BLOCK)]
    found = {"bound": _bound(bound, values), "labels": _labels(labelled, values) if labelled else None}
    found["cpu"] = _cpu(bound, values, stop)
    print(json.dumps(found))


def _bound(children: list[Emit], values: list[float]) -> float:
    blocks: list[float] = []
    for i in range(BLOCKS):
        observe = children[i % len(children)]
        began = time.perf_counter_ns()
        for value in values:
            observe(value)
        blocks.append((time.perf_counter_ns() - began) / BLOCK)
        time.sleep(0.005)  # lets the library's own threads work outside of the measured blocks
    return statistics.median(blocks)


def _labels(metric: Any, values: list[float]) -> float:
    blocks: list[float] = []
    routes = [f"r{i % SERIES:03d}" for i in range(BLOCK // 4)]
    for _ in range(BLOCKS // 2):
        began = time.perf_counter_ns()
        for route, value in zip(routes, values, strict=False):
            metric.labels(route).observe(value)
        blocks.append((time.perf_counter_ns() - began) / len(routes))
        time.sleep(0.005)
    return statistics.median(blocks)


def _cpu(children: list[Emit], values: list[float], stop: Callable[[], None]) -> float:
    """Emit at an even pace, so that flushing happens as in a service, and divide all processor time."""
    began = time.process_time_ns()
    emitted = at = 0
    while emitted < PACED_EVENTS:
        observe = children[at % len(children)]
        at += 1
        for value in values:
            observe(value)
        emitted += BLOCK
        time.sleep(PACE_S)
    stop()
    return (time.process_time_ns() - began) / emitted


def _streamgauge() -> tuple[list[Emit], Any, Callable[[], None]]:
    import producers

    metric = producers.Histogram("bench_emit_seconds", "Benchmark.", ["route"])
    producers.start()
    return [metric.labels(f"r{i:03d}").observe for i in range(SERIES)], metric, producers.stop


def _prometheus() -> tuple[list[Emit], Any, Callable[[], None]]:
    """In-process, or multi-process where PROMETHEUS_MULTIPROC_DIR is set."""
    from prometheus_client import Histogram

    metric = Histogram("bench_emit_seconds", "Benchmark.", ["route"])
    return [metric.labels(f"r{i:03d}").observe for i in range(SERIES)], metric, lambda: None


def _append() -> tuple[list[Emit], Any, Callable[[], None]]:
    kept: list[list[float]] = [[] for _ in range(SERIES)]
    return [one.append for one in kept], None, lambda: None


SUBJECTS: Final = {"streamgauge": _streamgauge, "prometheus": _prometheus, "append": _append}

if __name__ == "__main__":
    main()
