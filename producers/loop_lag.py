"""Loop lag: how late the event loop gets to what is due, and the CPU time of the process.

In: a running event loop. Out: `event_loop_lag_seconds` (a sample each 100 ms) and `process_cpu_seconds_total`.
Promise: one watch a loop, however many apps run in it; it ends with the app and never makes it fail. A blocked loop
is one late sample, as long as the block.
"""

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import cache
from time import perf_counter, process_time
from typing import Final

import producers
from producers.background import end
from producers.event_log import EventLog
from producers.metrics import Counter, Histogram

log = EventLog(__name__)

TICK_S: Final = 0.1
TICKS_PER_CPU: Final = 10
BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class LoopMetrics:
    """The metrics of one process and the loops that are watched in it."""

    def __init__(self) -> None:
        # Rollups merge all producers, so that only a label keeps services apart.
        self.lag = Histogram(
            "event_loop_lag_seconds",
            "Delay with which the event loop gets to what is due, measured each 100 ms.",
            ("service",),
            buckets=BUCKETS,
            unit="seconds",
        )
        self.cpu = Counter("process_cpu_seconds_total", "CPU time of the processes, in seconds.", ("service",))
        self.watched: set[AbstractEventLoop] = set()
        self.cpu_s = 0.0

    async def watch(self, service: str) -> None:
        """Measure until cancelled."""
        observe = self.lag.labels(service).observe
        add_cpu = self.cpu.labels(service).inc
        try:
            while True:
                for _ in range(TICKS_PER_CPU):
                    # Not the loop's own clock: uvloop's stands still while a callback runs.
                    due = perf_counter() + TICK_S
                    await asyncio.sleep(TICK_S)
                    observe(max(0.0, perf_counter() - due))
                add_cpu(self.spent_s())
        finally:
            add_cpu(self.spent_s())

    def spent_s(self) -> float:
        """Return the CPU time since the last call; in a forked child it begins anew."""
        before, self.cpu_s = self.cpu_s, process_time()
        return max(0.0, self.cpu_s - before)


@cache
def loop_metrics() -> LoopMetrics:
    """Return the metrics of this process: defined once, however many loops are watched."""
    return LoopMetrics()


@asynccontextmanager
async def watching() -> AsyncGenerator[None]:
    """Watch the running loop for as long as the block lasts; a block within another adds nothing."""
    loop = asyncio.get_running_loop()
    try:
        metrics = loop_metrics()
    except ValueError as error:
        # The application declares one of the names itself, in its own way.
        log.warning("loop_not_watched", extra={"error": str(error), "try": "rename the application's own metric"})
        yield
        return
    if loop in metrics.watched:
        yield
        return
    if not metrics.watched:
        metrics.spent_s()
    metrics.watched.add(loop)
    task = loop.create_task(metrics.watch(producers.default_client().service), name="streamgauge - loop lag")
    try:
        yield
    finally:
        metrics.watched.discard(loop)
        await end(task)
