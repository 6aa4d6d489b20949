"""History from a real standby: while it is as far as the primary it answers, and the primary whenever it cannot."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from database import partitions
from database.connect import Pool, acquire, open_pool
from database.migrate import migrate
from database.settings import PostgresSettings
from exporter import history_servers
from tests.batches import Store, make_batch
from tests.debian_postgres import DebianPostgres, is_installed
from tests.exporting import exporter, writer
from tests.postgres_pair import home

pytestmark = pytest.mark.skipif(not is_installed(), reason="needs the package postgresql-15")

ORDERS = b"shop_orders_total"
WITHIN_S = 20.0


class Pair:
    """A primary with a database, and its standby."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.primary = DebianPostgres(home / "a")
        self.standby: DebianPostgres | None = None

    def open(self) -> None:
        self.primary.open()
        self.primary.create_database("sg")
        self.standby = self.primary.standby(self.home / "b")

    @property
    def replica(self) -> DebianPostgres:
        assert self.standby is not None
        return self.standby

    def close(self) -> None:
        for server in (self.standby, self.primary):
            if server is not None:
                server.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    with home() as folder:
        made = Pair(folder)
        try:
            made.open()
            yield made
        finally:
            made.close()


@pytest.fixture
async def pool(pair: Pair) -> AsyncIterator[Pool]:
    await migrate(pair.primary.dsn("sg"))
    opened = await open_pool(PostgresSettings.model_validate({"postgres_dsn": pair.primary.dsn("sg")}))
    async with acquire(opened) as connection:
        await partitions.ensure(connection)
    yield opened
    await opened.close()


async def orders(pool: Pool, producer: bytes, seq: int) -> None:
    """Commit one batch of 3 orders."""
    batch = make_batch(
        producer, seq, counters={ORDERS: (3, 3.0)}, window_s=int(time.time()) // 60 * 60 - 300, accepted=3 * seq
    )
    await Store(pool).commit(batch)


async def ask(client: httpx.AsyncClient, metric: str = "shop_orders_total") -> dict[str, Any]:
    """Return the answer over the last two hours."""
    answer = await client.get("/api/rollups", params={"metric": metric, "step": "1m", "from": "-2h"})
    return answer.json() | {"code": answer.status_code}


async def until(look: Callable[[], Awaitable[dict[str, Any]]], holds: Callable[[dict[str, Any]], bool]) -> Any:
    """Return the first answer of which something holds."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        told = await look()
        if holds(told):
            return told
        assert time.monotonic() < deadline, told


async def run(dsn: str, query: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=10)
    await connection.execute(query)
    await connection.close(timeout=10)


async def test_a_fresh_standby_answers_and_the_primary_whenever_it_cannot(
    pair: Pair, pool: Pool, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_servers, "REST_S", 0.2)
    producer, standby = uuid4().bytes, pair.replica.dsn("sg")
    settings = {"STREAMGAUGE_POSTGRES_REPLICAS": standby, "STREAMGAUGE_REPLICA_LAG_S": "3"}
    await orders(pool, producer, 1)
    async with (
        writer(pair.primary.dsn("sg")) as rows,
        exporter(pair.primary.dsn("sg"), redis_url, **settings) as c,
    ):

        async def beat() -> dict[str, Any]:
            await rows.connection.execute("UPDATE heartbeats SET at = clock_timestamp()")
            return await ask(c)

        assert (await ask(c))["server"] == "primary", "no aggregator touches the heartbeat"
        told = await until(beat, lambda t: t["server"] != "primary" and len(t["points"]) == 1)
        assert told["server"] == f"{pair.replica.home}:5432"
        assert 0 <= told["heartbeat_age_s"] < 3
        assert told["points"][0]["n"] == 3

        await run(standby, "SELECT pg_wal_replay_pause()")
        await orders(pool, producer, 2)
        told = await until(beat, lambda t: t["server"] == "primary")
        assert told["points"][0]["n"] == 6, "the standby stands still: its heartbeat is too old"
        await run(standby, "SELECT pg_wal_replay_resume()")
        told = await until(beat, lambda t: t["server"] != "primary")
        assert told["points"][0]["n"] == 6

        assert (await ask(c, "no_such_metric"))["code"] == 404
        pair.replica.kill()
        told = await ask(c)
        assert (told["server"], told["heartbeat_age_s"], told["points"][0]["n"]) == ("primary", None, 6)
        pair.replica.open()
        assert (await until(beat, lambda t: t["server"] != "primary"))["points"][0]["n"] == 6
        await run(standby, "SELECT pg_promote()")
        assert (await until(beat, lambda t: t["server"] == "primary"))["points"][0]["n"] == 6
