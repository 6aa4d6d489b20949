"""Fleet: what workers that emit a little each cost the parts behind them, for docs/scaling.md.

`python -m benchmarks.fleet WORKERS SERVICES SECONDS [--flush S] [--rollups]`. In: a scratch stack, batches as that
many workers would seal them, at their pace. Out: processor time, bytes and rows per second of each part, printed.
Promise: every batch names other series of its service, so no key block is recognised: the dearest case.
"""

import argparse
import asyncio
import subprocess
import time
from typing import Any, Final, NamedTuple

import asyncpg
import numpy as np

from benchmarks.backlog import COUNTER, METRIC, Emitter, push
from benchmarks.drain import processor_s
from benchmarks.scratch import Scratch, wait_committed, wait_for
from contract.batch import Directory, encode_directory
from contract.series import series_key
from contract.streams import DEFAULT_SHARDS, stream_key

SERIES: Final = 500
"""Of a service: half of them counters, half histograms of 14 buckets."""
PER_S: Final = 40
"""Counters, and as many histograms, that a worker touches in a second, a series counted again each time."""
SAMPLES: Final = 4
COUNTS: Final = """SELECT sum(n_tup_ins) FILTER (WHERE relname LIKE 'parts%')::float8 AS parts,
    sum(n_tup_upd) FILTER (WHERE relname = 'totals')::float8 AS totals,
    sum(n_tup_hot_upd) FILTER (WHERE relname = 'totals')::float8 AS hot,
    (SELECT count(*) FROM streamgauge.commits)::float8 AS commits,
    pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 AS wal_bytes
    FROM pg_stat_user_tables WHERE schemaname = 'streamgauge'"""
SIZE: Final = """SELECT count(*)::float8 AS rows, (SELECT sum(pg_total_relation_size(inhrelid))
    FROM pg_inherits WHERE inhparent = 'streamgauge.rollup_10s'::regclass)::float8 AS bytes
    FROM streamgauge.rollup_10s"""


class Used(NamedTuple):
    """What was used up to a moment."""

    at_s: float
    aggregator_s: float
    postgres_s: float
    redis_s: float
    rows: dict[str, float]


class Fleet:
    """Workers of some services."""

    def __init__(self, workers: int, services: int, flush_s: float) -> None:
        half = SERIES // 2
        self.touched = round(half * (1 - (1 - PER_S / 4 / half) ** (flush_s * 4)))
        self._random = np.random.default_rng(7)
        self._emitters = [Emitter(i % DEFAULT_SHARDS) for i in range(workers)]
        self._keys = [
            [
                [series_key(metric.name, {"service": f"s{s}", "route": f"r{i:03d}"}) for i in range(half)]
                for metric in (COUNTER, METRIC)
            ]
            for s in range(services)
        ]

    @property
    def events(self) -> int:
        """Events sealed so far."""
        return sum(emitter.accepted for emitter in self._emitters)

    def seal(self, first: int, end: int, *, everything: bool = False) -> list[tuple[int, bytes]]:
        """Return a batch of each worker in a range; `everything` touches all series of its service."""
        return [self._seal(i, SERIES // 2 if everything else self.touched) for i in range(first, end)]

    def _seal(self, i: int, touched: int) -> tuple[int, bytes]:
        emitter, keys = self._emitters[i], self._keys[i % len(self._keys)]
        chosen = self._random.permutation(len(keys[0]))[:touched]
        directory = Directory(
            (COUNTER, METRIC),
            [run[j] for run in keys for j in chosen],
            np.repeat(np.arange(2, dtype="<u2"), touched).tobytes(),
            touched,
            0,
            touched,
            0,
        )
        data = emitter.seal(
            touched * (1 + SAMPLES),
            time.time(),
            encode_directory(directory),
            counter_n=np.ones(touched, "<u8").tobytes(),
            counter_sum=np.ones(touched, "<f8").tobytes(),
            sample_n=np.full(touched, SAMPLES, "<u4").tobytes(),
            samples=self._random.random(touched * SAMPLES).tobytes(),
        )
        return emitter.shard, data


def main() -> None:
    """Measure one fleet."""
    parser = argparse.ArgumentParser()
    for name in ("workers", "services", "seconds"):
        parser.add_argument(name, type=int)
    parser.add_argument("--flush", type=float, default=0.25, help="seconds between a worker's batches")
    parser.add_argument("--rollups", action="store_true", help="wait for compaction and tell bytes per row")
    args = parser.parse_args()
    with Scratch() as stack:
        aggregator = stack.aggregator()
        fleet = Fleet(args.workers, args.services, args.flush)
        for i in range(0, args.workers, 500):
            push(stack.client(), fleet.seal(i, min(i + 500, args.workers), everything=i < args.services))
        wait_committed(stack.dsn, fleet.events)
        _run(stack, aggregator, fleet, args.workers, args.seconds, args.flush)
        if args.rollups:
            _print_rollups(stack)


def _run(
    stack: Scratch, aggregator: "subprocess.Popen[bytes]", fleet: Fleet, workers: int, seconds: int, flush_s: float
) -> None:
    before, held, sent = _used(stack, aggregator), _stream_bytes(stack), fleet.events
    ticks, late_s = int(seconds / flush_s), 0.0
    slices = 5
    for tick in range(ticks * slices):
        due_s = before.at_s + tick * flush_s / slices
        late_s = max(late_s, time.monotonic() - due_s)
        time.sleep(max(0.0, due_s - time.monotonic()))
        at = tick % slices
        push(stack.client(), fleet.seal(at * workers // slices, (at + 1) * workers // slices))
    sent_s = time.monotonic()
    wait_committed(stack.dsn, fleet.events)
    after = _used(stack, aggregator)
    took_s, batches = after.at_s - before.at_s, ticks * workers
    print(f"{workers} workers: {batches / took_s:,.0f} batches/s, {(fleet.events - sent) / took_s:,.0f} events/s")
    print(f"  the generator was at most {late_s:.2f} s late; all committed {after.at_s - sent_s:.2f} s after the last")
    for part in ("aggregator_s", "postgres_s", "redis_s"):
        used_s = getattr(after, part) - getattr(before, part)
        print(f"  {part[:-2]}: {used_s / took_s:.3f} cores, {used_s / batches * 1e6:.1f} us a batch")
    print(f"  stream: {(_stream_bytes(stack) - held) / batches:.0f} bytes a batch")
    per_s = {name: (after.rows[name] - before.rows[name]) / took_s for name in after.rows}
    print("  PostgreSQL per second: " + ", ".join(f"{name} {value:,.0f}" for name, value in per_s.items()))


def _used(stack: Scratch, aggregator: "subprocess.Popen[bytes]") -> Used:
    time.sleep(1.5)  # statistics of a session arrive once a second
    rows = {name: value or 0.0 for name, value in _fetch(stack, COUNTS).items()}
    return Used(time.monotonic(), *processor_s(stack, aggregator), rows)


def _stream_bytes(stack: Scratch) -> int:
    client = stack.client()
    return sum(client.memory_usage(stream_key(shard)) or 0 for shard in range(DEFAULT_SHARDS))


def _print_rollups(stack: Scratch) -> None:
    wait_for(lambda: _fetch(stack, SIZE)["rows"] > 0, 180, "compaction", 1.0)
    size = _fetch(stack, SIZE)
    print(f"  rollup_10s: {size['rows']:,.0f} rows, {size['bytes'] / size['rows']:.0f} bytes a row with its index")


def _fetch(stack: Scratch, query: str) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        connection = await asyncpg.connect(stack.dsn, timeout=10)
        try:
            return dict(await connection.fetchrow(query) or {})
        finally:
            await connection.close(timeout=10)

    return asyncio.run(ask())


if __name__ == "__main__":
    main()
