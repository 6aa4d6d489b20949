"""A Redis that is out of memory: what an aggregator does to free some goes on, on every Redis at hand."""

from collections.abc import AsyncIterator

import pytest
import redis.asyncio
from redis.exceptions import OutOfMemoryError

from aggregator.leases import Leases
from aggregator.lua import RAISE_FIELDS
from aggregator.shards import shard_count
from contract.streams import COMMIT_KEY, FIELD, TALLIES_KEY, stream_key
from streamgauge.embedded import RedisServer
from tests.consuming import consumer
from tests.fundamentals.test_one_effect import batches
from tests.servers import Servers, redis_binaries


@pytest.fixture(params=list(redis_binaries()))
def redis_server(servers: Servers, request: pytest.FixtureRequest) -> RedisServer:
    version: str = request.param
    return servers.redis(version)


@pytest.fixture
async def full(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A link to a Redis whose limit is set below what it uses; the limit goes at the end."""
    link = redis.asyncio.Redis.from_url(redis_url, protocol=2)
    yield link
    await link.config_set("maxmemory", "0")
    await link.aclose()


async def test_leases_are_taken_and_commits_acknowledged_without_memory(
    dsn: str, redis_url: str, full: redis.asyncio.Redis
) -> None:
    """Only what is acknowledged can be trimmed: if this needed memory, none would ever be freed."""
    async with consumer(dsn, redis_url) as c:
        assert await shard_count(c.link, 2) == 2
        await c.reader.ensure_group()
        await c.send(*batches(3))
        await full.config_set("maxmemory", "100kb")
        with pytest.raises(OutOfMemoryError):
            await full.xadd(stream_key(0), {FIELD: b"one more"})
        assert await shard_count(c.link, 2) == 2
        leases = Leases(c.link, "one", 2, 60.0)
        assert await leases.renew() == await leases.renew() == {0, 1}
        assert await Leases(c.link, "other", 2, 60.0).renew() == set()
        entries = [entry for _ in range(2) for entry in await c.reader.read(10, 0)]
        await c.committer.settle(entries)
        for newest in (7, 5):
            assert await c.reader.note_commit(newest, "1/1")
        assert await full.get(COMMIT_KEY) == b"7"
        for n in (7, 5):
            await full.eval(RAISE_FIELDS, 1, TALLIES_KEY, "a", str(n), "b", "1")
        assert await full.hgetall(TALLIES_KEY) == {b"a": b"7", b"b": b"1"}
        await c.ack(entries)
        assert len(entries) == 3 and await c.pending() == 0
