"""An older dump is restored: nothing applied twice, nothing missing that the streams hold, no fall unnoticed."""

import asyncio
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from aggregator import failover
from aggregator.reader import is_drained
from contract.streams import stream_key
from database import upkeep
from database.audit import audit
from database.load_runs import ensure_run, list_runs
from database.settings import RetentionSettings
from streamgauge.embedded import VOLATILE, PostgresServer, postgres_bin
from tests.batches import make_batch
from tests.consuming import SHARD, Consumer, consumer
from tests.exporting import exporter, scrape
from tests.postgres_pair import home

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbooks" / "backup-and-restore.md"
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


def commands() -> list[str]:
    """Return the shell blocks of the runbook: how a dump is made, how it is put in place, how one looks afterwards."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for block in blocks]


def run(block: str, dsn: str, folder: Path, *, tools: Path | None = None, **more: str) -> None:
    """Run a block word for word, in a folder, with PostgreSQL's own tools and ours."""
    paths = (str(tools or postgres_bin()), str(Path(sys.executable).parent), "/usr/bin", "/bin")
    env = {"PATH": ":".join(paths), "POSTGRES_DSN": dsn, **more}
    shell = ("bash", "-e", "-o", "pipefail", "-c", block)
    done = subprocess.run(shell, env=env, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def dump(dsn: str, folder: Path) -> Path:
    run(commands()[0], dsn, folder)
    return folder


def restore(folder: Path, dsn: str) -> None:
    run(commands()[1], dsn, folder)


async def audited(c: Consumer) -> None:
    """The audit finds nothing."""
    report = await audit(await c.pool(), c.link)
    assert report.findings == []


async def check(c: Consumer) -> None:
    await failover.check(c.link, await c.pool(), [c.committer], 1, "test")


@pytest.fixture
def other_server() -> Iterator[PostgresServer]:
    with home() as folder:
        server = PostgresServer(folder, settings=VOLATILE)
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
    saved = dump(dsn, tmp_path)
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
    await asyncio.to_thread(run, commands()[2], dsn, tmp_path, REDIS_URL=redis_url)
    assert await first.one("SELECT count(*) FROM fences") == 1
    assert await first.one("SELECT duplicates FROM producers") == 2, "what the dump held was recognised, not applied"


async def test_a_dump_restored_elsewhere_gets_back_what_the_streams_hold(
    first: Consumer, dsn: str, redis_url: str, tmp_path: Path, other_server: PostgresServer
) -> None:
    saved = dump(dsn, tmp_path)
    await commit(first, 3)
    there = other_server.dsn()
    restore(saved, there)
    async with consumer(there, redis_url, "second") as c, exporter(there, redis_url) as client:
        assert (await client.get("/metrics")).status_code == 503
        await check(c)
        assert (await scrape(client))[NAME.decode()] == 3 * EACH
        await audited(c)
        assert await c.one("SELECT count(*) FROM fences WHERE lowered_at IS NULL") == 0


async def test_what_no_stream_holds_any_more_is_told_and_counted(
    first: Consumer, dsn: str, redis_url: str, tmp_path: Path
) -> None:
    saved = dump(dsn, tmp_path)
    await commit(first, 3, 4)
    entries = await first.link.xrange(stream_key(SHARD))
    await first.link.xtrim(stream_key(SHARD), minid=entries[-1][0], approximate=False)
    await first.lanes.aclose()
    async with exporter(dsn, redis_url) as client:
        assert (await scrape(client))[NAME.decode()] == 4 * EACH
        restore(saved, dsn)
        assert (await client.get("/metrics")).status_code == 503, "it would fall unnoticed"
        await check(first)
        reason = await first.one("SELECT reason FROM fences")
        assert "in no stream any more" in reason
        assert (await scrape(client))[NAME.decode()] == 3 * EACH, "batch 4, which the stream had still"
        gap = await first.rows("SELECT first_seq, end_seq, sealed_after - sealed_before AS events FROM gaps")
        assert gap == [{"first_seq": 3, "end_seq": 4, "events": EACH}], "batch 3 is known to be missing"
        await first.one("UPDATE gaps SET opened_at = now() - interval '1 hour' RETURNING 1")
        assert await upkeep.run(await first.pool(), RetentionSettings(), drained=True) == []
        shown = await scrape(client)
        assert sum(value for name, value in shown.items() if name.startswith("streamgauge_lost_events{")) == EACH
    await audited(first)


async def test_a_load_test_run_comes_back_with_its_schema(first: Consumer, dsn: str, tmp_path: Path) -> None:
    """And what was made since the dump does not stay beside it."""
    pool = await first.pool()
    schema = await ensure_run(pool, "trial", 1, 10)
    assert schema is not None
    await pool.execute(
        f"INSERT INTO {schema}.metrics (name, kind, help, unit, merge, live) VALUES ('m', 1, '', '', '', false)"
    )
    saved = dump(dsn, tmp_path)
    later = await ensure_run(pool, "later", 1, 10)
    await first.lanes.aclose()
    restore(saved, dsn)
    pool = await first.pool()
    assert [run.schema_name for run in await list_runs(pool)] == [schema]
    assert await pool.fetchval(f"SELECT count(*) FROM {schema}.metrics") == 1
    assert await pool.fetchval("SELECT to_regnamespace($1)", later) is None
