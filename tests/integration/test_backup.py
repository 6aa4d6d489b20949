"""An older dump is restored: nothing applied twice, nothing missing that the streams hold, no fall unnoticed."""

import asyncio
import subprocess
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from aggregator import failover
from aggregator.reader import is_drained
from contract.streams import stream_key
from streamgauge.embedded import VOLATILE, PostgresServer, postgres_bin
from tests.batches import make_batch
from tests.consuming import SHARD, Consumer, consumer
from tests.exporting import exporter, scrape

PRODUCER = bytes(range(16))
EACH = 7
NAME = b"shop_orders_total"


def batch(seq: int) -> bytes:
    window_s = int(time.time()) // 10 * 10
    return make_batch(PRODUCER, seq, counters={NAME: (EACH, float(EACH))}, accepted=EACH * seq, window_s=window_s)


async def commit(c: Consumer, *seqs: int) -> None:
    """Send batches through the pipeline that a running aggregator has, until all are acknowledged."""
    await c.send(*map(batch, seqs))
    shard = c.shard()
    running = asyncio.create_task(shard.run())
    async with asyncio.timeout(30):
        while not await is_drained(c.link, SHARD):  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(0.02)
    shard.stop.set()
    await running


def dump(dsn: str, to: Path) -> Path:
    _run("pg_dump", "--format=custom", f"--file={to}", f"--dbname={dsn}")
    return to


def restore(dump_file: Path, dsn: str) -> None:
    """As the runbook says."""
    _run("psql", "--no-psqlrc", "--quiet", f"--dbname={dsn}", "--command=DROP SCHEMA IF EXISTS streamgauge CASCADE")
    _run("pg_restore", "--exit-on-error", "--single-transaction", f"--dbname={dsn}", str(dump_file))


def _run(tool: str, *arguments: str) -> None:
    done = subprocess.run([postgres_bin() / tool, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


async def check(c: Consumer) -> None:
    await failover.check(c.link, await c.pool(), [c.committer], 1, "test")


@pytest.fixture
def other_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    home = Path("/tmp") / f"sg-backup-{tmp_path_factory.mktemp('x').parent.name}-{id(tmp_path_factory)}"
    server = PostgresServer(home, settings=VOLATILE)
    server.open()
    yield server
    server.close()


@pytest.fixture
async def first(dsn: str, redis_url: str) -> AsyncGenerator[Consumer, None]:
    """A consumer that has committed two batches, its group and identities recorded."""
    async with consumer(dsn, redis_url) as c:
        await c.reader.ensure_group()
        await check(c)
        await commit(c, 1, 2)
        yield c


async def test_a_dump_restored_in_place_gets_back_what_the_streams_hold(
    first: Consumer, dsn: str, redis_url: str, tmp_path: Path
) -> None:
    saved = dump(dsn, tmp_path / "dump")
    await commit(first, 3, 4)
    await first.lanes.aclose()
    async with exporter(dsn, redis_url) as client:
        before = await scrape(client)
        assert before[NAME.decode()] == 4 * EACH
        restore(saved, dsn)
        refused = await client.get("/metrics")
        assert refused.status_code == 503
        assert "acknowledgements refer to" in refused.text
        await check(first)
        assert (await scrape(client))[NAME.decode()] == 4 * EACH
        await check(first)
        await commit(first, 5)
        assert (await scrape(client))[NAME.decode()] == 5 * EACH
    assert await first.one("SELECT count(*) FROM fences") == 1
    assert await first.one("SELECT duplicates FROM producers") == 2, "what the dump held was recognised, not applied"


async def test_a_dump_restored_elsewhere_gets_back_what_the_streams_hold(
    first: Consumer, dsn: str, redis_url: str, tmp_path: Path, other_server: PostgresServer
) -> None:
    saved = dump(dsn, tmp_path / "dump")
    await commit(first, 3)
    there = other_server.dsn()
    restore(saved, there)
    async with consumer(there, redis_url, "second") as c, exporter(there, redis_url) as client:
        assert (await client.get("/metrics")).status_code == 503
        await check(c)
        assert (await scrape(client))[NAME.decode()] == 3 * EACH
        assert await c.one("SELECT count(*) FROM fences WHERE lowered_at IS NULL") == 0


async def test_what_no_stream_holds_any_more_is_told_and_counted(
    first: Consumer, dsn: str, redis_url: str, tmp_path: Path
) -> None:
    saved = dump(dsn, tmp_path / "dump")
    await commit(first, 3, 4)
    entries = await first.link.xrange(stream_key(SHARD))
    await first.link.xtrim(stream_key(SHARD), minid=entries[-1][0], approximate=False)
    await first.lanes.aclose()
    restore(saved, dsn)
    await check(first)
    reason = await first.one("SELECT reason FROM fences")
    assert "in no stream any more" in reason
    assert await first.one("SELECT sum(n) FROM totals") == 3 * EACH
    gap = await first.rows("SELECT first_seq, end_seq, sealed_after - sealed_before AS events FROM gaps")
    assert gap == [{"first_seq": 3, "end_seq": 4, "events": EACH}], "batch 3 is known to be missing"
