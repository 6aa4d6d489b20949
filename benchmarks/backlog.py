"""A backlog of sealed batches, made with the contract alone: what producers would have left in the stream.

In: producers, series, samples a series and batch, batches. Out: entries in the streams of a Redis.
Promise: histogram samples only, distinct random floats; seqs go on from call to call, so the ledger stays whole.
`CounterBacklog` makes chosen counters grow, for scrapes.
"""

import secrets
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from contract.batch import Body, Directory, encode_directory, seal
from contract.metric import DEFAULT_BUCKETS, Kind, MetricDef
from contract.series import series_key
from contract.streams import DEFAULT_SHARDS, FIELD, SHARD_COUNT_KEY, shard_of, stream_key
from contract.windows import WINDOW_S

METRIC: Final = MetricDef("bench_latency_seconds", Kind.HISTOGRAM, "Benchmark.", "seconds", DEFAULT_BUCKETS)
COUNTER: Final = MetricDef("bench_requests_total", Kind.COUNTER, "Benchmark.")
PER_BATCH: Final = 20_000
HISTOGRAMS_PER_BATCH: Final = 10_000
"""More, with ten samples of each, would not fit into a batch."""
FLUSH_S: Final = 0.25
SERVICE: Final = "bench"


class Emitter:
    """One producer that never existed: seals batches as the library would."""

    def __init__(self, shard: int) -> None:
        self.producer_id = _id_of_shard(shard)
        self.shard = shard
        self.seq = 0
        self.accepted = 0
        self._window = (0, 0)

    def seal(self, events: int, at_s: float, directory: bytes, **columns: bytes) -> bytes:
        """Return the next batch, flushed at `at_s`."""
        window = int(at_s) // WINDOW_S * WINDOW_S
        self.seq += 1
        self.accepted += events
        if window != self._window[0]:
            self._window = (window, self.seq)
        body = Body(
            service=SERVICE,
            window_start_s=window,
            span_start_ms=int((at_s - FLUSH_S) * 1000),
            flushed_ms=int(at_s * 1000),
            clock_offset_us=0,
            clock_uncertainty_us=100,
            window_first_seq=self._window[1],
            accepted=self.accepted,
            dropped={},
            fin=False,
            run_id=None,
            directory=directory,
            **columns,
        )
        return seal(self.producer_id, self.seq, events, body)


def _id_of_shard(shard: int) -> bytes:
    while True:
        producer_id = secrets.token_bytes(16)
        if shard_of(producer_id, DEFAULT_SHARDS) == shard:
            return producer_id


class Backlog:
    """Histograms of several emitters, and what they have put into the streams so far.

    Each emitter's batches go round the series, at most HISTOGRAMS_PER_BATCH in one.
    """

    def __init__(self, producers: int, series: int) -> None:
        self._random = np.random.default_rng(7)
        self._emitters = [Emitter(i % DEFAULT_SHARDS) for i in range(producers)]
        self._runs = [
            _directory(range(at, min(at + HISTOGRAMS_PER_BATCH, series)))
            for at in range(0, series, HISTOGRAMS_PER_BATCH)
        ]

    @property
    def events(self) -> int:
        """Events sealed so far."""
        return sum(emitter.accepted for emitter in self._emitters)

    @property
    def sweep(self) -> int:
        """Batches after which every emitter has named every series."""
        return len(self._emitters) * len(self._runs)

    def seal(self, batches: int, samples: int, *, step_s: float = FLUSH_S) -> list[tuple[int, bytes]]:
        """Return (shard, bytes) of `batches` batches `step_s` apart, the producers taking turns, the last one now."""
        rounds = -(-batches // len(self._emitters))
        begin_s = time.time() - rounds * step_s
        return [
            self._seal(self._emitters[i % len(self._emitters)], begin_s + i // len(self._emitters) * step_s, samples)
            for i in range(batches)
        ]

    def _seal(self, emitter: Emitter, at_s: float, samples: int) -> tuple[int, bytes]:
        series, directory = self._runs[emitter.seq % len(self._runs)]
        events = samples * series
        data = emitter.seal(
            events,
            at_s,
            directory,
            sample_n=np.full(series, samples, "<u4").tobytes(),
            samples=self._random.random(events).tobytes(),
        )
        return emitter.shard, data


def _directory(routes: range) -> tuple[int, bytes]:
    """Return how many histograms there are, and the directory that names them."""
    keys = [series_key(METRIC.name, {"route": f"r{i:06d}"}) for i in routes]
    return len(keys), encode_directory(Directory((METRIC,), keys, bytes(2 * len(keys)), 0, 0, len(keys), 0))


class CounterBacklog:
    """One emitter with very many counters."""

    def __init__(self, series: int) -> None:
        self._emitter = Emitter(0)
        self._keys = [series_key(COUNTER.name, {"route": f"r{i:06d}"}) for i in range(series)]

    @property
    def events(self) -> int:
        """Events sealed so far."""
        return self._emitter.accepted

    def seal(self, chosen: Sequence[int]) -> list[tuple[int, bytes]]:
        """Return (shard, bytes) of the batches in which each chosen counter grows by one."""
        return [self._seal(chosen[at : at + PER_BATCH]) for at in range(0, len(chosen), PER_BATCH)]

    def _seal(self, chosen: Sequence[int]) -> tuple[int, bytes]:
        size = len(chosen)
        directory = Directory((COUNTER,), [self._keys[i] for i in chosen], bytes(2 * size), size, 0, 0, 0)
        data = self._emitter.seal(
            size,
            time.time(),
            encode_directory(directory),
            counter_n=np.ones(size, "<u8").tobytes(),
            counter_sum=np.ones(size, "<f8").tobytes(),
        )
        return self._emitter.shard, data


def push(client: Any, sealed: list[tuple[int, bytes]]) -> None:
    """Append the batches to their streams, a hundred a round trip."""
    client.set(SHARD_COUNT_KEY, DEFAULT_SHARDS, nx=True)
    for at in range(0, len(sealed), 100):
        pipeline = client.pipeline(transaction=False)
        for shard, data in sealed[at : at + 100]:
            pipeline.xadd(stream_key(shard), {FIELD: data})
        pipeline.execute()
