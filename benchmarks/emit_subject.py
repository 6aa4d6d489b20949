"""One subject of the emit benchmark in a process of its own: `python -m benchmarks.emit_subject NAME MODE`.

Out: one JSON line, nanoseconds an event. `bound` and `labels` are the processor time of the calling thread (median
of blocks), `cpu` and `flood` that of the whole process, other threads and the flush at the end included, at an
even pace that is high for a service and at one that is too high for the batches to carry single samples.
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
BLOCKS: Final = 20
TICK_S: Final = 0.02
PACED: Final = {"cpu": (40, 100), "flood": (200, 50)}
"""Events a series and tick, ticks: 200 k and 1 M events a second."""

Emit = Callable[[float], object]


def main() -> None:
    """Measure the subject named in argv[1]."""
    bound, labelled, stop = SUBJECTS[sys.argv[1]]()
    values = [random.random() for _ in range(BLOCK)]
    mode = sys.argv[2]
    if mode in PACED:
        print(json.dumps({mode: _paced(bound, values, *PACED[mode], stop)}))
    else:
        found = {"bound": _bound(bound, values), "labels": _labels(labelled, values) if labelled else None}
        print(json.dumps(found))


def _bound(children: list[Emit], values: list[float]) -> float:
    blocks: list[float] = []
    for i in range(BLOCKS):
        observe = children[i % len(children)]
        began = time.thread_time_ns()
        for value in values:
            observe(value)
        blocks.append((time.thread_time_ns() - began) / BLOCK)
        time.sleep(0.02)  # lets the library's own threads work outside of the measured blocks
    return statistics.median(blocks)


def _labels(metric: Any, values: list[float]) -> float:
    blocks: list[float] = []
    routes = [f"r{i % SERIES:03d}" for i in range(BLOCK // 4)]
    for _ in range(BLOCKS // 2):
        began = time.thread_time_ns()
        for route, value in zip(routes, values, strict=False):
            metric.labels(route).observe(value)
        blocks.append((time.thread_time_ns() - began) / len(routes))
        time.sleep(0.02)
    return statistics.median(blocks)


def _paced(children: list[Emit], values: list[float], size: int, ticks: int, stop: Callable[[], object]) -> float:
    """Emit as services do, every series a little at a time, and divide all processor time by the events."""
    time.sleep(0.5)  # lets the library connect
    began, due_s = time.process_time_ns(), time.monotonic()
    for _ in range(ticks):
        for observe in children:
            for value in values[:size]:
                observe(value)
        due_s += TICK_S
        time.sleep(max(0.0, due_s - time.monotonic()))
    stop()
    return (time.process_time_ns() - began) / (size * ticks * len(children))


def _streamgauge() -> tuple[list[Emit], Any, Callable[[], object]]:
    import producers

    metric = producers.Histogram("bench_emit_seconds", "Benchmark.", ["route"])
    producers.start()
    return [metric.labels(f"r{i:03d}").observe for i in range(SERIES)], metric, lambda: producers.stop(30.0)


def _prometheus() -> tuple[list[Emit], Any, Callable[[], object]]:
    """In-process, or multi-process where PROMETHEUS_MULTIPROC_DIR is set."""
    from prometheus_client import Histogram

    metric = Histogram("bench_emit_seconds", "Benchmark.", ["route"])
    return [metric.labels(f"r{i:03d}").observe for i in range(SERIES)], metric, lambda: None


def _append() -> tuple[list[Emit], Any, Callable[[], object]]:
    kept: list[list[float]] = [[] for _ in range(SERIES)]
    return [one.append for one in kept], None, lambda: None


SUBJECTS: Final = {"streamgauge": _streamgauge, "prometheus": _prometheus, "append": _append}

if __name__ == "__main__":
    main()
