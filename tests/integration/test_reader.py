"""The reader on real Redis servers: what is drained, what was trimmed, what another consumer left behind."""

import asyncio
from typing import Any

import pytest

from aggregator.reader import SUSPECT_DELIVERIES, is_drained
from streamgauge.embedded import RedisServer
from tests.consuming import SHARD, consumer
from tests.fundamentals.test_commit_then_ack import until
from tests.fundamentals.test_one_effect import batches
from tests.servers import Servers, redis_binaries

SMALL: dict[str, Any] = {"streamgauge_commit_max_bytes": 1 << 16}


@pytest.fixture(params=list(redis_binaries()))
def redis_server(servers: Servers, request: pytest.FixtureRequest) -> RedisServer:
    """Every Redis at hand: 6.2 and 7.0 tell of deleted entries in different ways."""
    version: str = request.param
    return servers.redis(version)


async def test_stream_is_drained_when_all_of_it_is_acknowledged(dsn: str, redis_url: str) -> None:
    """Neither undelivered nor delivered entries may be left; a stream that is not there has none."""
    async with consumer(dsn, redis_url) as c:
        assert await is_drained(c.link, SHARD)
        await c.send(*batches(2))
        assert not await is_drained(c.link, SHARD)
        entries = await c.read()
        assert not await is_drained(c.link, SHARD)
        await c.ack(entries)
        assert await is_drained(c.link, SHARD)


async def test_deleted_pending_entries_are_found_when_they_are_claimed(dsn: str, redis_url: str) -> None:
    """Their payload is gone: they are named to be counted and acknowledged, never decoded."""
    async with consumer(dsn, redis_url) as first, consumer(dsn, redis_url, "other") as other:
        await first.send(*batches(3))
        entries = await first.read()
        await first.link.xdel("sg:{00}", entries[1].stream_id)
        claimed = await other.reader.reclaim(100)
        assert [e.stream_id for e in claimed] == [entries[0].stream_id, entries[2].stream_id]
        assert other.reader.lost == [entries[1].stream_id]


async def test_all_that_a_dead_one_held_is_taken_over_in_one_go(dsn: str, redis_url: str) -> None:
    """Thousands may have been on their way; a page of them an interval would take minutes."""
    rarely: dict[str, Any] = {"streamgauge_reclaim_interval_s": 3600}
    async with consumer(dsn, redis_url, "dead") as dead, consumer(dsn, redis_url, **rarely) as c:
        await dead.send(*batches(250))
        while await dead.read():
            pass
        assert await c.pending() == 250
        shard = c.shard()
        running = asyncio.create_task(shard.run())
        await until(c, "SELECT coalesce(sum(committed_events), 0) = 1250 FROM producers")
        shard.stop.set()
        await running
        assert await c.pending() == 0


async def test_group_is_made_from_the_beginning_when_it_is_gone(dsn: str, redis_url: str) -> None:
    """XGROUP DESTROY, or a Redis that lost it: everything retained is read again; the ledger knows it."""
    async with consumer(dsn, redis_url) as c:
        await c.send(*batches(3))
        assert await c.consume() == 3
        await c.link.xgroup_destroy("sg:{00}", "aggregator")
        assert await c.reader.reclaim(10) == []
        assert await c.consume() == 3
        assert await c.one("SELECT committed_events FROM producers") == 15


async def test_what_was_delivered_before_comes_by_its_bytes(dsn: str, redis_url: str) -> None:
    """A reply that ended its reader is not asked for again: taken over and read again, it comes in pieces."""
    async with consumer(dsn, redis_url, "dead") as dead, consumer(dsn, redis_url, **SMALL) as c:
        await c.send(*[bytes(20_000)] * 7, bytes(100_000), bytes(20_000))
        assert len(await dead.read()) == 9
        taken = [len(await c.reader.reclaim(100)) for _ in range(5)]
        assert taken == [3, 3, 1, 1, 1], "65 536 bytes hold three; what is longer comes alone"
        c.reader.restart()
        assert [len(await c.reader.read(100, 0)) for _ in range(6)] == [3, 3, 1, 1, 1, 0]


async def test_what_was_delivered_often_is_marked(dsn: str, redis_url: str) -> None:
    """It did not end the process that tried it: it is handled alone, where it may have been too much with others."""
    async with consumer(dsn, redis_url) as c:
        await c.send(*batches(2))
        for _ in range(SUSPECT_DELIVERIES):
            c.reader.restart()
            assert not any(entry.often for entry in await c.read())
        c.reader.restart()
        entries = await c.read()
        assert [entry.often for entry in entries] == [True, True]
        await c.committer.settle(entries)
        assert await c.one("SELECT committed_events FROM producers") == 10
