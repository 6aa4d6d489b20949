"""A backlog of sealed batches, made with the contract alone: what producers would have left in the stream.

In: producers, series, samples a series and batch, batches. Out: entries in the streams of a Redis.
Promise: histogram samples only, distinct random floats; seqs go on from call to call, so the ledger stays whole.
"""

import secrets
import time
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from contract.batch import Body, Directory, encode_directory, seal
from contract.metric import DEFAULT_BUCKETS, Kind, MetricDef
from contract.series import series_key
from contract.streams import DEFAULT_SHARDS, FIELD, SHARD_COUNT_KEY, shard_of, stream_key
from contract.windows import WINDOW_S

METRIC: Final = MetricDef("bench_latency_seconds", Kind.HISTOGRAM, "Benchmark.", "seconds", DEFAULT_BUCKETS)
FLUSH_S: Final = 0.25
SERVICE: Final = "bench"


class Emitter:
    """One producer that never existed: seals batches as the library would."""

    def __init__(self, series: int, random: np.random.Generator, shard: int) -> None:
        self.producer_id = _id_of_shard(shard)
        self.shard = shard
        self.seq = 0
        self.accepted = 0
        self._random = random
        self._series = series
        keys = [series_key(METRIC.name, {"route": f"r{i:06d}"}) for i in range(series)]
        self._directory = encode_directory(Directory((METRIC,), keys, bytes(2 * series), 0, 0, series, 0))
        self._window = (0, 0)

    def seal(self, samples: int, at_s: float) -> bytes:
        """Return the next batch: `samples` random values of each series, flushed at `at_s`."""
        events = samples * self._series
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
            directory=self._directory,
            sample_n=np.full(self._series, samples, "<u4").tobytes(),
            samples=self._random.random(events).tobytes(),
        )
        return seal(self.producer_id, self.seq, events, body)


def _id_of_shard(shard: int) -> bytes:
    while True:
        producer_id = secrets.token_bytes(16)
        if shard_of(producer_id, DEFAULT_SHARDS) == shard:
            return producer_id


class Backlog:
    """Emitters of one benchmark, and what they have put into the streams so far."""

    def __init__(self, producers: int, series: int) -> None:
        random = np.random.default_rng(7)
        self._emitters = [Emitter(series, random, i % DEFAULT_SHARDS) for i in range(producers)]
        self.events = 0
        self.batches = 0
        self.bytes = 0

    def seal(self, batches: int, samples: int) -> list[tuple[int, bytes]]:
        """Return (shard, bytes) of `batches` batches, the producers taking turns, the last one flushed now."""
        return list(self._sealed(batches, samples))

    def _sealed(self, batches: int, samples: int) -> Iterator[tuple[int, bytes]]:
        rounds = -(-batches // len(self._emitters))
        begin_s = time.time() - rounds * FLUSH_S
        before = sum(e.accepted for e in self._emitters)
        for i in range(batches):
            emitter = self._emitters[i % len(self._emitters)]
            data = emitter.seal(samples, begin_s + i // len(self._emitters) * FLUSH_S)
            self.bytes += len(data)
            yield emitter.shard, data
        self.batches += batches
        self.events += sum(e.accepted for e in self._emitters) - before


def push(client: Any, sealed: list[tuple[int, bytes]]) -> None:
    """Append the batches to their streams, a hundred a round trip."""
    client.set(SHARD_COUNT_KEY, DEFAULT_SHARDS, nx=True)
    for at in range(0, len(sealed), 100):
        pipeline = client.pipeline(transaction=False)
        for shard, data in sealed[at : at + 100]:
            pipeline.xadd(stream_key(shard), {FIELD: data})
        pipeline.execute()
