"""Leases on every Redis at hand: who has which shard, also after the clock of Redis was set back."""

import pytest

from aggregator.leases import Leases
from contract.streams import AGGREGATORS_KEY, lease_key
from database.redis_link import Link, open_link
from database.settings import RedisSettings
from streamgauge.embedded import RedisServer
from tests.servers import Servers, redis_binaries

HOUR_MS = 3_600_000
LIFETIME_S = 10.0


@pytest.fixture(params=list(redis_binaries()))
def redis_server(servers: Servers, request: pytest.FixtureRequest) -> RedisServer:
    version: str = request.param
    return servers.redis(version)


def link_to(redis_url: str) -> Link:
    return open_link(RedisSettings.model_validate({"redis_url": redis_url}))


async def test_two_share_the_shards_and_one_that_signs_off_leaves_its_own(redis_url: str) -> None:
    link = link_to(redis_url)
    one, other = (Leases(link, name, 2, LIFETIME_S) for name in ("one", "other"))
    assert await one.renew() == {0, 1}
    assert await other.renew() == set()
    assert len(await one.renew()) == 1
    assert await one.renew() | await other.renew() == {0, 1}
    await one.sign_off()
    assert await other.renew() == {0, 1}
    await link.aclose()


async def test_dead_ones_lease_and_beat_end_though_the_clock_was_set_back(redis_url: str) -> None:
    """Both were given by a clock that was an hour ahead: they would live on for as long as it was set back."""
    link = link_to(redis_url)
    seconds, _ = await link.time()
    for shard in range(2):
        await link.set(lease_key(shard), "dead", px=HOUR_MS + int(LIFETIME_S * 1000))
    await link.zadd(AGGREGATORS_KEY, {"dead": int(seconds) * 1000 + HOUR_MS})
    assert await Leases(link, "one", 2, LIFETIME_S).renew() == {0, 1}
    assert await link.zrange(AGGREGATORS_KEY, 0, -1) == [b"one"]
    await link.aclose()
