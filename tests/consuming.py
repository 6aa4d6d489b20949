"""An aggregator's consumer, step by step, on real servers: what a test of one promise needs.

In: batches to send. Out: committed rows and acknowledged entries. Nothing runs in the background.
"""

from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from aggregator.committer import Committer
from aggregator.decode import Entry
from aggregator.failover import Identity, read_commit
from aggregator.lanes import Lanes
from aggregator.reader import Reader
from aggregator.settings import AggregatorSettings
from aggregator.shard import Shard
from contract.crash import CrashPoint
from contract.streams import FIELD, GROUP, stream_key
from database.connect import Pool
from database.redis_link import open_link

SHARD = 0


class Consumer:
    """One consumer of shard 0."""

    def __init__(self, dsn: str, redis_url: str, name: str = "consumer", **settings: Any) -> None:
        given: dict[str, Any] = {"postgres_dsn": dsn, "redis_url": redis_url, **settings}
        self.settings = AggregatorSettings(**given)
        self.link = open_link(self.settings)
        self.lanes = Lanes(self.settings)
        self.threads = ThreadPoolExecutor(2)
        limit = self.settings.streamgauge_commit_max_bytes
        self.reader = Reader(self.link, SHARD, name, reclaim_idle_ms=0, max_bytes=limit)
        self.committer = Committer(self.lanes, SHARD, name, self.threads, CrashPoint(""))

    async def send(self, *batches: bytes) -> None:
        """Put batches into the stream."""
        for data in batches:
            await self.link.xadd(stream_key(SHARD), {FIELD: data})

    async def read(self) -> list[Entry]:
        """Read everything that is there for us, our own pending entries first."""
        entries: list[Entry] = []
        await self.reader.ensure_group()
        for _ in range(3):
            entries += await self.reader.read(1000, 0)
        return entries

    async def ack(self, entries: Sequence[Entry]) -> None:
        """Acknowledge entries."""
        await self.reader.ack([entry.stream_id for entry in entries])

    async def consume(self) -> int:
        """Read, settle, acknowledge; returns how many entries there were."""
        entries = await self.read()
        await self.committer.settle(entries)
        await self.ack(entries)
        return len(entries)

    async def pending(self) -> int:
        """Return how many delivered entries are not acknowledged."""
        found = await self.link.xpending(stream_key(SHARD), GROUP)
        return int(found["pending"])

    def shard(self) -> Shard:
        """Return the pipeline that a running aggregator has."""

        async def no_check() -> Identity:
            return (await read_commit(await self.pool())).database

        return Shard(self.settings, self.reader, self.committer, self.lanes, CrashPoint(""), no_check)

    async def pool(self) -> Pool:
        """Return the pool of real traffic."""
        return (await self.lanes.main()).pool

    async def one(self, query: str, *arguments: Any) -> Any:
        """Fetch one value."""
        return await (await self.pool()).fetchval(query, *arguments)

    async def rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        """Fetch rows."""
        return [dict(row) for row in await (await self.pool()).fetch(query, *arguments)]

    async def aclose(self) -> None:
        """Close every connection."""
        await self.lanes.aclose()
        await self.link.aclose()
        self.threads.shutdown()


@asynccontextmanager
async def consumer(dsn: str, redis_url: str, name: str = "consumer", **settings: Any) -> AsyncGenerator[Consumer, None]:
    """A consumer that is closed at the end."""
    found = Consumer(dsn, redis_url, name, **settings)
    try:
        yield found
    finally:
        await found.aclose()
