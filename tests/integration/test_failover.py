"""A check that dies while it restores another database leaves a fence; the next one finishes and lowers it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import pytest

from aggregator import failover
from aggregator.decode import Entry
from aggregator.tallies import keep
from contract.streams import DATABASE_KEY, OWNER_KEY, TALLIES_KEY
from database.admission import register_producers
from database.connect import acquire
from database.hosts import OldTimeline
from database.ledger import Accounting, SetAside, is_stale, quarantine_batch
from tests.batches import make_batch
from tests.consuming import Consumer, consumer
from tests.faults.test_poison import CRASHING, DEADLY
from tests.fundamentals.test_commit_then_ack import until
from tests.fundamentals.test_one_effect import NOW_S
from tests.integration.test_schedule import tallies

OPEN = "SELECT count(*) FROM fences WHERE lowered_at IS NULL"


class Dying:
    """A committer whose server goes away."""

    async def try_out(self, entries: Sequence[Entry], _: object) -> Sequence[Entry]:
        return entries

    async def settle(self, entries: Sequence[Entry]) -> None:
        raise ConnectionError("gone")


async def check(c: Consumer, committer: object) -> None:
    await failover.check(c.link, await c.pool(), [committer], 1, "test")  # type: ignore[list-item]


async def test_a_fence_that_was_left_is_lowered_when_the_restoring_is_done(dsn: str, redis_url: str) -> None:
    async with consumer(dsn, redis_url) as c:
        await c.send(make_batch(bytes(16), 1, counters={b"a_total": (1, 1.0)}, window_s=NOW_S))
        await c.link.set(DATABASE_KEY, b"123/1")
        for _ in range(2):
            with pytest.raises(ConnectionError):
                await check(c, Dying())
        assert await c.one(OPEN) == 2
        await check(c, c.committer)
        assert await c.one(OPEN) == 0
        assert await c.one("SELECT sum(n) FROM totals") == 1
        assert (await c.link.get(DATABASE_KEY)) not in (None, b"123/1")


async def test_counts_that_are_in_no_stream_are_restored(dsn: str, redis_url: str) -> None:
    """Larger ones hold, on both sides; without a change of database nothing is touched."""
    async with consumer(dsn, redis_url) as c:
        pool = await c.pool()
        await pool.execute("INSERT INTO job_tallies VALUES ('audit', 'done', 7), ('upkeep', 'done', 2)")
        async with acquire(pool) as connection:
            await keep(c.link, connection)
        known = {"job/audit/done": 7, "job/upkeep/done": 2}
        assert await tallies(pool) == known
        await c.link.hset(TALLIES_KEY, mapping={"job/audit/done": 5, "job/upkeep/done": 10, "job/audit/failed": 1})
        await c.link.hset(TALLIES_KEY, "payload_gone", 3)
        await check(c, c.committer)
        assert await tallies(pool) == known
        await c.link.set(DATABASE_KEY, b"123/1")
        await check(c, c.committer)
        restored = {"job/audit/done": 7, "job/upkeep/done": 10, "job/audit/failed": 1, "payload_gone": 3}
        assert await tallies(pool) == restored
        async with acquire(pool) as connection:
            await keep(c.link, connection)
        assert {name.decode(): int(n) for name, n in (await c.link.hgetall(TALLIES_KEY)).items()} == restored


async def test_a_count_goes_on_while_redis_is_away(dsn: str, redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with consumer(dsn, redis_url) as c, consumer(dsn, "redis://127.0.0.1:1") as without:
        async with acquire(await c.pool()) as connection:
            await keep(without.link, connection)
        assert "tallies_not_kept" in caplog.text


async def test_a_database_is_restored_though_redis_is_out_of_memory(dsn: str, redis_url: str) -> None:
    """Its mark is written all the same: the check comes to an end, and commits go on."""
    async with consumer(dsn, redis_url) as c:
        await check(c, c.committer)
        await c.send(make_batch(bytes(16), 1, counters={b"a_total": (1, 1.0)}, window_s=NOW_S))
        await c.link.set(DATABASE_KEY, b"123/1")
        await c.link.config_set("maxmemory", "100kb")
        try:
            await check(c, c.committer)
        finally:
            await c.link.config_set("maxmemory", "0")
        assert (await c.link.get(DATABASE_KEY)) not in (None, b"123/1")
        assert await c.one("SELECT sum(n) FROM totals") == 1


async def test_another_database_is_acknowledged_nothing_from_before_this_one_is_restored(
    dsn: str, redis_url: str
) -> None:
    """A former primary that lives on may commit: its entries stay pending, whenever it does."""
    async with consumer(dsn, redis_url) as c:
        await check(c, c.committer)
        old = (await failover.read_commit(await c.pool())).database
        new = failover.Identity(old.system, old.timeline + 1)
        assert await c.reader.note_commit(1, str(old))
        await c.link.set(DATABASE_KEY, b"123/1")
        restored: list[str] = []

        class Asking(Dying):
            async def settle(self, entries: Sequence[Entry]) -> None:
                restored.extend(entry.stream_id for entry in entries)
                assert await c.reader.note_commit(2, str(old)), "it is the one that is being restored"
                assert not await c.reader.note_commit(2, str(new)), "and no other"

        await c.send(make_batch(bytes(16), 1, counters={b"a_total": (1, 1.0)}, window_s=NOW_S))
        await check(c, Asking())
        assert len(restored) == 1


async def test_a_database_that_is_restored_is_known_to_the_one_before_it(dsn: str, redis_url: str) -> None:
    """Half restored or whole: on the older timeline nothing is committed any more, and nothing acknowledged."""
    async with consumer(dsn, redis_url) as c:
        await check(c, c.committer)
        system, timeline = (await failover.read_commit(await c.pool())).database
        await c.link.set(OWNER_KEY, f"{system}/{timeline + 1}")
        with pytest.raises(OldTimeline):
            await check(c, c.committer)
        assert not await c.reader.note_commit(1, f"{system}/{timeline}")
        await c.send(make_batch(bytes(16), 1, counters={b"a_total": (1, 1.0)}, window_s=NOW_S))
        shard = c.shard()
        running = asyncio.create_task(shard.run())
        await until(c, "SELECT coalesce(sum(n), 0) = 1 FROM totals")
        await until(c, "SELECT coalesce(sum(duplicates), 0) > 0 FROM producers")
        assert await c.pending() == 1
        await c.link.delete(OWNER_KEY)
        shard.stop.set()
        await running
        assert await c.pending() == 0


async def test_entry_that_ends_its_decoder_is_found_by_the_restoring_that_comes_after(
    dsn: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one dies of it, and leaves a fence that tells so."""
    (tmp_path / "sitecustomize.py").write_text(CRASHING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with consumer(dsn, redis_url) as c:
        good = [make_batch(bytes(16), n, counters={b"a_total": (1, 1.0)}, window_s=NOW_S, accepted=n) for n in (1, 2)]
        await c.send(good[0], DEADLY, good[1])
        await c.link.set(DATABASE_KEY, b"123/1")
        with pytest.raises(ConnectionError):
            await check(c, Dying())
        await check(c, c.committer)
        assert await c.rows("SELECT reason, payload FROM quarantine") == [{"reason": "crashed", "payload": DEADLY}]
        assert await c.one("SELECT sum(n) FROM totals") == 2


async def test_a_lane_whose_clock_was_not_measured_is_no_lane(dsn: str, redis_url: str) -> None:
    """Good data would look as if it came from the future, wherever the clocks differ."""
    async with consumer(dsn.replace("/sg_", "/no_such_sg_"), redis_url) as c:
        for _ in range(2):
            with pytest.raises(Exception, match="does not exist"):
                await c.lanes.main()
        assert c.lanes.open_lanes() == []


async def test_a_fence_that_was_left_on_a_whole_database_is_lowered(dsn: str, redis_url: str) -> None:
    """Two checks at once: one is through, and the other one, that had found the same, raises its fence and dies."""
    async with consumer(dsn, redis_url) as c:
        await check(c, c.committer)
        await c.one("INSERT INTO fences (reason, raised_by) VALUES ('late', 'dead') RETURNING fence_id")
        await check(c, c.committer)
        assert await c.one(OPEN) == 0


async def test_a_producers_number_of_before_a_failover_is_nobody_elses(dsn: str, redis_url: str) -> None:
    """Looked up before it: the database that took over has given it to another producer."""
    async with consumer(dsn, redis_url) as c:
        pool = await c.pool()
        ids = (bytes(16), b"other".ljust(16, b"\0"))
        (mine, other) = [(await register_producers(pool, {i: ("test", 0)}))[i].producer_no for i in ids]
        entry = SetAside(0, "1-1", "malformed", "", ids[0], 1, 5, b"payload")
        with pytest.raises(asyncpg.PostgresError) as refused:
            await quarantine_batch(pool, entry, Accounting(other, 7, None, None, 0, None, {}))
        assert is_stale(refused.value)
        assert await c.one("SELECT count(*) FROM quarantine") == 0
        assert await quarantine_batch(pool, entry, Accounting(mine, 7, None, None, 0, None, {}))
