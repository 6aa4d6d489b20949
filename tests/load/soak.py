"""Soak: most of what can be drained, for long, with a fault a minute: is memory flat, lag bounded, everything there?

Run `python -m tests.load.soak --minutes M [--seed N]`. In: real processes on servers as they are shipped. Out: a table
and a picture; exit code 1 when a promise was broken, and the command to repeat it.
Promise: the maximum is measured first, in the same run, with the same shape: by the services alone, and with the feeder
on the same cores; the table says which of the two is held.
"""

import argparse
import random
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.backlog import SERVICE
from benchmarks.scratch import Scratch
from tests.faults.bench import Bench
from tests.faults.nemesis import EMITTERS, Fault, Nemesis, emit, schedule
from tests.faults.oracle import IMPATIENT, are_read, total
from tests.load.child import Child
from tests.load.feed import EVENTS
from tests.load.judging import Calm, by_role, judge_fed, judge_lag, judge_memory, picture, tell_freshness
from tests.load.report import Progressing, Result, seconds, show, write
from tests.load.sampling import Sample, Sampler, Scraper, freshness
from tests.loading import DUPLICATES, fetch

SHARE: Final = 0.8
HEADROOM: Final = 0.9
"""More than this share of what can be fed and drained at once leaves too little to catch up with after a fault."""
WORKERS: Final = 400
WAITING_S: Final = 2.0
"""So much work waits while the maximum with the feeder is measured."""
LOOK_S: Final = 0.1
DRAIN_S: Final = 240.0
AROUND_S: Final = 30.0
"""So long after its end a fault still counts: at 80 % it takes four times an outage to catch up."""
SETTINGS: Final = {
    "STREAMGAUGE_COMMIT_INTERVAL_S": "0.5",
    "STREAMGAUGE_RECLAIM_IDLE_S": "8",
    "STREAMGAUGE_RECLAIM_INTERVAL_S": "2",
    "STREAMGAUGE_LEASE_S": "3",
    "STREAMGAUGE_STREAM_MAX_BYTES": str(64 << 20),
    "STREAMGAUGE_TRIM_INTERVAL_S": "3",
}
"""As shipped, but for times that would outlast the minute between two faults, and a cap that is reached at once."""
FED: Final = f"SELECT coalesce(sum(committed_events), 0)::bigint FROM producers WHERE service = '{SERVICE}'"


class Length(NamedTuple):
    """How long the parts of a run are, seconds."""

    hold_s: float
    backlog: int = 60_000
    """Batches that the services drain alone."""
    measure_s: float = 60.0
    """Of the maximum with the feeder, after as much that is not measured."""
    between_s: float = 60.0
    """From one fault to the next."""
    sample_s: float = 1.0


class Maximum(NamedTuple):
    """What is drained, events a second: by the services alone, and while they are fed."""

    alone: float
    fed: float

    def held(self) -> float:
        """Return what to hold: a share of what the services can, or of what these cores can feed as well."""
        wanted = SHARE * self.alone
        return wanted if wanted <= HEADROOM * self.fed else SHARE * self.fed

    def tell(self, result: Result) -> None:
        """Say both, and which of them is held."""
        for what, rate in (("the services alone", self.alone), ("with the feeder on the same cores", self.fed)):
            result.row(f"drained maximum, {what}", f"{rate:,.0f} events/s, {rate / EVENTS:,.0f} batches/s")
        held = self.held()
        whose = f"{SHARE:.0%} of the first"
        if held < SHARE * self.alone:
            whose = f"{SHARE:.0%} of the second: these cores cannot feed {SHARE:.0%} of the first and drain it"
        result.row("held", f"{held:,.0f} events/s ({held / self.alone:.0%} of the first; {whose})")


def faults_of(seed: int, length: Length) -> list[Fault]:
    """Return one fault for each interval, drawn from nemesis' schedules; each is over before the next begins."""
    draw = random.Random(seed)
    found: list[Fault] = []
    at_s = 0.0
    while at_s + length.between_s <= length.hold_s:
        fitting = [f for f in schedule(draw.randrange(1 << 30), 60.0) if f.lasts_s < length.between_s / 2]
        begins_s = at_s + draw.uniform(0.1, 0.3) * length.between_s
        found.append(draw.choice(fitting)._replace(at_s=begins_s))
        at_s += length.between_s
    return found


class Soak:
    """One run on a stack."""

    def __init__(self, stack: Scratch, bench: Bench, seed: int, length: Length, progress: Progressing) -> None:
        self.bench = bench
        self.began_s = 0.0
        self.faults = faults_of(seed, length)
        self.injected: list[tuple[float, float]] = []
        """When each fault began and ended."""
        self._before: Mapping[str, int] = {}
        """What the feeder had done when the holding began."""
        self._stack = stack
        self._length = length
        self._progress = progress
        self._feeder = Child(bench, "feeder", "tests.load.feed", str(WORKERS), **IMPATIENT)

    def run(self) -> Result:
        """Measure, hold, drain, judge."""
        bench = self.bench
        bench.pipeline.exporter()
        for _ in range(2):
            bench.aggregator()
        self._progress.say("measuring the maximum")
        alone = self._drain_alone()
        for _ in range(EMITTERS):
            emit(bench, self._length.hold_s + 2 * self._length.measure_s)
        with (
            Scraper(bench.pipeline.port, bench.emitters.token) as scraper,
            Sampler(bench, self._pids, self._length.sample_s) as sampler,
        ):
            maximum = Maximum(alone, self._drain_fed(alone))
            self._hold(maximum.held())
            drained_s = self._drain()
            bench.emitters.finish(DRAIN_S)
        return self._judge(maximum, sampler.samples, scraper, drained_s)

    def close(self) -> None:
        """Let go of the feeder."""
        self._feeder.close()

    def _drain_alone(self) -> float:
        """Fill a backlog, and see how fast what is left of it goes once nobody feeds any more."""
        self._fill(WORKERS)
        self._wait_drained("the first batches are committed")
        self._fill(WORKERS + self._length.backlog)
        before, began_s = self._committed(), time.monotonic()
        self._wait_drained("the backlog is drained")
        return (self._committed() - before) / (time.monotonic() - began_s)

    def _drain_fed(self, alone: float) -> float:
        """Keep a little waiting for some time, and see how fast it goes while it is replaced, once it goes evenly."""
        waiting = int(alone * WAITING_S / EVENTS) + 1
        for _ in ("to settle", "to measure"):
            before, began_s = self._committed(), time.monotonic()
            while time.monotonic() - began_s < self._length.measure_s:
                self._feeder.tell(f"fill {self._committed() // EVENTS + waiting}")
                time.sleep(LOOK_S)
            found = (self._committed() - before) / (time.monotonic() - began_s)
        self._feeder.tell("pace 0")
        self._wait_drained("what was fed is drained")
        return found

    def _fill(self, batches: int) -> None:
        """Have so many sealed in all, and wait until Redis has them."""
        self._feeder.tell(f"fill {batches}")
        self.bench.until(lambda: self._feeder.said().get("sealed") == batches, "the backlog is sealed", DRAIN_S)
        self.bench.until(lambda: self._feeder.said()["waiting"] == 0, "the backlog is sent", DRAIN_S)

    def _committed(self) -> int:
        return fetch(self.bench.dsn, FED)

    def _wait_drained(self, what: str) -> None:
        def is_drained() -> bool:
            said = self._feeder.said()
            return said["waiting"] == 0 and self._committed() >= said["sealed"] * EVENTS

        self.bench.until(is_drained, what, DRAIN_S)

    def _hold(self, rate: float) -> None:
        self._progress.say(f"holding {rate:,.0f} events/s")
        self._before = self._feeder.said()
        self._feeder.tell(f"pace {rate / EVENTS}")
        self.began_s = time.monotonic()
        nemesis = Nemesis(self.bench, self._stack.redis, self._stack.postgres, self.faults)
        with self._progress.during(self._length.hold_s):
            nemesis.run(self._length.hold_s)
        self.injected = [(self.began_s + f.at_s, self.began_s + f.at_s + f.lasts_s) for f in nemesis.injected]

    def _drain(self) -> float:
        """End the feeding; returns how long it took until nothing waited anywhere."""
        self._progress.say("draining")
        began_s = time.monotonic()
        self._feeder.tell("end")
        sealed = self._feeder.finish(DRAIN_S)["sealed"]
        self.bench.until(lambda: self._committed() >= sealed * EVENTS, "all that was fed is committed", DRAIN_S)
        self.bench.until(lambda: are_read(self.bench.redis_url), "the streams are read to their end", DRAIN_S)
        return time.monotonic() - began_s

    def _pids(self) -> dict[str, int]:
        services = {
            name: process.pid for name, process in list(self.bench.pipeline.processes.items()) if process.poll() is None
        }
        for name, server in (("redis", self._stack.redis), ("postgres", self._stack.postgres)):
            if server.process is not None and server.process.poll() is None:
                services[name] = server.pid
        return services

    def _judge(self, maximum: Maximum, samples: Sequence[Sample], scraper: Scraper, drained_s: float) -> Result:
        bench, length = self.bench, self._length
        result = Result("Soak", f"{length.hold_s / 60:g} minutes at {SHARE:.0%} of the drained maximum")
        maximum.tell(result)
        judge_fed(result, self._before, self._feeder.said(), length.hold_s)
        result.row("faults", f"{len(self.injected)}, one every {length.between_s:g} s")
        self._judge_account(result, scraper)
        result.row("drained after the end in", seconds(drained_s))
        logs = {name.rpartition("-")[2]: bench.pipeline.log(name) for name in bench.emitters.names()}
        fresh = [probe for probe in freshness(logs, scraper.seen) if probe.emitted_s >= self.began_s]
        calm = Calm(self.injected, AROUND_S)
        held = [sample for sample in samples if 0 <= sample.at_s - self.began_s <= length.hold_s]
        judge_lag(result, held, calm)
        tell_freshness(result, fresh, calm)
        roles = by_role(held, self.began_s)
        for role, points in roles.items():
            judge_memory(result, role, points, length.hold_s)
        result.picture = picture(self.began_s, self.injected, held, fresh, roles)
        return result

    def _judge_account(self, result: Result, scraper: Scraper) -> None:
        """The emitters' oracle series by series, the feeder's events in all, the audit."""
        books = self.bench.check()
        fed, sealed = self._committed(), self._feeder.said()["sealed"] * EVENTS
        lost = max(0, sealed - fed) + total(books, "lost") + total(books, "missing") + total(books, "quarantined")
        double = max(0, fed - sealed)
        result.judge("events lost, double", f"{lost}, {double}", lost == double == 0)
        result.row("batches that arrived again", f"{fetch(self.bench.dsn, DUPLICATES):,}")
        unsent = total(books, "meant") - total(books, "accepted")
        result.row("events that killed emitters meant to emit and never sent", f"{unsent:,}")
        scrapes = f"{len(scraper.seen) + scraper.refused:,}, {scraper.refused:,}; {len(scraper.highest.fell)}"
        result.judge("scrapes, of which refused; counters that fell", scrapes, not scraper.highest.fell)
        result.row("audit", "ok")


def play(home: Path, seed: int, length: Length, progress: Progressing) -> Result:
    """Run on servers of our own; logs stay in `home`."""
    with Scratch() as stack, Bench(home, stack.dsn, stack.redis.url, spool="", **SETTINGS) as bench:
        soak = Soak(stack, bench, seed, length, progress)
        try:
            return soak.run()
        finally:
            soak.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run for so many minutes."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.soak", description="Hold a load for long.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000))
    parser.add_argument("--no-docs", action="store_true", help="print only; leave docs/reliability.md as it is")
    args = parser.parse_args(arguments)
    again = f"python -m tests.load.soak --minutes {args.minutes:g} --seed {args.seed}"
    length = Length(args.minutes * 60)
    result = show(lambda home, progress: play(home, args.seed, length, progress), again)
    if not args.no_docs:
        write(result, f"seed {args.seed}")
    return 0 if result.is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
