"""The reader on real Redis servers: what is drained, what was trimmed, what another consumer left behind."""

import pytest

from aggregator.reader import is_drained
from streamgauge.embedded import RedisServer
from tests.consuming import SHARD, consumer
from tests.fundamentals.test_one_effect import batches
from tests.servers import Servers, redis_binaries


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


async def test_group_is_made_from_the_beginning_when_it_is_gone(dsn: str, redis_url: str) -> None:
    """XGROUP DESTROY, or a Redis that lost it: everything retained is read again; the ledger knows it."""
    async with consumer(dsn, redis_url) as c:
        await c.send(*batches(3))
        assert await c.consume() == 3
        await c.link.xgroup_destroy("sg:{00}", "aggregator")
        assert await c.reader.reclaim(10) == []
        assert await c.consume() == 3
        assert await c.one("SELECT committed_events FROM producers") == 15
