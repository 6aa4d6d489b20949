"""Programs of two versions at work on the same streams and tables, and batches older than the ledger.

Promise: a batch of a version that nobody at work knows is kept, in flight and never called lost, and is folded once by
the first aggregator that knows it; a batch of the first version is read for ever; a table that grows under load costs
a retry; what is older than ledgers live is kept and never applied, also when it was applied before.
"""

import asyncio
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from aggregator import committer, redrive
from aggregator.redrive import redrive_parked
from contract.batch import VERSION, checksum_of
from contract.streams import stream_key
from database import upkeep
from database.audit import audit
from database.connect import SCHEMA
from database.settings import RetentionSettings
from streamgauge.processes import wait_until
from tests.batches import make_batch
from tests.consuming import SHARD, Consumer, consumer
from tests.exporting import exporter, scrape, watched
from tests.faults.bench import Bench
from tests.faults.oracle import total
from tests.faults.test_zombies import ended
from tests.fundamentals.test_one_effect import NOW_S, batches
from tests.loading import COMMITTED, DEADLINE_S, FAST, Load, assert_exact, fetch
from tests.pipeline import Pipeline
from tests.served import Served

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

GOLDEN = Path(__file__).parents[1] / "golden"
DAY_MS = 86_400_000


def of_version(data: bytes, version: int) -> bytes:
    """Return a batch as a program of another version would have sealed it."""
    changed = bytearray(data)
    changed[4:6] = struct.pack("<H", version)
    changed[40:48] = checksum_of(bytes(changed))
    return bytes(changed)


@pytest.fixture
async def never_falls(dsn: str, redis_url: str) -> AsyncIterator[None]:
    """Scrape all the time."""
    async with watched(dsn, redis_url):
        yield


async def tells(dsn: str, redis_url: str, metric: str, value: float) -> None:
    """Look for a metric on /metrics."""
    async with exporter(dsn, redis_url) as client:
        assert (await scrape(client)).get(metric) == value


async def keep_up(c: Consumer) -> None:
    """Do the upkeep; whatever is missing now is lost."""
    assert await upkeep.run(await c.pool(), RetentionSettings(), drained=True, replay_window_s=0) == []


@pytest.mark.usefixtures("never_falls")
async def test_newer_batch_waits_for_the_first_aggregator_that_knows_it(
    dsn: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a sequence, so that it looks like a gap; sent twice, driven twice."""
    one, two, three = batches(3)
    newer = of_version(two, VERSION + 1)
    async with consumer(dsn, redis_url) as c:
        await c.send(one, newer, three, newer)
        assert await c.consume() == 4
        assert await c.pending() == 0
        await keep_up(c)
        report = await audit(await c.pool(), c.link)
        assert (report.ok, report.lost, report.in_flight, report.quarantined) == (True, 0, 5, 0), report
        assert await redrive_parked(await c.pool(), c.committer) == 0, "it is not for us"
        await tells(dsn, redis_url, 'streamgauge_parked_entries{reason="unknown_version"}', 1)
    async with consumer(dsn, redis_url, "newer") as c:
        for module in (committer, redrive):
            monkeypatch.setattr(module, "VERSION", VERSION + 1)
        for redriven in (1, 0):
            assert await redrive_parked(await c.pool(), c.committer) == redriven
        assert await c.rows("SELECT applied::text, committed_events FROM producers") == [
            {"applied": "{[1,4)}", "committed_events": 15}
        ]
        assert await c.one("SELECT sum(n) FROM totals") == 15
        assert await c.one("SELECT count(*) FROM parked") == 0


DIES = """
import os, contract.batch
read = contract.batch.read_envelope
contract.batch.read_envelope = lambda data: os.kill(os.getpid(), 9) if data == {!r} else read(data)
"""


@pytest.mark.usefixtures("never_falls")
async def test_parked_entry_that_ends_its_decoder_is_set_aside(
    dsn: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who parked it did not decode it: the first that knows its version would end, and each after it."""
    newer = of_version(batches(1)[0], VERSION + 1)
    (tmp_path / "sitecustomize.py").write_text(DIES.format(newer))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with consumer(dsn, redis_url) as c:
        await c.send(newer)
        await c.consume()
        for module in (committer, redrive):
            monkeypatch.setattr(module, "VERSION", VERSION + 1)
        assert await redrive_parked(await c.pool(), c.committer) == 1
        assert await c.rows("SELECT reason, payload FROM quarantine") == [{"reason": "crashed", "payload": newer}]
        assert await c.one("SELECT count(*) FROM parked") == 0
        assert await c.one("SELECT coalesce(sum(n), 0) FROM totals") == 0


@pytest.mark.usefixtures("never_falls")
@pytest.mark.parametrize("name", ["batch-1", "batch-1-compressed"])
async def test_batch_of_the_first_version_is_read_for_ever(name: str, dsn: str, redis_url: str) -> None:
    """The bytes are never made anew: a producer that is not upgraded seals them so."""
    data = (GOLDEN / f"{name}.bin").read_bytes()
    async with consumer(dsn, redis_url) as c:
        await c.send(data)
        await c.committer.settle(await c.read())
        assert await c.one("SELECT count(*) FROM parked") == 1, "sealed long ago, by a producer without history"
        await (await c.pool()).execute(
            "INSERT INTO producers (producer_id, service, shard, first_seen) "
            "SELECT producer_id, 'golden', 0, 'epoch' FROM parked"
        )
        await c.send(data)
        await c.consume()
        rows = await c.rows("SELECT key, n, sum FROM totals JOIN series USING (series_id) ORDER BY key LIMIT 3")
        assert rows == [
            {"key": 'golden_hits_total{route="a"}', "n": 3, "sum": 3.5},
            {"key": "golden_level", "n": 2, "sum": 0.0},
            {"key": 'golden_seconds{route="a"}', "n": 4, "sum": 7.625},
        ]


@pytest.mark.usefixtures("never_falls")
async def test_batch_older_than_the_ledger_is_never_applied_again(dsn: str, redis_url: str) -> None:
    """Its producer was retired: nobody can tell any more that it was applied."""
    sent = [
        make_batch(
            bytes(16), seq, counters={b"hits_total": (3, 3.0)}, window_s=NOW_S, accepted=3 * seq, flushed_ms=sealed_ms
        )
        for seq, sealed_ms in ((1, NOW_S * 1000 - 8 * DAY_MS), (2, NOW_S * 1000))
    ]
    async with consumer(dsn, redis_url) as c:
        await c.send(sent[1])
        await c.consume()
        await (await c.pool()).execute("UPDATE producers SET first_seen = now() - interval '9 days'")
    async with consumer(dsn, redis_url) as c:
        await c.send(sent[0])
        await c.consume()
        assert await c.one("SELECT applied::text FROM producers") == "{[1,3)}", "its row is older than it"
        await (await c.pool()).execute("UPDATE producers SET last_seen = now() - interval '8 days'")
        await keep_up(c)
        assert await c.one("SELECT count(*) FROM producers") == 0
        await c.link.xtrim(stream_key(SHARD), maxlen=0, approximate=False)
    async with consumer(dsn, redis_url, "other") as c:
        before = await c.rows("SELECT * FROM totals")
        await c.send(sent[0], sent[0])
        assert await c.consume() == 2
        assert await c.pending() == 0
        assert await c.rows("SELECT * FROM totals") == before
        assert await c.rows("SELECT reason, seq, payload FROM parked") == [
            {"reason": "unknown_history", "seq": 1, "payload": sent[0]}
        ]
        assert await c.one("SELECT committed_events FROM retired") == 6
        report = await audit(await c.pool(), c.link)
        assert (report.ok, report.committed, report.in_flight) == (True, 6, 3), report
        await tells(dsn, redis_url, 'streamgauge_parked_entries{reason="unknown_history"}', 1)


def sealed(seq: int, *, ago_ms: int = 0) -> bytes:
    """Three events under the next seq of one producer."""
    counters, flushed_ms = {b"hits_total": (3, 3.0)}, NOW_S * 1000 - ago_ms
    return make_batch(bytes(16), seq, counters=counters, accepted=3 * seq, window_s=NOW_S, flushed_ms=flushed_ms)


async def apply_both(dsn: str, redis_url: str, old: bytes) -> None:
    """Apply two batches of a producer whose row was made eight days ago, the older one last."""
    async with consumer(dsn, redis_url) as c:
        await c.send(sealed(2))
        await c.consume()
        await (await c.pool()).execute("UPDATE producers SET first_seen = now() - interval '8 days'")
    async with consumer(dsn, redis_url, "other") as c:
        await c.send(old)
        await c.consume()
        assert await c.rows("SELECT committed_events, duplicates FROM producers") == [
            {"committed_events": 6, "duplicates": 0}
        ]


@pytest.mark.usefixtures("never_falls")
async def test_old_batch_is_unknown_to_a_row_that_was_made_anew(dsn: str, redis_url: str) -> None:
    """A retired producer's row comes back empty with its next batch: what came before it may have been applied."""
    old = sealed(1, ago_ms=8 * DAY_MS)
    await apply_both(dsn, redis_url, old)
    async with consumer(dsn, redis_url) as c:
        await (await c.pool()).execute("UPDATE producers SET last_seen = now() - interval '8 days'")
        await keep_up(c)
        assert await c.one("SELECT count(*) FROM producers") == 0
    async with consumer(dsn, redis_url, "other") as c:
        await c.send(make_batch(bytes(16), 2, counters={b"hits_total": (3, 3.0)}, window_s=NOW_S + 86_400))
        await c.consume()
        assert await c.one("SELECT quarantined::text FROM producers") == "{[2,3)}", "set aside, under a row made anew"
        await c.send(old)
        await c.consume()
        await c.send(sealed(3), old)
        await c.consume()
        assert await c.one("SELECT n FROM totals") == 9
        assert await c.rows("SELECT reason, seq, payload FROM parked") == [
            {"reason": "unknown_history", "seq": 1, "payload": old}
        ]


@pytest.mark.usefixtures("never_falls")
async def test_first_batches_of_a_producer_that_lives_long_stay_known(dsn: str, redis_url: str) -> None:
    """They are older than its row: a copy that comes after a week is a duplicate like any other."""
    old = sealed(1, ago_ms=8 * DAY_MS + 2000)
    await apply_both(dsn, redis_url, old)
    async with consumer(dsn, redis_url) as c:
        await c.send(old)
        await c.consume()
        assert await c.rows("SELECT committed_events, duplicates FROM producers") == [
            {"committed_events": 6, "duplicates": 1}
        ]
        assert await c.one("SELECT count(*) FROM parked") == 0


@pytest.mark.usefixtures("never_falls")
async def test_parked_batch_without_history_stays_parked_when_it_is_driven(
    dsn: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is known by now, and nobody knows whether it was applied: kept under that reason, never lost in silence."""
    newer = of_version(sealed(1, ago_ms=8 * DAY_MS), VERSION + 1)
    async with consumer(dsn, redis_url) as c:
        await c.send(newer)
        await c.consume()
        for module in (committer, redrive):
            monkeypatch.setattr(module, "VERSION", VERSION + 1)
        for redriven in (1, 0):
            assert await redrive_parked(await c.pool(), c.committer) == redriven
            (row,) = await c.rows("SELECT reason, payload FROM parked")
            assert row == {"reason": "unknown_history", "payload": newer}
        report = await audit(await c.pool(), c.link)
        assert (report.ok, report.in_flight, report.committed) == (True, 3, 0), report


@pytest.mark.usefixtures("never_falls")
async def test_two_contents_that_are_parked_under_one_seq_are_both_kept(dsn: str, redis_url: str) -> None:
    """One of them is forged; nobody can tell which."""
    one, other = (
        of_version(make_batch(bytes(16), 1, counters={b"hits_total": (n, 3.0)}, window_s=NOW_S), VERSION + 1)
        for n in (3, 4)
    )
    async with consumer(dsn, redis_url) as c:
        await c.send(one, other, one)
        await c.consume()
        assert await c.rows("SELECT payload FROM parked") == [{"payload": one}]
        assert await c.rows("SELECT reason, payload FROM quarantine") == [{"reason": "conflict", "payload": other}]


NEWER = f"""
import contract.batch
contract.batch.VERSION = {VERSION + 1}
read = contract.batch.read_envelope
def read_both(data):
    envelope = read(data)
    return envelope._replace(version={VERSION + 1}) if envelope.version == {VERSION} else envelope
contract.batch.read_envelope = read_both
"""
"""The program to come: it seals under the next version, and knows both."""
PARKED = "streamgauge_parked_entries"


def roll(bench: Bench, names: list[str], **env: str) -> None:
    """Replace one aggregator after the other by one of another version, as a rolling upgrade does."""
    for at, name in enumerate(names):
        assert bench.pipeline.stop(name) == 0
        names[at] = bench.aggregator(**env)


def test_programs_of_two_versions_are_at_work_at_once_forwards_and_back(
    tmp_path: Path, dsn: str, redis_url: str
) -> None:
    """A producer is upgraded too early, aggregators one by one, then both back, and forwards again."""
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "sitecustomize.py").write_text(NEWER)
    newer: Any = {"PYTHONPATH": str(tmp_path / "newer")}
    with Bench(tmp_path, dsn, redis_url, STREAMGAUGE_UPKEEP_INTERVAL_S="1") as bench:
        names = [bench.aggregator(), bench.aggregator()]
        bench.exporter()

        def emit() -> None:
            bench.emitters.start(6000, rate=1000)
            bench.emitters.start(6000, rate=1000, **newer)

        emit()
        bench.told(PARKED, 1, reason="unknown_version")
        roll(bench, names, **newer)
        bench.until(lambda: not bench.sample(PARKED), "what was parked is folded")
        emit()
        roll(bench, names)
        emit()
        bench.told(PARKED, 1, reason="unknown_version")
        roll(bench, names, **newer)
        bench.until(lambda: not bench.sample(PARKED), "what was parked is folded, again")
        books = bench.check(10)
        assert total(books, "lost") == total(books, "quarantined") == 0


GROWING = ("producers", "totals", "commits", "parts")


def test_tables_that_get_a_column_under_load_cost_a_retry(tmp_path: Path, dsn: str, redis_url: str) -> None:
    """As a migration to come does it, while aggregators of the version before are at work."""
    with Pipeline(tmp_path, dsn, redis_url, **FAST) as pipeline:
        pipeline.aggregator()
        pipeline.exporter()
        load = Load(pipeline, dsn, events=24_000)
        with Served(pipeline.port) as served, ended(load):
            for number, table in enumerate(GROWING):
                before = fetch(dsn, COMMITTED)
                asyncio.run(grow(dsn, table, number))
                assert wait_until(lambda before=before: fetch(dsn, COMMITTED) > before, DEADLINE_S), table
            assert_exact(pipeline, load, dsn)
        served.check(5)


async def grow(dsn: str, table: str, number: int) -> None:
    """Add a column that has a default."""
    connection = await asyncpg.connect(dsn, timeout=10, command_timeout=30)
    try:
        await connection.execute(f"ALTER TABLE {SCHEMA}.{table} ADD COLUMN later_{number} int NOT NULL DEFAULT 7")
    finally:
        await connection.close(timeout=10)
