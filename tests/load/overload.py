"""Overload: three times what can be drained. Producers merge, the API does not notice, and it is over when it is over.

Run `python -m tests.load.overload --minutes M`. In: a database that is far away (a delay on its link), so that the
pipeline is at its limit while the cores are not. Out: a table and a picture; exit code 1 when a promise was broken.
Promise: the maximum is measured first, in the same run, with the same shape, unmerged: by a backlog that was there
before the aggregator; what is emitted is committed or counted as dropped, to the event.
"""

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from redis.exceptions import RedisError

from benchmarks.scratch import Scratch
from contract.batch import read_body, read_envelope
from contract.streams import DEFAULT_SHARDS, FIELD, stream_key
from tests.background import Background
from tests.faults.bench import Bench
from tests.load.api import Apis
from tests.load.child import Child
from tests.load.judging import by_role
from tests.load.report import Picture, Progressing, Result, mib, seconds, show, write
from tests.load.sampling import MIB, Sample, Sampler
from tests.loading import assert_audit, fetch

TIMES: Final = 3.0
RATE: Final = 40_000.0
"""Events a second of one application."""
PROBING: Final = 4
"""Applications that make the backlog of the measurement."""
SERVICE: Final = "overload"
DELAY_S: Final = 0.03
"""Of each message between aggregator and database, either way."""
CAP_BYTES: Final = 1 << 20
"""Of one stream: beyond it producers are told to hold back."""
DRAIN_S: Final = 240.0
SETTINGS: Final = {
    "STREAMGAUGE_COMMIT_MAX_BATCHES": "2",
    "STREAMGAUGE_STREAM_MAX_BYTES": str(CAP_BYTES),
    "STREAMGAUGE_TRIM_INTERVAL_S": "1",
    "STREAMGAUGE_RECLAIM_IDLE_S": "30",
    "STREAMGAUGE_LEASE_S": "10",
}
"""Two batches a commit: with a far database that makes a maximum which a few applications exceed."""
FLUSH_S: Final = "0.1"
TELLING_S: Final = 60.0
"""The API's p99 of a shorter run is told, not judged."""
GROWN_MIB: Final = 24.0
SAMPLE_BYTES: Final = 9
"""Of an event in a stream, unmerged, its part of the entry included."""
LATE_S: Final = 10.0
"""Between crossing the cap and the last producer that holds back: a look each second, on cores that are shared."""
COMMITTED: Final = f"SELECT coalesce(sum(committed_events), 0)::bigint FROM producers WHERE service = '{SERVICE}'"
DROPPED: Final = f"""
SELECT coalesce(sum(value::bigint), 0)::bigint
  FROM producers, jsonb_each_text(dropped) WHERE service = '{SERVICE}'
"""


class Length(NamedTuple):
    """How long the parts of a run are, seconds."""

    hold_s: float
    backlog: int = 1_000_000
    """Events of the measurement."""
    window_s: int = 5
    """Of one run of `wrk`."""
    around_s: float = 30.0
    """How long the API is loaded before, and after."""
    sample_s: float = 1.0


class Watcher(Background):
    """Reads the streams as they grow and counts batches, and those with merged samples, in a thread."""

    def __init__(self, bench: Bench) -> None:
        self.batches = self.merged = 0
        self.longest_s = 0.0
        """The longest span of a merged batch."""
        self._bench = bench
        super().__init__("watch")

    def _run(self) -> None:
        client: Any = self._bench.client()
        after: dict[str, bytes] = {stream_key(shard): b"0" for shard in range(DEFAULT_SHARDS)}
        while not self._stop.wait(0.1):
            try:
                found = client.xread(after, count=500)
            except RedisError:
                continue
            for key, entries in found:
                after[key.decode()] = entries[-1][0]
                for _, fields in entries:
                    self._take(fields[FIELD])
        client.close()

    def _take(self, data: bytes) -> None:
        body = read_body(read_envelope(data), data)
        self.batches += 1
        if body.merged_n:
            self.merged += 1
            self.longest_s = max(self.longest_s, (body.flushed_ms - body.span_start_ms) / 1000)


class Overload:
    """One run on a stack."""

    def __init__(self, bench: Bench, length: Length, progress: Progressing) -> None:
        self.bench = bench
        self.maximum = 0.0
        self._length = length
        self._progress = progress
        self._apis = Apis(bench)
        self._applications: list[Child] = []
        self._began_s = 0.0
        self._rate_held = 0.0
        """Events a second that were committed while too many were emitted."""

    def run(self) -> Result:
        """Measure, overload, recover, judge."""
        length = self._length
        self._apis.start()
        self.bench.postgres_link.delay(DELAY_S)
        with Watcher(self.bench) as watcher, Sampler(self.bench, self._pids, length.sample_s) as sampler:
            self._measure()
            self._apis.load("before", length.around_s, length.window_s)
            self._overload(watcher)
            recovered_s = self._recover()
            self._apis.load("after", length.around_s, length.window_s)
            self._end()
        assert_audit(self.bench.pipeline)
        return self._judge(watcher, sampler.samples, recovered_s)

    def close(self) -> None:
        """Let go of the applications."""
        for application in self._applications:
            application.close()

    def _measure(self) -> None:
        """Let a backlog wait for the aggregator, as it was flushed, and see how fast it goes."""
        self._progress.say("measuring the maximum")
        for _ in range(PROBING):
            self._add()
        self._pace(RATE)
        self.bench.until(lambda: self._said("emitted") >= self._length.backlog, "a backlog is emitted", DRAIN_S)
        self._silence()
        self.bench.aggregator()
        self.bench.until(lambda: self._committed() > 0.1 * self._length.backlog, "it is being drained", DRAIN_S)
        before, began_s = self._committed(), time.monotonic()
        self.bench.until(lambda: self._committed() >= self._said("emitted"), "the backlog is drained", DRAIN_S)
        self.maximum = (self._committed() - before) / (time.monotonic() - began_s)

    def _overload(self, watcher: Watcher) -> None:
        """Emit three times the maximum, while the API is loaded; at least until producers merge."""
        wanted = TIMES * self.maximum
        while len(self._applications) * RATE < wanted:
            self._add()
        self._progress.say(f"offering {wanted:,.0f} events/s, {TIMES:g} times {self.maximum:,.0f}")
        self._began_s, before = time.monotonic(), self._committed()
        self._pace(math.ceil(wanted / len(self._applications)))
        with self._progress.during(self._length.hold_s):
            self._apis.load("during", self._length.hold_s, self._length.window_s)
        self.bench.until(lambda: watcher.merged > 0, "producers merge", DRAIN_S)
        self._rate_held = (self._committed() - before) / (time.monotonic() - self._began_s)

    def _recover(self) -> float:
        """Emit no more; returns how long it took until all that was emitted was committed, or dropped."""
        self._progress.say("recovering")
        began_s = time.monotonic()
        self._silence()

        def is_settled() -> bool:
            return self._committed() + fetch(self.bench.dsn, DROPPED) >= self._said("emitted")

        self.bench.until(is_settled, "everything is committed or dropped", DRAIN_S)
        return time.monotonic() - began_s

    def _end(self) -> None:
        self._apis.stop()
        for application in self._applications:
            application.tell("end")
        for application in self._applications:
            application.finish(DRAIN_S)

    def _add(self) -> None:
        env = {"STREAMGAUGE_SERVICE": SERVICE, "STREAMGAUGE_FLUSH_INTERVAL_S": FLUSH_S}
        name = f"application-{len(self._applications)}"
        self._applications.append(Child(self.bench, name, "tests.load.emit", **env))

    def _pace(self, rate: float) -> None:
        for application in self._applications:
            application.tell(str(rate))

    def _silence(self) -> None:
        """Emit no more; returns once the applications have said how much they emitted."""
        self._pace(0.0)
        self.bench.until(lambda: self._said("rate") == 0, "the applications are silent")

    def _said(self, what: str) -> int:
        return sum(application.said().get(what, 0) for application in self._applications)

    def _committed(self) -> int:
        return fetch(self.bench.dsn, COMMITTED)

    def _pids(self) -> dict[str, int]:
        return {n: process.pid for n, process in list(self.bench.pipeline.processes.items()) if process.poll() is None}

    def _judge(self, watcher: Watcher, samples: Sequence[Sample], recovered_s: float) -> Result:
        hold_s, count = self._length.hold_s, len(self._applications)
        result = Result("Overload", f"{hold_s / 60:g} minutes at {TIMES:g} times the drained maximum")
        result.row("drained maximum, of a database that is far away", f"{self.maximum:,.0f} events/s, unmerged")
        result.row("offered", f"{TIMES * self.maximum:,.0f} events/s by {count} applications")
        result.row("committed meanwhile", f"{self._rate_held:,.0f} events/s")
        emitted, dropped, committed = self._said("emitted"), self._said("dropped"), self._committed()
        is_whole = committed + dropped == emitted and fetch(self.bench.dsn, DROPPED) == dropped
        result.judge("events emitted, committed, dropped", f"{emitted:,}, {committed:,}, {dropped:,}", is_whole)
        merged = f"{watcher.batches:,}, of which {watcher.merged:,} merged, over {seconds(watcher.longest_s)} at most"
        result.judge("batches", merged, watcher.merged > 0)
        held = [sample for sample in samples if sample.at_s >= self._began_s]
        self._judge_bounds(result, held)
        self._apis.judge(result, is_long=hold_s >= TELLING_S)
        result.row("recovered, unaided, in", seconds(recovered_s))
        result.row("audit", "ok")
        result.picture = self._picture(held)
        return result

    def _judge_bounds(self, result: Result, held: Sequence[Sample]) -> None:
        """Neither the streams nor who emits grow beyond their bounds; entries wait no longer for it."""
        cap_mib = DEFAULT_SHARDS * CAP_BYTES / MIB
        late_mib = TIMES * self.maximum * SAMPLE_BYTES * LATE_S / MIB
        size = max((sample.stream_mib or 0.0 for sample in held), default=0.0)
        said = f"{size:.1f} MiB, {cap_mib:.1f} MiB, {late_mib:.1f} MiB"
        what = f"streams at most; their cap; what {LATE_S:g} s bring until producers hold back"
        result.judge(what, said, size <= cap_mib + late_mib)
        result.row("oldest wait at most", seconds(max((sample.oldest_s or 0.0 for sample in held), default=0.0)))
        for role, points in by_role(held, self._began_s).items():
            if role in ("application", "api"):
                first, most = points[0][1], max(v for _, v in points)
                said = f"{mib(first)}, {mib(most)}"
                result.judge(f"memory of an {role}: at first, at most", said, most <= first + GROWN_MIB)

    def _picture(self, samples: Sequence[Sample]) -> Picture:
        begin = self._began_s
        picture = Picture("Overload: begins at the first red line, ends at the second", [0.0, self._length.hold_s / 60])
        picture.panel("ms", self._apis.points(begin))
        sizes = [((s.at_s - begin) / 60, s.stream_mib) for s in samples if s.stream_mib is not None]
        memory = {role: [(t / 60, v) for t, v in points] for role, points in by_role(samples, begin).items()}
        picture.panel("MiB", {"streams": sizes, **memory})
        waits = [((s.at_s - begin) / 60, max(s.oldest_s or 0.0, 0.001)) for s in samples if s.behind is not None]
        picture.panel("s", {"oldest wait": waits})
        return picture


def play(home: Path, length: Length, progress: Progressing) -> Result:
    """Run on servers of our own; logs stay in `home`."""
    with Scratch() as stack, Bench(home, stack.dsn, stack.redis.url, spool="", **SETTINGS) as bench:
        run = Overload(bench, length, progress)
        try:
            return run.run()
        finally:
            run.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run for so many minutes."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.overload", description="Offer three times too much.")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--no-docs", action="store_true", help="print only; leave docs/reliability.md as it is")
    args = parser.parse_args(arguments)
    again = f"python -m tests.load.overload --minutes {args.minutes:g}"
    result = show(lambda home, progress: play(home, Length(args.minutes * 60), progress), again)
    if not args.no_docs:
        write(result, "the database is far away")
    return 0 if result.is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
