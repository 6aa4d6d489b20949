"""One subject of the emit benchmark in a process of its own: `python -m benchmarks.emit_subject NAME MODE`.

Out: one JSON line, nanoseconds an event. `bound` and `labels` are the processor time of the calling thread (median
of blocks), `cpu` and `flood` that of the whole process, other threads and the flush at the end included, at an
even pace that is high for a service and at one that is too high for the batches to carry single samples.
"""

import json
import random
import socket
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from contract.metric import DEFAULT_BUCKETS

SERIES: Final = 100
BLOCK: Final = 20_000
BLOCKS: Final = 20
TICK_S: Final = 0.02
PACED: Final = {"cpu": (40, 100), "flood": (200, 50)}
"""Events a series and tick, ticks: 200 k and 1 M events a second."""
SLOW: Final = 4
"""Peers that need microseconds an event get so many times smaller blocks and fewer ticks."""

SINKS: Final[list[socket.socket]] = []
"""Held open until the process ends."""

Emit = Callable[[float], object]


def main() -> None:
    """Measure the subject named in argv[1]."""
    name, mode = sys.argv[1:3]
    bound, labelled, stop = SUBJECTS[name]()
    slow = 1 if name in ("streamgauge", "append") else SLOW
    values = [random.random() for _ in range(BLOCK // slow)]
    if mode in PACED:
        size, ticks = PACED[mode]
        whole, calling = _paced(bound, values, size, ticks // slow, stop)
        print(json.dumps({mode: whole, f"{mode}_calling": calling}))
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
        blocks.append((time.thread_time_ns() - began) / len(values))
        time.sleep(0.02)  # lets the library's own threads work outside of the measured blocks
    return statistics.median(blocks)


def _labels(metric: Any, values: list[float]) -> float:
    blocks: list[float] = []
    routes = [f"r{i % SERIES:03d}" for i in range(min(len(values), BLOCK // 4))]
    for _ in range(BLOCKS // 2):
        began = time.thread_time_ns()
        for route, value in zip(routes, values, strict=False):
            metric.labels(route).observe(value)
        blocks.append((time.thread_time_ns() - began) / len(routes))
        time.sleep(0.02)
    return statistics.median(blocks)


def _paced(
    children: list[Emit], values: list[float], size: int, ticks: int, stop: Callable[[], object]
) -> tuple[float, float]:
    """Emit as services do, every series a little at a time; processor time by the events, all and the caller's."""
    time.sleep(0.5)  # lets the library connect
    began, began_here, due_s = time.process_time_ns(), time.thread_time_ns(), time.monotonic()
    for _ in range(ticks):
        for observe in children:
            for value in values[:size]:
                observe(value)
        due_s += TICK_S
        time.sleep(max(0.0, due_s - time.monotonic()))
    here = time.thread_time_ns() - began_here
    stop()
    events = size * ticks * len(children)
    return (time.process_time_ns() - began) / events, here / events


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


def _opentelemetry() -> tuple[list[Emit], Any, Callable[[], object]]:
    """A histogram with our bounds, its attributes made before; nothing is exported."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    provider = MeterProvider([InMemoryMetricReader()])
    histogram = provider.get_meter("bench").create_histogram(
        "bench_emit_seconds", explicit_bucket_boundaries_advisory=list(DEFAULT_BUCKETS)
    )
    children: list[Emit] = [partial(histogram.record, attributes={"route": f"r{i:03d}"}) for i in range(SERIES)]
    return children, _Labelled(lambda route, value: histogram.record(value, {"route": route})), lambda: None


def _statsd() -> tuple[list[Emit], Any, Callable[[], object]]:
    import statsd  # pyright: ignore[reportMissingTypeStubs]

    client: Any = statsd.StatsClient("127.0.0.1", _sink())
    children: list[Emit] = [partial(client.timing, f"bench.emit.r{i:03d}") for i in range(SERIES)]
    return children, _Labelled(lambda route, value: client.timing(f"bench.emit.{route}", value)), client.close


def _datadog() -> tuple[list[Emit], Any, Callable[[], object]]:
    from datadog.dogstatsd.base import DogStatsd

    client = DogStatsd("127.0.0.1", _sink(), disable_telemetry=True)
    emits = [[f"route:r{i:03d}"] for i in range(SERIES)]

    def bound(tags: list[str]) -> Emit:
        return lambda value: client.histogram("bench.emit", value, tags)

    labelled = _Labelled(lambda route, value: client.histogram("bench.emit", value, [f"route:{route}"]))
    return [bound(tags) for tags in emits], labelled, client.flush


class _Labelled:
    """Gives a client that names its series in each call the shape `labels(...).observe(...)`."""

    def __init__(self, emit: Callable[[str, float], object]) -> None:
        self._emit = emit

    def labels(self, route: str) -> "_Labelled":
        """Choose the series."""
        self._route = route
        return self

    def observe(self, value: float) -> None:
        """Emit."""
        self._emit(self._route, value)


def _sink() -> int:
    """Return the port of a UDP socket that nobody reads: what does not fit is dropped."""
    holder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    holder.bind(("127.0.0.1", 0))
    SINKS.append(holder)
    return int(holder.getsockname()[1])


def _append() -> tuple[list[Emit], Any, Callable[[], object]]:
    kept: list[list[float]] = [[] for _ in range(SERIES)]
    return [one.append for one in kept], None, lambda: None


SUBJECTS: Final = {
    "streamgauge": _streamgauge,
    "prometheus": _prometheus,
    "opentelemetry": _opentelemetry,
    "statsd": _statsd,
    "datadog": _datadog,
    "append": _append,
}

if __name__ == "__main__":
    main()
