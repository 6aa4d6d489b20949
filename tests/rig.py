"""Rig: a store and its stream for tests of the tools that compare them, without an aggregator.

In: addresses of real servers. Out: batches that are in the stream, committed or both. Promise: one producer whose
every batch holds 3 + 2 + 2 events of one counter, one gauge and one histogram.
"""

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio

from contract.streams import FIELD, GROUP, SHARD_COUNT_KEY, stream_key
from database import partitions, upkeep
from database.audit import Report, audit
from database.connect import Pool, acquire, open_pool
from database.partitions import PARTS
from database.settings import PostgresSettings, RetentionSettings
from tests.batches import Store, make_batch

COUNTER, GAUGE, HISTOGRAM = b'c_total{a="1"}', b"g", b'h_seconds{a="1"}'
PRODUCER = bytes(range(16))


@dataclass
class Rig:
    """A store and its stream: what is emitted stands in the stream; what is committed is acknowledged too."""

    pool: Pool
    link: Any
    store: Store
    window_s: int
    accepted: int = 0
    seq: int = 0
    dropped: dict[str, int] = field(default_factory=dict[str, int])
    ids: dict[int, bytes] = field(default_factory=dict[int, bytes])

    def seal(self, dropped: Mapping[str, int] = {}) -> bytes:
        """Seal the producer's next batch: 3 + 2 + 2 events."""
        self.seq += 1
        for reason, count in dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count
        self.accepted += 7 + sum(dropped.values())
        return make_batch(
            PRODUCER,
            self.seq,
            counters={COUNTER: (3, 4.25)},
            gauges={GAUGE: [1.0, 2.0]},
            histograms={HISTOGRAM: [0.3, 7.0 * self.seq]},
            window_s=self.window_s,
            accepted=self.accepted,
            dropped=self.dropped,
        )

    async def emit(self, data: bytes) -> None:
        """Add a batch to the stream."""
        self.ids[self.seq] = await self.link.xadd(stream_key(0), {FIELD: data})

    async def commit(self, dropped: Mapping[str, int] = {}) -> None:
        """Emit, commit and acknowledge one batch."""
        data = self.seal(dropped)
        await self.emit(data)
        await self.link.xreadgroup(GROUP, "test", {stream_key(0): ">"})
        await self.store.commit(data)
        await self.link.xack(stream_key(0), GROUP, self.ids[self.seq])

    async def roll_up(self) -> None:
        """Let all parts have arrived a while ago and do the upkeep."""
        at_s = int(time.time()) - 180
        part = partitions.partition(PARTS, at_s)
        async with acquire(self.pool) as connection:
            await connection.execute("SELECT make_partition('parts', $1, $2::bigint, $3::bigint)", *part)
            await connection.execute("UPDATE parts SET arrived = to_timestamp($1)", at_s)
        assert await upkeep.run(self.pool, RetentionSettings(), drained=True) == []

    async def audit(self) -> Report:
        """Audit real traffic."""
        return await audit(self.pool, self.link)

    async def culprit(self) -> str:
        """Audit, and return what the findings name."""
        report = await self.audit()
        assert not report.ok
        return "\n".join(f"{f.check}: {f.culprit}" for f in report.findings)


@asynccontextmanager
async def open_rig(dsn: str, redis_url: str) -> AsyncGenerator[Rig, None]:
    """Three committed batches, of a window that ended more than an hour ago; two events were dropped."""
    pool = await open_pool(PostgresSettings.model_validate({"postgres_dsn": dsn}))
    link = redis.asyncio.Redis.from_url(redis_url, protocol=2)
    await link.set(SHARD_COUNT_KEY, 1)
    await link.xgroup_create(stream_key(0), GROUP, "0", mkstream=True)
    async with acquire(pool) as connection:
        await partitions.ensure(connection)
    rig = Rig(pool, link, Store(pool), int(time.time()) // 3600 * 3600 - 7200)
    for dropped in ({}, {"nonfinite": 2}, {}):
        await rig.commit(dropped)
    yield rig
    await pool.close()
    await link.aclose()
