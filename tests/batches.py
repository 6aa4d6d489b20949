"""Batches for tests, sealed with the contract alone, and their way into PostgreSQL without Redis.

In: values by series key. Out: entry bytes; committed rows. Promise: what is committed is what was given.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from aggregator.decode import BlockCache, Booked, Decoded, Entry, decode
from aggregator.fold import fold
from aggregator.identities import Identities
from contract.batch import Body, Directory, encode_directory, read_envelope, seal
from contract.metric import DEFAULT_BUCKETS, Kind, MetricDef
from contract.series import parse_key
from database.connect import Pool
from database.ledger import apply, is_stale

Counters = Mapping[bytes, tuple[int, float]]
Values = Mapping[bytes, Sequence[float]]


def make_batch(
    producer_id: bytes,
    seq: int,
    *,
    counters: Counters | None = None,
    gauges: Values | None = None,
    histograms: Values | None = None,
    window_s: int = 1_700_000_000,
    accepted: int | None = None,
    dropped: Mapping[str, int] | None = None,
    bounds: tuple[float, ...] = DEFAULT_BUCKETS,
    service: str = "test",
    fin: bool = False,
    run_id: str | None = None,
    flushed_ms: int | None = None,
) -> bytes:
    """Seal one batch. `accepted` is cumulative; by default this batch is the producer's first."""
    counters, gauges, histograms, dropped = counters or {}, gauges or {}, histograms or {}, dropped or {}
    events = sum(n for n, _ in counters.values()) + sum(len(v) for v in (*gauges.values(), *histograms.values()))
    body = Body(
        service=service,
        window_start_s=window_s,
        span_start_ms=window_s * 1000,
        flushed_ms=window_s * 1000 + seq % 10_000 if flushed_ms is None else flushed_ms,
        clock_offset_us=0,
        clock_uncertainty_us=0,
        window_first_seq=1,
        accepted=events + sum(dropped.values()) if accepted is None else accepted,
        dropped=dict(dropped),
        fin=fin,
        run_id=run_id,
        directory=encode_directory(_directory(counters, gauges, histograms, bounds)),
        counter_n=_pack("Q", [n for n, _ in counters.values()]),
        counter_sum=_pack("d", [total for _, total in counters.values()]),
        gauge_n=_pack("Q", [len(v) for v in gauges.values()]),
        gauge_last=_pack("d", [v[-1] for v in gauges.values()]),
        gauge_sum=_pack("d", [sum(v) for v in gauges.values()]),
        gauge_min=_pack("d", [min(v) for v in gauges.values()]),
        gauge_max=_pack("d", [max(v) for v in gauges.values()]),
        sample_n=_pack("I", [len(v) for v in histograms.values()]),
        samples=_pack("d", [x for v in histograms.values() for x in v]),
    )
    return seal(producer_id, seq, events, body)


def _pack(kind: str, values: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(values)}{kind}", *values)


def _directory(counters: Counters, gauges: Values, histograms: Values, bounds: tuple[float, ...]) -> Directory:
    kinds = [Kind.COUNTER] * len(counters) + [Kind.GAUGE] * len(gauges) + [Kind.HISTOGRAM] * len(histograms)
    keys = [*counters, *gauges, *histograms]
    metrics: dict[MetricDef, int] = {}
    of: list[int] = []
    for key, kind in zip(keys, kinds, strict=True):
        definition = MetricDef(parse_key(key)[0], kind, bounds=bounds if kind is Kind.HISTOGRAM else ())
        of.append(metrics.setdefault(definition, len(metrics)))
    runs = (len(counters), len(gauges), len(histograms), 0)
    return Directory(tuple(metrics), keys, struct.pack(f"={len(of)}H", *of), *runs)


class Store:
    """Commits batches as the aggregator does, on one shard, without a stream."""

    def __init__(self, pool: Pool, shard: int = 0) -> None:
        self.pool = pool
        self.shard = shard
        self.identities = Identities(pool, 1_000_000)

    async def commit(self, *batches: bytes) -> None:
        """Fold and apply batches in one transaction; a batch that was applied before fails the test."""
        try:
            await self._commit(*batches)
        except asyncpg.PostgresError as error:
            if not is_stale(error):
                raise
            await self.identities.forget()
            await self._commit(*batches)

    async def _commit(self, *batches: bytes) -> None:
        decoded = [self._decode(data) for data in batches]
        await self.identities.refresh()
        known = await self.identities.producer_numbers(decoded, 0)
        generation = await self.identities.resolve(decoded)
        booked = [Booked(d, known[d.envelope.producer_id].producer_no, d.body.window_start_s) for d in decoded]
        already: Any = await apply(self.pool, fold(booked, self.shard), generation, "test")
        assert not already, f"applied before: {already}"

    def _decode(self, data: bytes) -> Decoded:
        blocks: BlockCache = self.identities.blocks
        return decode(Entry(self.shard, "0-0", data), read_envelope(data), blocks)
