"""Exporters for tests: the web application in this process on real servers, and rows written by hand.

Promise: `exporter` is closed at the end; `Writer` commits as an aggregator does: totals and their commit in one.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
from prometheus_client.parser import text_string_to_metric_families

from database.settings import read_settings
from exporter.app import make_app
from exporter.settings import ExporterSettings
from tests.served import PAUSE_S, Highest


@asynccontextmanager
async def exporter(dsn: str, redis_url: str, **settings: str) -> AsyncGenerator[httpx.AsyncClient, None]:
    """Run one exporter; yields a client of it."""
    app = make_app(read_settings(ExporterSettings, {"POSTGRES_DSN": dsn, "REDIS_URL": redis_url} | settings))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://exporter", timeout=20) as client,
    ):
        yield client


@asynccontextmanager
async def watched(dsn: str, redis_url: str) -> AsyncGenerator[None, None]:
    """Scrape an exporter for as long as the block lasts; no counter may fall, and it is served at the end."""
    highest = Highest()

    async def look() -> None:
        while True:
            answer = await client.get("/metrics")
            if answer.status_code == 200:
                highest.compare(list(text_string_to_metric_families(answer.text)))
            await asyncio.sleep(PAUSE_S)

    async with exporter(dsn, redis_url) as client:
        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.wait({looking})
        assert looking.cancelled(), looking
        answer = await client.get("/metrics")
        answer.raise_for_status()
        highest.compare(list(text_string_to_metric_families(answer.text)))
        assert highest.shown and not highest.fell, highest.fell[:5]


async def scrape(client: httpx.AsyncClient) -> dict[str, float]:
    """Return every sample of /metrics by its text form; raises unless the answer is 200."""
    answer = await client.get("/metrics")
    answer.raise_for_status()
    return samples(answer.text)


def samples(text: str) -> dict[str, float]:
    """Return samples as prometheus_client's parser reads them, keyed as they are written."""
    families = list(text_string_to_metric_families(text))
    assert families
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {key: float(value) for key, _, value in lines}


class Writer:
    """Writes rows by hand."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self.connection = connection

    async def metric(
        self, name: str, kind: int, *, merge: str = "last", live: bool = False, text: str = "Help."
    ) -> int:
        """Admit a metric."""
        query = "INSERT INTO metrics (name, kind, help, unit, merge, live) VALUES ($1, $2, $3, '', $4, $5) RETURNING 1"
        await self.connection.execute(query, name, kind, text, merge, live)
        return await self.connection.fetchval("SELECT metric_id FROM metrics WHERE name = $1", name)

    async def layout(self, metric: int, *bounds: float) -> int:
        """Declare buckets."""
        query = "INSERT INTO layouts (metric_id, bounds) VALUES ($1, $2) RETURNING layout_id"
        return await self.connection.fetchval(query, metric, bounds)

    async def series(self, metric: int, key: str) -> int:
        """Admit a series."""
        query = "INSERT INTO series (key_hash, metric_id, key) VALUES (gen_random_uuid(), $1, $2) RETURNING series_id"
        return await self.connection.fetchval(query, metric, key)

    async def total(
        self, series: int, n: int, total: float, *, layout: int = 0, shard: int = 0, le: list[int] | None = None
    ) -> None:
        """Add to a total."""
        query = """INSERT INTO totals AS t VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT (series_id, layout_id, shard) DO UPDATE SET n = t.n + excluded.n, sum = t.sum + excluded.sum,
            le = (SELECT array_agg(a + b ORDER BY o) FROM unnest(t.le, excluded.le) WITH ORDINALITY AS u(a, b, o))"""
        await self.connection.execute(query, series, layout, shard, n, total, le)

    async def gauge(self, series: int, producer: int, value: float, set_ms: int = 1) -> None:
        """Set a gauge."""
        query = """INSERT INTO gauges VALUES ($1, $2, $3, $4)
            ON CONFLICT (series_id, producer_no) DO UPDATE SET value = excluded.value, set_ms = excluded.set_ms"""
        await self.connection.execute(query, series, producer, value, set_ms)

    async def producer(self, service: str = "shop", shard: int = 0, age_s: float = 0, **fields: Any) -> int:
        """Register a producer, last heard of `age_s` ago."""
        names = "".join(f", {name}" for name in fields)
        values = "".join(f", ${i}" for i in range(4, 4 + len(fields)))
        query = f"""INSERT INTO producers (producer_id, service, shard, last_seen{names})
            VALUES (gen_random_uuid(), $1, $2, now() - make_interval(secs => $3){values}) RETURNING producer_no"""
        return await self.connection.fetchval(query, service, shard, age_s, *fields.values())

    async def commit(self, *series: int) -> None:
        """Note which series a transaction touched."""
        query = "INSERT INTO commits (consumer, batches, events, series_ids) VALUES ('test', 1, 1, $1)"
        await self.connection.execute(query, series)


@asynccontextmanager
async def writer(dsn: str) -> AsyncGenerator[Writer, None]:
    """Open a writer of its own connection."""
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
        dsn, timeout=10, command_timeout=30, server_settings={"search_path": "streamgauge"}
    )
    try:
        yield Writer(connection)
    finally:
        await connection.close(timeout=10)
