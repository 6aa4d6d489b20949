"""Cache on a real Redis: computed once, lifetimes that are set hold, and a Redis that is killed fails nobody."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
import redis.asyncio as redis

from contract.streams import CACHE_TTL_KEY
from producers.cache import Cache
from producers.cache_lifetimes import Lifetimes
from producers.cache_memory import MemoryWatch
from producers.metrics import Registry
from producers.settings import Settings
from streamgauge.embedded import RedisServer
from streamgauge.processes import free_port, start, stop

KEY = "app:cache1:thing:a"


class Source:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.times = 0

    async def __call__(self) -> bytes:
        self.times += 1
        await asyncio.sleep(0)
        return b"value\xff"


@pytest.fixture
async def client(redis_url: str) -> AsyncGenerator[redis.Redis, None]:
    """The application's client, of another database than the streams'."""
    async with redis.Redis.from_url(redis_url.replace("/0", "/1"), protocol=2, socket_timeout=5) as found:
        await found.flushdb()
        yield found


@pytest.fixture
async def streams(redis_url: str) -> AsyncGenerator[redis.Redis, None]:
    """A client of the streams' Redis."""
    async with redis.Redis.from_url(redis_url, protocol=2, socket_timeout=5) as found:
        yield found


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not claim():  # noqa: ASYNC110 - nothing notifies
            await asyncio.sleep(0.01)


def new_cache(client: redis.Redis, settings: Settings | None = None) -> Cache:
    settings = settings or Settings()
    # Longer than the half second of an application: a busy machine is not a Redis that is away.
    cache = Cache(client, "app", settings=settings, deadline_s=5.0, registry=Registry())
    cache.lifetimes = Lifetimes(settings, interval_s=0.02)
    return cache


async def test_a_hundred_who_miss_at_once_compute_once_and_others_find_it(client: redis.Redis) -> None:
    ours, theirs, source = new_cache(client), new_cache(client), Source()
    thing = ours.key_class("thing", 60.0)
    found = await asyncio.gather(*(thing.get_or_compute("a", source) for _ in range(100)))
    assert set(found) == {b"value\xff"}
    assert source.times == 1
    assert 53_000 < await client.pttl(KEY) <= 66_000
    assert await theirs.key_class("thing", 60.0).get_or_compute("a", source) == b"value\xff"
    assert source.times == 1


async def test_a_lifetime_that_is_set_holds_until_it_is_removed(
    client: redis.Redis, streams: redis.Redis, redis_url: str
) -> None:
    cache = new_cache(client, Settings(redis_url=redis_url, cache_ttl_apply=True))
    thing, other = cache.key_class("thing", 60.0, max_ttl_s=600.0), cache.key_class("other", 30.0)
    await cache.open()
    try:
        await streams.hset(CACHE_TTL_KEY, mapping={"thing": "90", "somebody": "5"})
        await until(lambda: thing.lifetime_s == 90)
        assert other.lifetime_s == 30
        await thing.get_or_compute("a", Source())
        assert 80_000 < await client.pttl(KEY) <= 99_000
        await streams.hset(CACHE_TTL_KEY, "thing", "7000.5")
        await until(lambda: thing.lifetime_s == 600)
        for nonsense in ("soon", "-1", "nan", "inf", ""):
            await streams.hset(CACHE_TTL_KEY, "thing", "90")
            await until(lambda: thing.lifetime_s == 90)
            await streams.hset(CACHE_TTL_KEY, "thing", nonsense)
            await until(lambda: thing.lifetime_s == 60)
        await streams.hset(CACHE_TTL_KEY, "thing", "90")
        await until(lambda: thing.lifetime_s == 90)
        await streams.delete(CACHE_TTL_KEY)
        await until(lambda: thing.lifetime_s == 60)
    finally:
        await cache.aclose()


async def test_without_the_setting_nothing_is_followed(client: redis.Redis, redis_url: str) -> None:
    cache = new_cache(client, Settings(redis_url=redis_url))
    before = asyncio.all_tasks()
    await cache.open()
    assert [task.get_name() for task in asyncio.all_tasks() - before] == ["streamgauge - cache memory"]
    await cache.aclose()
    assert asyncio.all_tasks() == before


def told(cache: Cache) -> tuple[float, float] | None:
    """What a cache emitted last of its Redis: used, allowed."""
    used, limit = (gauge.labels("thing").values for gauge in (cache.metrics.used, cache.metrics.limit))
    return (float(used[-1]), float(limit[-1])) if used and limit else None


async def test_how_full_the_redis_of_a_cache_is_is_told_of_its_own_server(client: redis.Redis, tmp_path: Path) -> None:
    """Not of the streams'."""
    other = RedisServer(tmp_path / "cache")
    other.open()
    try:
        async with redis.Redis.from_url(other.url, protocol=2, socket_timeout=5) as of_cache:
            await of_cache.config_set("maxmemory", 77 << 20)
            cache = new_cache(of_cache)
            cache.key_class("thing", 60.0)
            await cache.open()
            try:
                await until(lambda: told(cache) is not None)
                used, limit = told(cache) or (0, 0)
                assert (limit, 0 < used < limit) == (77 << 20, True)
                assert (await client.info("memory"))["maxmemory"] != limit
            finally:
                await cache.aclose()
    finally:
        other.close()


async def test_a_redis_that_may_not_be_asked_for_its_memory_is_unknown_and_said_once(
    client: redis.Redis, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await client.acl_setuser("blind", enabled=True, nopass=True, keys=["*"], commands=["+get", "+set", "+ping"])
    user = redis.Redis.from_url(redis_url.replace("://", "://blind:x@"), protocol=2, socket_timeout=5)
    try:
        cache = new_cache(user)
        cache.memory = MemoryWatch(user, interval_s=0.01)
        thing = cache.key_class("thing", 60.0)
        await cache.open()
        assert await thing.get_or_compute("a", Source()) == b"value\xff"
        await until(lambda: "cache_memory_unread" in caplog.text)
        await cache.aclose()
        assert told(cache) is None
        assert sum("cache_memory_unread" in record.getMessage() for record in caplog.records) == 1
    finally:
        await user.aclose()
        await client.acl_deluser("blind")


async def test_a_killed_redis_fails_nobody_and_the_last_lifetime_holds(redis_server: RedisServer) -> None:
    settings = Settings(redis_url=redis_server.url, cache_ttl_apply=True)
    async with redis.Redis.from_url(redis_server.url, protocol=2, socket_timeout=5) as client:
        await client.flushall()
        await client.hset(CACHE_TTL_KEY, "thing", "90")
        cache, source = new_cache(client, settings), Source()
        thing = cache.key_class("thing", 60.0)
        await cache.open()
        await until(lambda: thing.lifetime_s == 90)
        assert await thing.get_or_compute("a", source) == b"value\xff"
        redis_server.kill()
        try:
            async with asyncio.timeout(5):
                found = [await thing.get_or_compute("a", source) for _ in range(20)]
            assert found == [b"value\xff"] * 20
            assert source.times == 21
            assert thing.lifetime_s == 90
        finally:
            redis_server.open()
        async with asyncio.timeout(20):
            while await client.exists("app:cache1:thing:b") == 0:
                await thing.get_or_compute("b", source)
        times = source.times
        await thing.get_or_compute("b", source)
        assert source.times == times
        await cache.aclose()


async def test_lifetimes_are_not_waited_for(client: redis.Redis) -> None:
    # The streams' Redis is nobody's port; the cache's own is well.
    away = Settings(redis_url=f"redis://127.0.0.1:{free_port()}/0", cache_ttl_apply=True)
    cache, source = new_cache(client, away), Source()
    thing = cache.key_class("thing", 60.0)
    await cache.open()
    for _ in range(3):
        await thing.get_or_compute("a", source)
    assert source.times == 1
    assert thing.lifetime_s == 60
    await cache.aclose()


async def test_lifetimes_are_read_from_the_master_that_sentinels_name(
    client: redis.Redis, streams: redis.Redis, redis_server: RedisServer, tmp_path: Path
) -> None:
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f"port {(port := free_port())}\nbind 127.0.0.1\ndir {tmp_path}\n"
        f"sentinel monitor m 127.0.0.1 {redis_server.port} 1\n"
    )
    process = start(("redis-sentinel", str(config)), tmp_path / "sentinel.log")
    url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{port}/m"
    cache = new_cache(client, Settings(redis_url=url, cache_ttl_apply=True))
    thing = cache.key_class("thing", 60.0)
    try:
        await streams.hset(CACHE_TTL_KEY, "thing", "90")
        await cache.open()
        await until(lambda: thing.lifetime_s == 90)
    finally:
        await cache.aclose()
        stop(process, signal.SIGKILL, 10)
