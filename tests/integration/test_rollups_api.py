"""/api/rollups against numbers worked out by hand, at every level and while parts wait to be compacted."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest

from contract.sketch import RELATIVE_ERROR
from database import partitions
from database.connect import Pool, acquire, open_pool
from database.settings import PostgresSettings
from tests.batches import Store, make_batch
from tests.exporting import exporter

COUNTER, OTHER = b'shop_orders_total{outcome="accepted"}', b'shop_orders_total{outcome="refused"}'
START_S = int(time.time()) // 60 * 60 - 300
GAUGE, HISTOGRAM = b"shop_queue", b'shop_seconds{route="/a"}'


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    """A pool on a fresh database whose partitions were made."""
    opened = await open_pool(PostgresSettings.model_validate({"postgres_dsn": dsn}))
    async with acquire(opened) as connection:
        await partitions.ensure(connection)
    yield opened
    await opened.close()


@pytest.fixture
async def client(dsn: str, redis_url: str, pool: Pool) -> AsyncIterator[httpx.AsyncClient]:
    """An exporter over two windows of 10 s, five minutes ago: values 1 to 100, then 1001 to 1100."""
    store, producer = Store(pool), uuid4().bytes
    for seq, (first, at_s) in enumerate(((1, START_S), (1001, START_S + 10)), 1):
        samples = [float(first + i) for i in range(100)]
        batch = make_batch(
            producer,
            seq,
            counters={COUNTER: (3, 4.5), OTHER: (1, 10.0)},
            gauges={GAUGE: [7.0, float(seq)]},
            histograms={HISTOGRAM: samples},
            window_s=at_s,
            accepted=106 * seq,
        )
        await store.commit(batch)
    async with exporter(dsn, redis_url) as opened:
        yield opened


async def ask(client: httpx.AsyncClient, **asked: str) -> dict[str, Any]:
    """Return the answer to a question."""
    answer = await client.get("/api/rollups", params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_values_of_a_counter_are_those_that_were_added(client: httpx.AsyncClient) -> None:
    told = await ask(client, metric="shop_orders_total", step="10s", **{"from": "-2h"})
    assert [(p["start_s"], p["n"], p["sum"]) for p in told["points"]] == [(START_S, 4, 14.5), (START_S + 10, 4, 14.5)]
    assert (told["series"], told["level"]) == (2, "10s")
    told = await ask(
        client, metric="shop_orders_total", match='{outcome="refused"}', step="1m", **{"from": "now-2h", "to": "now"}
    )
    (point,) = told["points"]
    assert (point["start_s"], point["n"], point["sum"], point["mean"]) == (START_S, 2, 20.0, 10.0)
    assert told["series"] == 1


async def test_last_of_a_gauge_is_the_newest(client: httpx.AsyncClient) -> None:
    told = await ask(client, metric="shop_queue", step="1m", **{"from": "-2h"})
    (point,) = told["points"]
    assert (point["min"], point["max"], point["last"]) == (1.0, 7.0, 2.0)


async def test_quantiles_are_within_the_error_of_the_sketch(client: httpx.AsyncClient) -> None:
    told = await ask(client, metric="shop_seconds", step="10s", quantile="0,0.5,0.99,1", **{"from": "-2h"})
    low, high = told["points"]
    for point, offset in ((low, 0), (high, 1000)):
        assert (point["n"], point["sum"]) == (100, 5050.0 + 100 * offset)
        assert (point["min"], point["max"], point["mean"]) == (1.0 + offset, 100.0 + offset, 50.5 + offset)
        for quantile, value in (("0.5", 50), ("0.99", 99)):
            assert point["quantiles"][quantile] == pytest.approx(value + offset, rel=2 * RELATIVE_ERROR)
    # Of both windows together, half the values are at most 100 and all others above 1000.
    (both,) = (await ask(client, metric="shop_seconds", step="1m", quantile="0.25,0.75", **{"from": "-2h"}))["points"]
    assert both["quantiles"]["0.25"] == pytest.approx(50, rel=2 * RELATIVE_ERROR)
    assert both["quantiles"]["0.75"] == pytest.approx(1050, rel=2 * RELATIVE_ERROR)


async def test_times_may_be_unix_iso_now_or_ago(client: httpx.AsyncClient) -> None:
    iso = datetime.fromtimestamp(START_S, UTC).isoformat().replace("+00:00", "Z")
    for since, until in ((str(START_S), str(START_S + 10)), (iso, f"{START_S + 9}.5")):
        told = await ask(client, metric="shop_seconds", step="10s", **{"from": since, "to": until})
        assert (told["from_s"], told["to_s"], len(told["points"])) == (START_S, START_S + 10, 1)
    told = await ask(client, metric="shop_seconds", step="10s", **{"from": "-2m", "to": "now"})
    assert told["to_s"] - told["from_s"] in (120, 130)
    assert told["points"] == []
