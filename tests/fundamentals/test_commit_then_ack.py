"""I3: XACK follows a COMMIT whose tag was seen to be COMMIT."""

import asyncio

import asyncpg
import pytest

from database.connect import NotCommitted, acquire, commit
from streamgauge.processes import POLL_S
from tests.consuming import Consumer, consumer
from tests.fundamentals.test_one_effect import batches

FAIL_AT_COMMIT = """
CREATE FUNCTION fail_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'the disk is full' USING ERRCODE = '53100'; END $$;
CREATE CONSTRAINT TRIGGER fail_at_commit AFTER INSERT ON commits DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION fail_at_commit();
"""


async def until(c: Consumer, query: str) -> None:
    """Wait until a query is true."""
    for _ in range(1500):
        if await c.one(query):
            return
        await asyncio.sleep(POLL_S)
    raise AssertionError(f"never true: {query}")


async def test_commit_answered_with_rollback_is_an_error(dsn: str, redis_url: str) -> None:
    """PostgreSQL answers ROLLBACK, without an error, when an error inside the transaction was swallowed."""
    async with consumer(dsn, redis_url) as c, acquire(await c.pool()) as connection:
        await connection.execute("BEGIN")
        with pytest.raises(asyncpg.UndefinedTableError):
            await connection.execute("INSERT INTO no_such_table VALUES (1)")
        with pytest.raises(NotCommitted, match="ROLLBACK"):
            await commit(connection)


async def test_nothing_is_acknowledged_while_commit_fails(dsn: str, redis_url: str) -> None:
    """The running pipeline keeps its entries pending, and applies them once when COMMIT works again."""
    async with consumer(dsn, redis_url, streamgauge_commit_interval_s=0.01) as c:
        await c.send(*batches(3))
        await (await c.pool()).execute(FAIL_AT_COMMIT)
        shard = c.shard()
        running = asyncio.create_task(shard.run())
        # A sequence is not rolled back: it tells how often a commit was tried.
        await until(c, "SELECT coalesce(pg_sequence_last_value('commits_commit_id_seq'), 0) >= 2")
        assert await c.pending() == 3
        assert await c.one("SELECT count(*) FROM totals") == 0
        await (await c.pool()).execute("DROP TRIGGER fail_at_commit ON commits")
        await until(c, "SELECT coalesce(sum(committed_events), 0) = 15 FROM producers")
        shard.stop.set()
        await running
        assert await c.pending() == 0
        assert await c.one("SELECT sum(n) FROM totals") == 15


async def test_acknowledging_a_duplicate_waits_for_a_write_of_its_own(dsn: str, redis_url: str) -> None:
    """Without one its COMMIT would not wait for a standby, and a failover could lose what was acknowledged."""
    row = "SELECT xmin::text || '/' || duplicates FROM producers"
    async with consumer(dsn, redis_url) as c:
        (batch,) = batches(1)
        await c.send(batch)
        await c.consume()
        before = await c.one(row)
        await c.send(batch)
        await c.consume()
        assert await c.one(row) != before
        assert await c.one("SELECT count(*) FROM commits") == 2


async def test_lone_batch_is_committed_at_once_and_those_behind_it_together(dsn: str, redis_url: str) -> None:
    """The interval is counted from the last commit's entries on, not from the first entry of the next."""
    async with consumer(dsn, redis_url, streamgauge_commit_interval_s=60) as c:
        first, *rest = batches(3)
        shard = c.shard()
        running = asyncio.create_task(shard.run())
        await c.send(first)
        await until(c, "SELECT count(*) = 1 FROM commits")
        for batch in rest:
            await c.send(batch)
        shard.stop.set()
        await running
        assert await c.one("SELECT count(*) FROM commits") == 2
        assert await c.one("SELECT sum(committed_events) FROM producers") == 15
