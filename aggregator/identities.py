"""Identities: the numbers of series, metrics and producers, looked up once and cached.

In: decoded batches. Out: their blocks resolved to series and layout numbers; producers' ledger numbers.
Promise: a number enters a cache only after the transaction that made it was committed; all caches are dropped
when the database says that their generation is over, and never while numbers are being looked up: those would stay.
"""

import asyncio
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aggregator.decode import Block, BlockCache, Decoded
from contract.batch import BatchError
from contract.metric import Kind, MetricDef
from contract.reasons import Quarantined
from contract.series import OVERFLOW_LABELS, series_key
from database.admission import Metric, Producer, admit, find_producers, register_producers
from database.connect import Pool
from database.ledger import read_generation
from database.sketches import Ints

Flags = NDArray[np.bool_]

_SURPLUS: Final = 1 << 62
_METRIC_SHIFT: Final = 32
_SERIES_MASK: Final = (1 << 32) - 1


class Identities:
    """The caches of one schema. Not shared between event loops."""

    def __init__(self, pool: Pool, series_budget: int) -> None:
        self.pool = pool
        self.blocks = BlockCache()
        self.generation = 0
        """0: nothing was read yet."""
        self.looking_up = asyncio.Lock()
        """Held from `refresh` on: a shard prepares its next commit while this one finds its numbers stale."""
        self._series_budget = series_budget
        self._keys: dict[bytes, int] = {}
        self._metrics: dict[MetricDef, Metric] = {}
        self._producers: dict[bytes, Producer] = {}

    async def forget(self) -> None:
        """Drop every cached number; the next use looks them up again."""
        async with self.looking_up:
            self.generation = 0
            self._keys.clear()
            self._metrics.clear()
            self._producers.clear()
            self.blocks.clear()

    async def refresh(self) -> None:
        """Read the generation first, so that numbers looked up afterwards are at least as new."""
        if not self.generation:
            self.generation = await read_generation(self.pool)

    async def producer_numbers(self, batches: Sequence[Decoded], oldest_ms: int) -> dict[bytes, Producer]:
        """Return the ledger row of every producer in `batches`, making those that are new.

        A producer without a row, of which every batch was sealed before `oldest_ms`, is left out: its row may have
        been retired, so that nobody can tell which of its batches were applied.
        """
        wanted: dict[bytes, tuple[str, int]] = {}
        old: set[bytes] = set()
        for d in batches:
            producer_id = d.envelope.producer_id
            if producer_id in self._producers:
                continue
            if d.body.flushed_ms < oldest_ms:
                old.add(producer_id)
            else:
                wanted[producer_id] = (d.body.service, d.entry.shard)
        if old := old - wanted.keys():
            self._producers |= await find_producers(self.pool, old)
        if wanted:
            self._producers |= await register_producers(self.pool, wanted)
        ids = {d.envelope.producer_id for d in batches}
        return {i: self._producers[i] for i in ids if i in self._producers}

    async def producer(self, producer_id: bytes, batch: Decoded | None, shard: int) -> Producer:
        """Return the ledger row of a producer whose batch may not be decodable."""
        async with self.looking_up:
            if producer_id not in self._producers:
                await self.refresh()
                service = batch.body.service if batch is not None else "unknown"
                self._producers |= await register_producers(self.pool, {producer_id: (service, shard)})
            return self._producers[producer_id]

    async def resolve(self, batches: Sequence[Decoded]) -> int:
        """Give every block its series and layout numbers, admitting what is new; returns their generation."""
        generation = self.generation
        blocks = list({id(d.block): d.block for d in batches if d.block.generation != generation}.values())
        wanted: dict[bytes, MetricDef] = {}
        for block in blocks:
            metrics = block.directory.metrics
            unknown = {index for index, metric in enumerate(metrics) if metric not in self._metrics}
            if not unknown and all(map(self._keys.__contains__, block.directory.keys)):
                continue
            for key, index in zip(block.directory.keys, block.metric_of.tolist(), strict=True):
                if key not in self._keys or index in unknown:
                    wanted[key] = metrics[index]
        if wanted:
            await self._admit(wanted)
        if blocks:
            self._fill(blocks)
        for block in blocks:
            block.generation = generation
        return generation

    async def _admit(self, wanted: dict[bytes, MetricDef]) -> None:
        numbers, metrics = await admit(self.pool, wanted, self._series_budget)
        self._metrics |= metrics
        overflow = {d.name: numbers.get(series_key(d.name, OVERFLOW_LABELS)) for d in metrics}
        for key, number in numbers.items():
            definition = wanted.get(key)
            if definition is None:
                continue
            code = number | metrics[definition].metric_id << _METRIC_SHIFT
            over = overflow[definition.name]
            if over == number and key != series_key(definition.name, OVERFLOW_LABELS):
                code |= _SURPLUS
            self._keys[key] = code

    def _fill(self, blocks: Sequence[Block]) -> None:
        """Look the keys of all blocks up, and judge them at once."""
        keys = chain.from_iterable(block.directory.keys for block in blocks)
        codes: Ints = np.array([self._keys.get(key, 0) for key in keys], dtype=np.int64)
        metrics = [(self._metrics.get(m), m) for block in blocks for m in block.directory.metrics]
        metric_ids = np.array([m.metric_id if m else 0 for m, _ in metrics], dtype=np.int64)
        layouts = np.array([m.layout_id if m else 0 for m, _ in metrics], dtype=np.int64)
        conflict = np.array([m is not None and m.kind is not d.kind for m, d in metrics], dtype=bool)
        firsts = accumulate((len(block.directory.metrics) for block in blocks), initial=0)
        of = np.concatenate([block.metric_of + first for block, first in zip(blocks, firsts, strict=False)])
        conflicted = conflict[of]
        wrong = ((codes & ~_SURPLUS) >> _METRIC_SHIFT != metric_ids[of]) & ~conflicted
        found = (np.where(wrong, -1, codes & _SERIES_MASK), layouts[of], conflicted, (codes & _SURPLUS) != 0)
        _put(blocks, *found)


def _put(blocks: Sequence[Block], ids: Ints, layouts: Ints, conflicted: Flags, surplus: Flags) -> None:
    """Give each block its part of what was found for all keys, laid end to end."""
    any_conflict, any_surplus = bool(conflicted.any()), bool(surplus.any())
    end = 0
    for block in blocks:
        start, end = end, end + len(block.directory.keys)
        block.series_ids = ids[start:end]
        block.layouts = layouts[start:end]
        block.conflicted = conflicted[start:end] if any_conflict and conflicted[start:end].any() else None
        block.surplus = surplus[start:end] if any_surplus and surplus[start:end].any() else None


def check_resolved(batch: Decoded) -> None:
    """Raise BatchError if a key of the batch is not canonical or not of the metric it claims."""
    ids = batch.block.series_ids
    assert ids is not None, "BUG: the block was not resolved"
    bad = np.flatnonzero(ids < 0)
    if len(bad):
        key = batch.block.directory.keys[int(bad[0])]
        metric = batch.block.directory.metrics[int(batch.block.metric_of[bad[0]])]
        raise BatchError(Quarantined.MALFORMED, f"key {key[:120]!r} is no key of {metric.name}")


def conflicting_metrics(batch: Decoded) -> list[str]:
    """Return names (with the kind the batch claims) of metrics known as another kind."""
    conflicted = batch.block.conflicted
    if conflicted is None:
        return []
    indices = sorted(set(batch.block.metric_of[conflicted].tolist()))
    metrics = batch.block.directory.metrics
    return [f"{metrics[i].name} as {Kind(metrics[i].kind).name.lower()}" for i in indices]
