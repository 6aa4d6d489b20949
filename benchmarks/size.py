"""Bytes per event in the stream: ours, one msgpack event an entry, and a statsd line.

In: nothing. Out: a Section; sizes are of the payload, the entry's own overhead is measured by Redis beside it.
"""

import random
import time

from benchmarks.backlog import Backlog
from benchmarks.measure import OURS, Section
from benchmarks.naive_consumer import encode

SERIES = 500
BATCHES = 20


def run(full: bool) -> Section:
    """Measure sizes; a few milliseconds."""
    section = Section("size", "Bytes per event in the stream", less_is_better=True)
    for work, samples, bound in (("2 samples per series and flush", 2, 10.0), ("dense: 10 samples", 10, 8.5)):
        section.add(work, OURS, "bytes", _ours(samples), at_most=bound)
        section.add(work, "one msgpack event an entry", "bytes", [_msgpack()])
        section.add(work, "statsd line", "bytes", [_statsd()])
    section.notes.append(
        f"{SERIES} histogram series, {BATCHES} batches, distinct random float64 values: 8 bytes of each are its value."
    )
    return section


def _ours(samples: int) -> list[float]:
    backlog = Backlog(1, SERIES)
    return [len(data) / (SERIES * samples) for _, data in backlog.seal(BATCHES, samples)]


def _msgpack() -> float:
    now_ms = int(time.time() * 1000)
    sizes = [len(encode(f"r{i:06d}", random.random(), now_ms)) for i in range(SERIES)]
    return sum(sizes) / SERIES


def _statsd() -> float:
    sizes = [len(f"bench.latency.r{i:06d}:{random.random() * 1000:.3f}|ms\n") for i in range(SERIES)]
    return sum(sizes) / SERIES
