"""Cache lifetimes: measured, changed one at a time through Redis, and taken back when that was bad."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisAway

from contract.series import series_key
from contract.streams import CACHE_TTL_KEY
from database import cache_samples as names
from database import partitions
from database.connect import Pool, acquire, open_pool
from database.rows import Rows, write
from database.settings import read_settings
from database.sketches import buckets_of, count_entries, encode_rows
from optimizers import cache_ttl_optimizer
from optimizers.job import Outcome, Result, Run
from optimizers.settings import OptimizerSettings
from producers.cache import Cache
from producers.cache_lifetimes import Lifetimes
from producers.metrics import Registry
from producers.settings import Settings
from tests.exporting import Writer, exporter, scrape, writer

MINUTES = 60
OFF: dict[str, str] = {}
ON = {"STREAMGAUGE_CACHE_TTL_APPLY": "true"}


class Pace(NamedTuple):
    """What caches of a class do in a minute; without arguments they miss every other time."""

    hits: int = 40
    misses: int = 40
    cost_s: float = 0.1
    age_s: float = 55.0


@pytest.fixture
async def pool(dsn: str) -> AsyncGenerator[Pool, None]:
    found = await open_pool(read_settings(OptimizerSettings, {"POSTGRES_DSN": dsn}))
    yield found
    await found.close()


@pytest.fixture
async def redis(redis_url: str) -> AsyncGenerator[Any, None]:
    link = Redis.from_url(redis_url, decode_responses=True, socket_timeout=10)
    yield link
    await link.aclose()


class Caches:
    """What caches would have sent, written as minutes."""

    def __init__(self, pool: Pool, w: Writer) -> None:
        self.pool, self.writer = pool, w
        self.metrics: dict[str, int] = {}
        self.series: dict[str, int] = {}

    async def _series(self, name: str, kind: int, labels: dict[str, str]) -> int:
        key = series_key(name, sorted(labels.items())).decode()
        if name not in self.metrics:
            self.metrics[name] = await self.writer.metric(name, kind)
        if key not in self.series:
            self.series[key] = await self.writer.series(self.metrics[name], key)
        return self.series[key]

    async def say(self, key_class: str, ttl_s: float, at: datetime) -> None:
        """Set the gauge of its lifetime."""
        series = await self._series(names.LIFETIME, 2, {names.LABEL: key_class})
        await self.writer.gauge(series, 1, ttl_s, int(at.timestamp() * 1000))

    async def say_memory(self, key_class: str, used: float, limit: float, at: datetime) -> None:
        """Set the gauges of its Redis."""
        for name, value in ((names.USED, used), (names.LIMIT, limit)):
            series = await self._series(name, 2, {names.LABEL: key_class})
            await self.writer.gauge(series, 1, value, int(at.timestamp() * 1000))

    async def hour(self, key_class: str, to: datetime, pace: Pace) -> None:
        """Write the hour before `to`: so much in every minute, no value changed."""
        at = int(to.timestamp()) // 60 * 60 - 60 * np.arange(MINUTES, 0, -1, dtype=np.int64)
        of = {names.LABEL: key_class}
        counters: tuple[tuple[str, dict[str, str], int], ...] = (
            (names.LOOKUPS, {"result": "hit"}, pace.hits),
            (names.LOOKUPS, {"result": "miss"}, pace.misses),
            (names.FILLS, {"changed": "no"}, pace.misses),
            (names.BYTES, {}, pace.misses * 100),
        )
        pieces = [_counter(at, await self._series(name, 1, of | label), value) for name, label, value in counters]
        recompute = await self._series(names.RECOMPUTE, 3, of)
        pieces.append(_histogram(at, recompute, [pace.cost_s] * pace.misses))
        pieces.append(_histogram(at, await self._series(names.AGE, 3, of), [pace.age_s] * pace.hits))
        async with acquire(self.pool) as connection:
            await partitions.ensure(connection, np.unique(at // 3600 * 3600).tolist())
            for rows in pieces:
                await write(connection, "rollup_1m", rows)


def _counter(at: Any, series: int, value: int) -> Rows:
    nan, alike = np.full(len(at), np.nan), np.full(len(at), series, dtype=np.int64)
    return Rows(
        at,
        alike,
        np.zeros_like(at),
        np.full(len(at), value, dtype=np.int64),
        np.full(len(at), float(value)),
        nan,
        nan,
        nan,
        np.full(len(at), -1, dtype=np.int64),
        np.empty(0, dtype=np.uint8),
    )


def _histogram(at: Any, series: int, values: list[float]) -> Rows:
    n = len(values)
    row = np.repeat(np.arange(len(at)), n)
    lengths, packed = encode_rows(count_entries(row, buckets_of(np.tile(np.array(values), len(at)))), len(at))
    alike = np.full(len(at), series, dtype=np.int64)
    sums, ends = np.full(len(at), sum(values)), np.full(len(at), values[0])
    counts = np.full(len(at), n, dtype=np.int64)
    return Rows(at, alike, np.zeros_like(at), counts, sums, ends, ends, np.full(len(at), np.nan), lengths, packed)


@pytest.fixture
async def caches(dsn: str, pool: Pool) -> AsyncGenerator[Caches, None]:
    async with writer(dsn) as w:
        yield Caches(pool, w)


class Cycles:
    """Runs of the job."""

    def __init__(self, dsn: str, redis_url: str, pool: Pool) -> None:
        self.environ, self.pool = {"POSTGRES_DSN": dsn, "REDIS_URL": redis_url}, pool

    async def run(self, slot: datetime, extra: Mapping[str, str]) -> Result:
        settings = read_settings(OptimizerSettings, {**self.environ, **extra})
        return await cache_ttl_optimizer.run_cycle(Run(self.pool, settings, slot))

    async def recommendations(self) -> list[dict[str, Any]]:
        query = "SELECT target, current, proposed, state, evidence FROM recommendations WHERE kind = 'cache_ttl'"
        async with acquire(self.pool) as connection:
            rows = await connection.fetch(query + " ORDER BY id")
        return [{**dict(row), "evidence": json.loads(row["evidence"])} for row in rows]

    async def states(self) -> list[tuple[str, str]]:
        return [(one["target"], one["state"]) for one in await self.recommendations()]


@pytest.fixture
def cycles(dsn: str, redis_url: str, pool: Pool) -> Cycles:
    return Cycles(dsn, redis_url, pool)


async def later(pool: Pool, hours: int) -> datetime:
    """Return a slot by the clock of the database, `hours` ahead."""
    async with acquire(pool) as connection:
        now: datetime = await connection.fetchval("SELECT now()")
    return now.astimezone(UTC) + timedelta(hours=hours)


def measured_to(slot: datetime) -> datetime:
    return slot - timedelta(seconds=cache_ttl_optimizer.SETTLE_S)


async def two_classes(caches: Caches, slot: datetime) -> None:
    """Both miss too often; recomputing `posts` costs more."""
    for key_class, cost_s in (("posts", 0.1), ("users", 0.01)):
        await caches.say(key_class, 60.0, slot)
        await caches.hour(key_class, measured_to(slot), Pace(cost_s=cost_s))


async def test_one_class_is_changed_and_taken_back_when_recomputing_rose(
    caches: Caches, cycles: Cycles, redis: Any, pool: Pool
) -> None:
    first = await later(pool, 0)
    await two_classes(caches, first)
    result = await cycles.run(first, ON)
    assert result.outcome is Outcome.DONE
    assert result.facts["change"] == {"class": "posts", "before_s": 60.0, "after_s": pytest.approx(66, rel=0.02)}
    assert await cycles.states() == [("posts", "applied"), ("users", "proposed")]
    held = await redis.hgetall(CACHE_TTL_KEY)
    assert list(held) == ["posts"]
    assert float(held["posts"]) == pytest.approx(result.facts["change"]["after_s"], rel=1e-5)

    second = await later(pool, 6)
    await caches.say("posts", float(held["posts"]), second)
    await caches.hour("posts", measured_to(second), Pace(cost_s=0.13))
    result = await cycles.run(second, ON)
    assert "posts taken back: recomputing rose from 0.0667 to 0.0867 s per second" in result.detail
    assert await redis.hgetall(CACHE_TTL_KEY) == {}
    posts, users = await cycles.recommendations()
    assert (posts["state"], users["state"]) == ("undone", "proposed")
    assert (posts["evidence"]["lifetime_before_s"], posts["current"]) == (60.0, "60 s")
    assert posts["evidence"]["recompute_seconds_per_second_after"] == pytest.approx(0.13 * 40 / 60)

    third = await later(pool, 12)
    await caches.say("posts", 60.0, third)
    await caches.hour("posts", measured_to(third), Pace())
    assert "1 held" in (await cycles.run(third, ON)).detail, "a change that was bad is not made again at once"


async def test_a_good_change_stands_and_the_next_one_replaces_it(
    caches: Caches, cycles: Cycles, redis: Any, pool: Pool
) -> None:
    first = await later(pool, 0)
    await caches.say("posts", 60.0, first)
    await caches.hour("posts", measured_to(first), Pace())
    await cycles.run(first, ON)
    lifetimes = [float(await redis.hget(CACHE_TTL_KEY, "posts"))]
    for number, cost_s in enumerate((0.1, 0.2), 1):
        slot = await later(pool, 6 * number)
        await caches.say("posts", lifetimes[-1], slot)
        await caches.hour("posts", measured_to(slot), Pace(cost_s=cost_s, age_s=1000.0))
        await cycles.run(slot, ON)
        lifetimes.append(float(await redis.hget(CACHE_TTL_KEY, "posts")))
    assert lifetimes[1] == pytest.approx(lifetimes[0] * 1.33, rel=1e-4)
    assert lifetimes[2] == lifetimes[0], "the second change was bad: back to what the first one set"
    assert await cycles.states() == [("posts", "applied"), ("posts", "undone")]


async def test_a_slot_begun_again_after_a_crash_changes_nothing_twice(
    caches: Caches, cycles: Cycles, redis: Any, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = await later(pool, 0)
    await two_classes(caches, slot)

    async def away(*_: Any) -> list[str]:
        raise RedisAway("cut")

    with monkeypatch.context() as patch:
        patch.setattr(cache_ttl_optimizer, "publish", away)
        with pytest.raises(RedisAway):
            await cycles.run(slot, ON)
    assert await redis.hgetall(CACHE_TTL_KEY) == {}
    again = await cycles.run(slot, ON)
    held = await redis.hgetall(CACHE_TTL_KEY)
    assert float(held["posts"]) == pytest.approx(again.facts["change"]["after_s"], rel=1e-5)
    assert await cycles.run(slot, ON) == again
    assert await redis.hgetall(CACHE_TTL_KEY) == held
    assert await cycles.states() == [("posts", "applied"), ("users", "proposed")]


async def test_without_leave_to_apply_nothing_is_written_to_redis(
    caches: Caches, cycles: Cycles, redis: Any, pool: Pool
) -> None:
    slot = await later(pool, 0)
    await two_classes(caches, slot)
    result = await cycles.run(slot, OFF)
    assert "proposed, STREAMGAUGE_CACHE_TTL_APPLY is off" in result.detail
    assert await cycles.states() == [("posts", "proposed"), ("users", "proposed")]
    assert await redis.keys("*") == []


async def test_switched_off_it_gives_back_what_it_set_and_nothing_else(
    caches: Caches, cycles: Cycles, redis: Any, pool: Pool
) -> None:
    slot = await later(pool, 0)
    await two_classes(caches, slot)
    await cycles.run(slot, ON)
    await redis.hset(CACHE_TTL_KEY, "by-hand", "5")
    result = await cycles.run(await later(pool, 0), OFF)
    assert result.outcome is Outcome.DONE
    assert "posts has its own lifetime again: STREAMGAUGE_CACHE_TTL_APPLY is off" in result.detail
    assert await redis.hgetall(CACHE_TTL_KEY) == {"by-hand": "5"}
    assert await cycles.states() == [("posts", "undone"), ("users", "proposed")]


async def test_too_little_is_said_and_changes_nothing(caches: Caches, cycles: Cycles, redis: Any, pool: Pool) -> None:
    slot = await later(pool, 0)
    nothing = await cycles.run(slot, ON)
    assert nothing.outcome is Outcome.INSUFFICIENT_DATA
    assert (
        nothing.detail
        == "insufficient data: no look-ups of cached keys; the newest 2 minutes are left to the next cycle"
    )
    slot = await later(pool, 1)
    await caches.say("posts", 60.0, slot)
    await caches.hour("posts", measured_to(slot), Pace(5, 5))
    few = await cycles.run(slot, ON)
    assert few.detail == "insufficient data: posts: 590 look-ups, 1,000 needed", (
        "the minute it began in is a part of one"
    )
    assert await redis.keys("*") == []


async def test_a_lifetime_that_redis_lost_is_set_again(caches: Caches, cycles: Cycles, redis: Any, pool: Pool) -> None:
    """Caches that do not follow are said, and not judged."""
    slot = await later(pool, 0)
    await two_classes(caches, slot)
    await cycles.run(slot, ON)
    held = await redis.hgetall(CACHE_TTL_KEY)
    await redis.delete(CACHE_TTL_KEY)
    slot = await later(pool, 6)
    await caches.hour("posts", measured_to(slot), Pace(cost_s=9.0))
    result = await cycles.run(slot, ON)
    assert "1 unheard" in result.detail
    assert await redis.hgetall(CACHE_TTL_KEY) == held


async def test_short_of_memory_the_class_that_saves_least_per_byte_is_shortened(
    caches: Caches, cycles: Cycles, redis: Any, pool: Pool
) -> None:
    """By what the caches say of their own Redis: the one of the streams may be as full or as empty as it likes."""
    slot = await later(pool, 0)
    await two_classes(caches, slot)
    for key_class in ("posts", "users"):
        await caches.say_memory(key_class, 81, 100, slot - timedelta(minutes=3))
    result = await cycles.run(slot, OFF)
    assert result.facts["change"] == {"class": "users", "before_s": 60.0, "after_s": 45.0}
    assert "for memory" in result.detail


@pytest.mark.parametrize(("share", "minutes_ago"), [(0.8, 3), (0.99, 15)], ids=["room enough", "said too long ago"])
async def test_a_full_redis_of_the_streams_shortens_no_lifetime(
    caches: Caches, cycles: Cycles, redis: Any, pool: Pool, share: float, minutes_ago: int
) -> None:
    slot = await later(pool, 0)
    await two_classes(caches, slot)
    for key_class in ("posts", "users"):
        await caches.say_memory(key_class, share * 100, 100, slot - timedelta(minutes=minutes_ago))
    used = (await redis.info("memory"))["used_memory"]
    before = (await redis.config_get("maxmemory"))["maxmemory"]
    await redis.config_set("maxmemory", int(used * 1.15))
    try:
        result = await cycles.run(slot, OFF)
    finally:
        await redis.config_set("maxmemory", before)
    assert result.facts["change"]["class"] == "posts"
    assert ("is not known" in result.detail) == (minutes_ago == 15)


async def test_a_cache_follows_what_the_job_publishes_and_says_so(
    caches: Caches, cycles: Cycles, redis_url: str, pool: Pool
) -> None:
    """From the judged minutes to the lifetime of the next value that is kept."""
    slot = await later(pool, 0)
    await two_classes(caches, slot)
    async with Redis.from_url(redis_url.replace("/0", "/1"), protocol=2, socket_timeout=5) as client:
        settings = Settings(redis_url=redis_url, cache_ttl_apply=True)
        cache = Cache(client, "app", settings=settings, registry=Registry())
        cache.lifetimes = Lifetimes(settings, interval_s=0.02)
        posts, users = cache.key_class("posts", 60.0), cache.key_class("users", 60.0)
        await cache.open()
        try:
            result = await cycles.run(slot, ON)
            wanted_s = result.facts["change"]["after_s"]
            async with asyncio.timeout(20):
                while posts.lifetime_s == 60:  # noqa: ASYNC110 - it is read in the background
                    await asyncio.sleep(0.01)
            assert (posts.lifetime_s, users.lifetime_s) == (pytest.approx(wanted_s), 60)
            assert cache.metrics.ttl.labels("posts").values[-1] == posts.lifetime_s
            await posts.get_or_compute("a", computed)
            kept_s = await client.pttl("app:cache1:posts:a") / 1000
            assert 0.9 * wanted_s - 1 <= kept_s <= 1.1 * wanted_s
        finally:
            await cache.aclose()


async def computed() -> bytes:
    return b"value"


async def test_the_lifetimes_are_shown(caches: Caches, cycles: Cycles, dsn: str, redis_url: str, pool: Pool) -> None:
    slot = await later(pool, 0)
    await two_classes(caches, slot)
    await cycles.run(slot, ON)
    async with exporter(dsn, redis_url) as client:
        shown = (await client.get("/metrics/performance")).json()
        seen = await scrape(client)
        page = (await client.get("/")).text
    said = {one["signal"]: one["status"] for one in shown["signals"]}
    assert said["cache_ttl"] == "warn"
    of = {one["target"]: one for one in shown["recommendations"]}
    assert (of["posts"]["state"], of["users"]["state"]) == ("applied", "proposed")
    assert "hit ratio 50.0% -> about 52" in of["posts"]["expected_effect"]
    assert seen['streamgauge_cache_ttl_seconds{key_class="posts",what="current"}'] == 60
    assert seen['streamgauge_cache_ttl_seconds{key_class="posts",what="applied"}'] == pytest.approx(66, rel=0.02)
    assert seen['streamgauge_cache_ttl_seconds{key_class="users",what="proposed"}'] == pytest.approx(66, rel=0.02)
    assert 'streamgauge_cache_ttl_seconds{key_class="posts",what="proposed"}' not in seen
    assert "lifetime was 60 s, now 66" in page
    assert "lifetime now 60 s, better 66" in page
