"""Drain: how fast one aggregator takes a backlog to committed rows, beside the consumer that everybody writes first.

In: a scratch stack. Out: a Section. Promise: the clock runs from the moment the aggregator may read until the last
batch is committed, with fsync and the append-only file as shipped; afterwards `audit` must be ok.
"""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field

import psutil

from benchmarks.backlog import Backlog, push
from benchmarks.measure import OURS, Section
from benchmarks.naive_consumer import GROUP, STREAM, encode
from benchmarks.scratch import Scratch, cpu_s, wait_committed
from contract.streams import DEFAULT_SHARDS, stream_key

PRODUCERS = 5
DEADLINE_S = 120.0


@dataclass(frozen=True)
class Shape:
    """One row of the goals: how many series, how many samples of each a batch, and how many batches a round."""

    title: str
    series: int
    samples: int
    batches: int
    goal: float
    naive_events: int = 100_000


SHAPES = (
    Shape("1 k series x 10 samples", 1_000, 10, 1_000, 10e6),
    Shape("10 k series x 10 samples", 10_000, 10, 100, 6e6),
    Shape("10 k series x 2 samples", 10_000, 2, 500, 4e6),
)


@dataclass
class Found:
    """What the rounds of one shape measured."""

    events: list[float] = field(default_factory=list[float])
    batches: list[float] = field(default_factory=list[float])
    aggregator_cpu: list[float] = field(default_factory=list[float])
    postgres_cpu: list[float] = field(default_factory=list[float])
    redis_cpu: list[float] = field(default_factory=list[float])
    naive: list[float] = field(default_factory=list[float])


def run(full: bool) -> Section:
    """Drain every shape, ours and the peer's in turns."""
    section = Section("drain", "Drain of a backlog to committed in PostgreSQL, one aggregator", less_is_better=False)
    for shape in SHAPES:
        found = _drain_shape(shape, rounds=7 if full else 3, scale=5 if full else 1)
        section.add(shape.title, OURS, "events/s", found.events, at_least=shape.goal)
        section.add(shape.title, "one msgpack event an entry", "events/s", found.naive)
        section.notes.append(
            f"{shape.title}: {_median(found.batches):,.0f} batches/s; processor time per million events: aggregator "
            f"{_median(found.aggregator_cpu):.3f} s, PostgreSQL {_median(found.postgres_cpu):.3f} s, "
            f"Redis {_median(found.redis_cpu):.3f} s."
        )
    section.notes.append(
        f"{PRODUCERS} producers, histogram samples only, so samples/s = events/s; batches 250 ms apart; the series "
        "are known from a first round that is not counted. Redis and PostgreSQL share the cores with the aggregator."
    )
    return section


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _drain_shape(shape: Shape, rounds: int, scale: int) -> Found:
    found = Found()
    with Scratch() as stack:
        aggregator = stack.aggregator()
        backlog = Backlog(PRODUCERS, shape.series)
        drain_round(stack, aggregator, backlog, shape, PRODUCERS, None)
        for _ in range(rounds):
            drain_round(stack, aggregator, backlog, shape, shape.batches * scale, found)
            found.naive.append(_naive_round(stack, shape))
        require_ok_audit(stack)
    return found


def drain_round(
    stack: Scratch,
    aggregator: "subprocess.Popen[bytes]",
    backlog: Backlog,
    shape: Shape,
    batches: int,
    found: Found | None,
    others: int = 0,
) -> None:
    """Drain `batches` and book what it took; `others` events were committed before, of other backlogs."""
    before = backlog.events
    sealed = backlog.seal(batches, shape.samples)
    aggregator.send_signal(signal.SIGSTOP)
    try:
        push(stack.client(), sealed)
        used = processor_s(stack, aggregator)
        began_s = time.perf_counter()
    finally:
        aggregator.send_signal(signal.SIGCONT)
    wait_committed(stack.dsn, others + backlog.events, DEADLINE_S)
    took_s = time.perf_counter() - began_s
    if found is None:
        return
    events = backlog.events - before
    found.events.append(events / took_s)
    found.batches.append(batches / took_s)
    spent = [after - start for after, start in zip(processor_s(stack, aggregator), used, strict=True)]
    for into, seconds in zip((found.aggregator_cpu, found.postgres_cpu, found.redis_cpu), spent, strict=True):
        into.append(seconds / events * 1e6)
    _trim(stack)


def _trim(stack: Scratch) -> None:
    """Drop committed entries: the replay window would keep every round in memory and press on the byte cap."""
    client = stack.client()
    for shard in range(DEFAULT_SHARDS):
        group = client.xinfo_groups(stream_key(shard))[0]
        if group["pending"] == 0:
            client.xtrim(stream_key(shard), minid=group["last-delivered-id"], approximate=False)


def processor_s(stack: Scratch, aggregator: "subprocess.Popen[bytes]") -> tuple[float, float, float]:
    """Return the processor seconds that aggregator, PostgreSQL with its backends, and Redis have used."""
    server = psutil.Process(stack.postgres.pid)
    postgres = sum(server.cpu_times()[:4])  # with those of backends that have ended
    for process in server.children(recursive=True):
        try:
            postgres += sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return cpu_s(aggregator.pid), postgres, cpu_s(stack.redis.pid)


def _naive_round(stack: Scratch, shape: Shape) -> float:
    """Return the events per second of the peer, begun when it is connected and warm."""
    client = stack.client()
    client.delete(STREAM)
    client.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    draw, now_ms = random.Random(7).random, int(time.time() * 1000)
    events = shape.naive_events
    for at in range(0, events, 1000):
        pipeline = client.pipeline(transaction=False)
        for i in range(at, min(at + 1000, events)):
            pipeline.xadd(STREAM, {b"b": encode(f"r{i % shape.series:06d}", draw(), now_ms)})
        pipeline.execute()
    command = [sys.executable, "-m", "benchmarks.naive_consumer", str(events)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=stack.environ, text=True) as peer:
        assert peer.stdin is not None and peer.stdout is not None
        assert peer.stdout.readline() == "ready\n"
        began_s = time.perf_counter()
        peer.stdin.write("go\n")
        peer.stdin.flush()
        assert peer.stdout.readline() == "done\n"
        took_s = time.perf_counter() - began_s
    client.delete(STREAM)
    return events / took_s


def require_ok_audit(stack: Scratch) -> None:
    """Run `streamgauge audit --json`; a benchmark whose data is not whole counts for nothing."""
    command = [sys.executable, "-m", "streamgauge", "audit", "--json"]
    done = subprocess.run(
        command, env=stack.environ, capture_output=True, text=True, timeout=120, cwd=os.sep, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"audit is not ok after the benchmark: {done.stdout}{done.stderr}")
