"""Freshness: emit to visible on /metrics, while a feeder keeps the pipeline at half of what it drained at most.

In: a scratch stack. Out: a Section, seconds. A probe is a counter that the real library increments; it is visible
when a scrape shows the new value. The feeder appends sealed batches at an even pace from a process of its own.
"""

import subprocess
import sys
import time
from typing import Any, Final

from benchmarks.backlog import Backlog, push
from benchmarks.drain import PRODUCERS, SHAPES, Found, drain_round
from benchmarks.measure import OURS, Section
from benchmarks.scrape import get_metrics
from benchmarks.scratch import Scratch
from streamgauge.loadtest import quantile

SHAPE: Final = SHAPES[0]
TRIALS: Final = 2
POLL_S: Final = 0.05
VISIBLE_DEADLINE_S: Final = 30.0
PROBE: Final = "bench_probe_total"


def run(full: bool) -> Section:
    """Find the drained maximum, then probe at half of it."""
    section = Section("freshness", "Emit to visible on /metrics", less_is_better=True)
    probes = 120 if full else 30
    with Scratch() as stack:
        aggregator = stack.aggregator()
        stack.exporter()
        rate = _drained_maximum(stack, aggregator) / 2
        loaded = _probe(stack, probes, rate)
        idle = _probe(stack, probes // 3, 0.0)
    for work, values in (("half of the drained maximum", loaded), ("no other load", idle)):
        section.add(f"p50, {work}", OURS, "s", [quantile(values, 0.5) or 0.0])
        section.add(f"p99, {work}", OURS, "s", [quantile(values, 0.99) or 0.0], at_most=1.0)
    section.notes.append(
        f"Load: {rate:,.0f} events/s ({SHAPE.title}, {PRODUCERS} producers); a scrape each {POLL_S * 1000:.0f} ms "
        "looks for the probe; flush interval 250 ms and commit interval as shipped."
    )
    return section


def _drained_maximum(stack: Scratch, aggregator: "subprocess.Popen[bytes]") -> float:
    """Return the events per second of draining a backlog, its series known before."""
    backlog, found = Backlog(PRODUCERS, SHAPE.series), Found()
    drain_round(stack, aggregator, backlog, SHAPE, PRODUCERS, None)
    for _ in range(TRIALS):
        drain_round(stack, aggregator, backlog, SHAPE, SHAPE.batches, found)
    return max(found.events)


def _probe(stack: Scratch, probes: int, rate: float) -> list[float]:
    """Return the seconds from emit to visible of each probe, with a feeder at `rate` events a second beside it."""
    command = [sys.executable, "-m", "benchmarks.freshness", "feed", stack.redis.url, str(rate)]
    prober = [sys.executable, "-m", "benchmarks.freshness", "probe", str(stack.exporter_port), str(probes)]
    feeder = subprocess.Popen(command, env=stack.environ, stdin=subprocess.PIPE) if rate else None
    try:
        time.sleep(2.0)  # the feeder's first batches admit nothing new; this lets the pace settle
        done = subprocess.run(prober, env=stack.environ, capture_output=True, text=True, timeout=300, check=True)
        if feeder is not None and feeder.poll() is not None:
            raise RuntimeError("the feeder could not keep its pace")
    finally:
        if feeder is not None:
            feeder.terminate()
            feeder.wait(10)
    return [float(line) for line in done.stdout.split()]


def feed(url: str, rate: float) -> int:
    """Append sealed batches at `rate` events a second until terminated; 1 when that is too fast for this process."""
    import redis

    client: Any = redis.Redis.from_url(url, protocol=2)
    backlog = Backlog(PRODUCERS, SHAPE.series)
    per_tick = max(1, round(rate * 0.05 / (SHAPE.series * SHAPE.samples)))
    tick_s = per_tick * SHAPE.series * SHAPE.samples / rate
    sealed = backlog.seal(per_tick, SHAPE.samples)
    due_s = time.monotonic()
    while True:
        push(client, sealed)
        sealed = backlog.seal(per_tick, SHAPE.samples)
        due_s += tick_s
        if time.monotonic() - due_s > 2.0:
            return 1
        time.sleep(max(0.0, due_s - time.monotonic()))


def probe(port: int, probes: int) -> int:
    """Print the seconds from emit to visible of each probe, one a line."""
    import producers

    counter = producers.Counter(PROBE, "Benchmark.", ["run"])
    run = f"{time.time_ns()}"
    child = counter.labels(run)
    producers.start()
    for number in range(1, probes + 1):
        wanted = f'{PROBE}{{run="{run}"}} {number}'.encode()
        began_s = time.monotonic()
        child.inc()
        while not _shows(get_metrics(port).body, wanted):
            if time.monotonic() - began_s > VISIBLE_DEADLINE_S:
                return 1
            time.sleep(POLL_S)
        print(time.monotonic() - began_s, flush=True)
        time.sleep(0.137)  # out of step with the flush and the commit interval
    producers.stop()
    return 0


def _shows(body: bytes, wanted: bytes) -> bool:
    """Whether a line of the exposition is `wanted`, its value written with or without a fraction."""
    return wanted + b"\n" in body or wanted + b".0\n" in body


if __name__ == "__main__":
    sys.exit(
        feed(sys.argv[2], float(sys.argv[3])) if sys.argv[1] == "feed" else probe(int(sys.argv[2]), int(sys.argv[3]))
    )
