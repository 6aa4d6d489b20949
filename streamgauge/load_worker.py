"""One process of a load test: emits its share through the real producer library and counts outside of it.

Run as `python -m streamgauge.load_worker PLAN`, PLAN being JSON. Writes a JSON line per report to standard output.
Promise: it emits exactly its share, unless it is killed or its deadline passes; with an oracle, a burst is on
disk there before its first event is emitted; it ends when nobody reads its reports any more.
"""

import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

import producers
from contract.series import series_key
from streamgauge.load_oracle import OracleWriter
from streamgauge.load_plan import BOUNDS, DEPTH, LABEL, LATENCY, PROBES, REQUESTS, Plan, Report, probe_key, split

BURST: Final = 1000
PROBE_EVERY_S: Final = 0.1
REPORT_EVERY_S: Final = 0.2
SHORTEST_BURST_S: Final = 0.02
FLUSH_DEADLINE_S: Final = 60.0
"""Long enough for servers that a fault test has taken away to come back."""


class Target(NamedTuple):
    """A series to emit to. `bounds` is None unless it is a histogram; the totals of a gauge hold no `sum`."""

    key: str
    emit: Callable[[float], None]
    bounds: Sequence[float] | None
    has_sum: bool = True


def targets(plan: Plan) -> list[Target]:
    """Declare the metrics and return every series, kinds interleaved as in an application."""
    histograms, counters, gauges = split(plan.series, plan.kind)
    latency = producers.Histogram(LATENCY, "Load test: a duration.", [LABEL], buckets=BOUNDS)
    requests = producers.Counter(REQUESTS, "Load test: a count.", [LABEL])
    depth = producers.Gauge(DEPTH, "Load test: a level.", [LABEL])
    found: list[Target] = []
    for i in range(histograms):
        route = f"r{i:06d}"
        found.append(Target(_key(LATENCY, route), latency.labels(route=route).observe, BOUNDS))
    for i in range(counters):
        route = f"r{i:06d}"
        found.append(Target(_key(REQUESTS, route), requests.labels(route=route).inc, None))
    for i in range(gauges):
        route = f"r{i:06d}"
        found.append(Target(_key(DEPTH, route), depth.labels(route=route).set, None, has_sum=False))
    random.Random(plan.token).shuffle(found)  # noqa: S311 - an order, no secret
    return found


def _key(name: str, route: str) -> str:
    return series_key(name, {LABEL: route}).decode()


class Worker:
    """Emits a plan. The clock is monotonic and shared by all processes of the machine."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.sent = 0
        self.probes = 0
        self.began_s = time.monotonic()
        self._random = random.Random(f"{plan.token}/{plan.number}")  # noqa: S311 - values, no secret
        self._targets = targets(plan)
        probes = producers.Counter(
            PROBES, "Load test: emitted now and then to see when it is committed.", ["process", "run"]
        )
        child = probes.labels(process=str(plan.number), run=plan.token)
        self._probe = Target(probe_key(plan.token, plan.number).decode(), child.inc, None)
        self._oracle = OracleWriter(Path(plan.oracle)) if plan.oracle else None
        self._probed_s = self._reported_s = float("-inf")
        self._at = 0

    def run(self) -> None:
        """Emit everything, in bursts, no faster than the rate."""
        plan = self.plan
        burst = max(1, min(BURST, int(plan.rate * SHORTEST_BURST_S))) if plan.rate else BURST
        report(Report(began_s=self.began_s, at_s=self.began_s))
        while self.sent < plan.events:
            now_s = time.monotonic()
            if now_s - self.began_s > plan.deadline_s:
                return
            self._emit(min(burst, plan.events - self.sent), now_s)
            if plan.rate and (ahead_s := self.began_s + self.sent / plan.rate - time.monotonic()) > 0:
                time.sleep(ahead_s)

    def _emit(self, size: int, now_s: float) -> None:
        chosen: list[Target] = []
        if now_s - self._probed_s >= PROBE_EVERY_S:
            chosen.append(self._probe)
        while len(chosen) < size:
            part = self._targets[self._at : self._at + size - len(chosen)]
            chosen += part
            self._at = (self._at + len(part)) % len(self._targets)
        draw = self._random.random
        values = [draw() for _ in chosen]
        if chosen[0] is self._probe:
            values[0] = 1.0
        if self._oracle is not None:
            pairs = zip(chosen, values, strict=True)
            self._oracle.write((t.key, value if t.has_sum else 0.0, t.bounds) for t, value in pairs)
        if chosen[0] is self._probe:
            self.probes += 1
            self._probed_s = time.monotonic()
            report(Report(sent=self.sent, at_s=self._probed_s, probe=self.probes))
        for target, value in zip(chosen, values, strict=True):
            target.emit(value)
        self.sent += len(chosen)
        if now_s - self._reported_s >= REPORT_EVERY_S:
            self._reported_s = now_s
            report(Report(sent=self.sent, at_s=now_s))


def report(line: Report) -> None:
    """Write one line; BrokenPipeError when nobody reads any more."""
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


def main() -> int:
    """Run the plan in argv[1]."""
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    worker = Worker(plan)
    try:
        worker.run()
        producers.stop(FLUSH_DEADLINE_S)
        report(Report(sent=worker.sent, at_s=time.monotonic(), done=worker.sent == plan.events))
    except (BrokenPipeError, KeyboardInterrupt):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
