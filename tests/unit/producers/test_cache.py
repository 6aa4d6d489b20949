"""Cache: one computation a key, early refresh, jitter, measures, and a Redis that is away, slow or holds nonsense."""

import asyncio
from collections import Counter as Counts
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisAway
from redis.exceptions import ResponseError

from producers import cache as module
from producers import default_client
from producers.cache import Cache, KeyClass
from producers.cache_lifetimes import Lifetimes
from producers.cache_store import PAUSE_S, Store, Unanswered
from producers.metrics import Registry, set_default
from producers.settings import Settings


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class FakeRedis:
    """GET and SET PX on a clock; `trouble` is raised, `gate` is waited for."""

    def __init__(self, clock: Clock) -> None:
        self.connection_pool = SimpleNamespace(connection_kwargs={})
        self.clock = clock
        self.kept: dict[str, tuple[bytes, float]] = {}
        self.lifetimes_s: list[float] = []
        self.trouble: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.asked = 0

    async def get(self, key: str) -> bytes | None:
        await self._answer()
        data, end_s = self.kept.get(key, (None, 0.0))
        return data if self.clock() < end_s else None

    async def set(self, key: str, data: bytes, px: int) -> None:
        await self._answer()
        self.lifetimes_s.append(px / 1000)
        self.kept[key] = (data, self.clock() + px / 1000)

    async def _answer(self) -> None:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.trouble is not None:
            raise self.trouble


class Source:
    """What a class of keys is computed from."""

    def __init__(self) -> None:
        self.value = b"one"
        self.times = 0
        self.gate: asyncio.Event | None = None
        self.trouble: Exception | None = None

    async def __call__(self) -> bytes:
        self.times += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.trouble is not None:
            raise self.trouble
        return self.value


class Rig:
    """A cache on a fake Redis; `rand` answers 0.5 (no jitter, seldom early) until told otherwise."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.clock = Clock()
        self.redis = FakeRedis(self.clock)
        self.source = Source()
        self.rand = 0.5
        self.cache = Cache(
            cast("Redis", self.redis),
            "app",
            settings=Settings(),
            deadline_s=0.05,
            registry=registry,
            now=self.clock,
            rand=lambda: self.rand,
        )
        self.thing = self.cache.key_class("thing", 60.0, max_ttl_s=3600.0)

    def get(self, key: str = "a") -> Awaitable[bytes]:
        return self.thing.get_or_compute(key, self.source)

    def counts(self, name: str) -> Counts[str]:
        """Return the sums of a counter by its last label that is not the key class."""
        found: Counts[str] = Counts()
        for child in self.registry.children:
            if child.metric.name == name:
                label = child.key.decode().replace('key_class="thing"', "").strip("{},").split('"')
                found[label[1] if len(label) > 1 else ""] += int(sum(child.values))
        return found

    def values(self, name: str) -> list[float]:
        return [v for child in self.registry.children if child.metric.name == name for v in child.values]

    def lookups(self) -> dict[str, int]:
        return {result: n for result, n in self.counts("cache_lookups_total").items() if n}


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A cache that sends nothing."""
    found = Registry()
    set_default(lambda: found)
    yield Rig(found)
    set_default(default_client)


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not claim():  # noqa: ASYNC110 - nothing notifies
            await asyncio.sleep(0)


def flights(thing: KeyClass) -> dict[str, Any]:
    return thing._flights  # pyright: ignore[reportPrivateUsage]


async def test_a_value_is_computed_once_and_found_until_its_end(rig: Rig) -> None:
    assert await rig.get() == b"one"
    rig.source.value = b"two"
    rig.clock.now_s += 59
    assert await rig.get() == b"one"
    rig.clock.now_s += 2
    assert await rig.get() == b"two"
    assert rig.source.times == 2
    assert rig.lookups() == {"miss": 2, "hit": 1}
    assert rig.values("cache_age_at_hit_seconds") == [59.0]
    assert len(rig.values("cache_recompute_seconds")) == 2
    assert rig.counts("cache_filled_bytes_total").total() == 6


async def test_fills_say_whether_the_value_changed_also_after_its_end(rig: Rig) -> None:
    for value in (b"one", b"one", b"two"):
        rig.source.value = value
        await rig.get()
        rig.clock.now_s += 61
    assert rig.counts("cache_fills_total") == {"first": 1, "no": 1, "yes": 1}


async def test_all_who_miss_at_once_wait_for_one_computation(rig: Rig) -> None:
    rig.source.gate = asyncio.Event()
    waiting = [asyncio.ensure_future(rig.get()) for _ in range(100)]
    await until(lambda: rig.lookups() == {"miss": 100})
    rig.source.gate.set()
    assert set(await asyncio.gather(*waiting)) == {b"one"}
    assert rig.source.times == 1
    assert rig.counts("cache_fills_total").total() == 1
    assert not flights(rig.thing)


async def test_keys_are_computed_apart(rig: Rig) -> None:
    await asyncio.gather(rig.get("a"), rig.get("b"))
    assert rig.source.times == 2


async def test_what_computing_raises_reaches_all_who_wait_and_is_not_kept(rig: Rig) -> None:
    rig.source.gate, rig.source.trouble = asyncio.Event(), LookupError("none")
    waiting = [asyncio.ensure_future(rig.get()) for _ in range(3)]
    await until(lambda: rig.lookups() == {"miss": 3})
    rig.source.gate.set()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error) for error in ended] == [LookupError] * 3
    rig.source.trouble = None
    assert await rig.get() == b"one"
    assert rig.source.times == 2


async def test_who_came_first_may_leave_and_the_others_are_answered(rig: Rig) -> None:
    rig.source.gate = asyncio.Event()
    first = asyncio.ensure_future(rig.get())
    await until(lambda: rig.source.times == 1)
    second = asyncio.ensure_future(rig.get())
    await until(lambda: rig.lookups() == {"miss": 2})
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    rig.source.gate.set()
    assert await second == b"one"
    assert first.cancelled()
    assert rig.source.times == 1


async def test_a_miss_that_was_overtaken_by_a_computation_looks_again(rig: Rig) -> None:
    # The late one was told "nothing" before the value was kept, and wakes after it was.
    answered, late_may_go = asyncio.Event(), asyncio.Event()
    get = rig.redis.get

    async def get_late(key: str) -> bytes | None:
        found = await get(key)
        rig.redis.get = get
        answered.set()
        await late_may_go.wait()
        return found

    rig.redis.get = get_late
    late = asyncio.ensure_future(rig.get())
    await answered.wait()
    await rig.get()
    late_may_go.set()
    assert await late == b"one"
    assert rig.source.times == 1


async def test_a_computation_that_hangs_ends_for_all_who_wait(rig: Rig) -> None:
    slow = rig.cache.key_class("slow", 60.0, compute_deadline_s=0.01)
    rig.source.gate = asyncio.Event()
    waiting = [asyncio.ensure_future(slow.get_or_compute("a", rig.source)) for _ in range(2)]
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error) for error in ended] == [TimeoutError] * 2
    assert not flights(slow)


async def test_a_dear_value_is_refreshed_before_its_end_and_nobody_waits(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(0, 1000, 5))
    monkeypatch.setattr(module, "perf_counter", lambda: float(next(seconds)))
    await rig.get()
    rig.source.value, rig.source.gate = b"two", asyncio.Event()
    rig.clock.now_s += 58  # 2 s left; computing took 5 s; -5 ln(1 - 0.2) is 1.1, -5 ln(1 - 0.5) is 3.5
    rig.rand = 0.2
    assert await rig.get() == b"one"
    assert not flights(rig.thing)
    rig.rand = 0.5
    assert await rig.get() == b"one"
    assert await rig.get() == b"one"
    rig.source.gate.set()
    await until(lambda: not flights(rig.thing))
    assert rig.source.times == 2, "the second caller found the refresh running"
    assert await rig.get() == b"two"
    assert rig.lookups() == {"miss": 1, "hit": 4}


async def test_an_early_refresh_that_fails_leaves_the_value(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(0, 1000, 5))
    monkeypatch.setattr(module, "perf_counter", lambda: float(next(seconds)))
    await rig.get()
    rig.source.trouble = RuntimeError("away")
    rig.clock.now_s += 58
    assert await rig.get() == b"one"
    await until(lambda: rig.source.times == 2 and not flights(rig.thing))
    assert await rig.get() == b"one"
    await rig.cache.aclose()


async def test_a_clock_that_is_ahead_leaves_the_end_to_redis(rig: Rig) -> None:
    await rig.get()
    rig.redis.kept = {key: (data, 1e12) for key, (data, _) in rig.redis.kept.items()}
    rig.clock.now_s += 5000
    rig.rand = 0.999
    assert await rig.get() == b"one"
    assert not flights(rig.thing)


async def test_a_clock_that_is_behind_makes_no_negative_age(rig: Rig) -> None:
    await rig.get()
    rig.clock.now_s -= 10
    await rig.get()
    assert rig.values("cache_age_at_hit_seconds") == [0.0]


async def test_lifetimes_differ_by_a_tenth_at_most(rig: Rig) -> None:
    for key, rig.rand in (("a", 0.0), ("b", 0.5), ("c", 1.0 - 1e-9)):
        await rig.get(key)
    assert rig.redis.lifetimes_s == [54.0, 60.0, 66.0]


async def test_a_redis_that_is_away_is_asked_once_a_second_and_values_are_computed(rig: Rig) -> None:
    rig.redis.trouble = RedisAway("gone")
    assert [await rig.get() for _ in range(5)] == [b"one"] * 5
    assert rig.redis.asked == 1
    assert rig.lookups() == {"error": 5}
    assert rig.counts("cache_fills_total").total() == 0


async def test_a_redis_that_is_slow_costs_one_deadline(rig: Rig) -> None:
    rig.redis.gate = asyncio.Event()
    assert [await rig.get() for _ in range(3)] == [b"one"] * 3
    assert rig.redis.asked == 1
    assert rig.lookups() == {"error": 3}


async def test_one_call_finds_out_that_redis_is_back(rig: Rig) -> None:
    clock = Clock()
    store = Store(cast("Redis", rig.redis), 0.05, clock)
    rig.redis.trouble = RedisAway("gone")
    for _ in range(2):
        with pytest.raises(Unanswered):
            await store.get("a")
    rig.redis.trouble, rig.redis.gate = None, asyncio.Event()
    clock.now_s += PAUSE_S
    probe = asyncio.ensure_future(store.get("a"))
    await until(lambda: rig.redis.asked == 2)
    with pytest.raises(Unanswered):
        await store.get("a")
    rig.redis.gate.set()
    assert await probe is None
    assert await store.get("a") is None
    assert rig.redis.asked == 3


async def test_a_refused_write_does_not_stop_look_ups(rig: Rig) -> None:
    await rig.get("a")
    rig.redis.trouble = ResponseError("OOM command not allowed")
    assert await rig.get("b") == b"one"
    rig.redis.trouble = None
    await rig.get("a")
    assert rig.lookups() == {"miss": 1, "error": 1, "hit": 1}


@pytest.mark.parametrize("data", [b"", b"{}", b"\x93\x01\x02\x03", b'{"id":7}'])
async def test_what_is_no_entry_is_an_error_and_replaced(rig: Rig, data: bytes) -> None:
    await rig.get()
    (key,) = rig.redis.kept
    rig.redis.kept[key] = (data, 1e12)
    assert await rig.get() == b"one"
    assert await rig.get() == b"one"
    assert rig.lookups() == {"miss": 1, "error": 1, "hit": 1}


async def test_without_redis_values_are_computed_and_nothing_is_claimed(rig: Rig) -> None:
    bare = Cache(None, "app", settings=Settings(), registry=rig.registry).key_class("bare", 60.0)
    assert [await bare.get_or_compute("a", rig.source) for _ in range(2)] == [b"one"] * 2
    assert rig.source.times == 2
    assert rig.lookups() == {}


async def test_what_is_remembered_of_keys_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DIGESTS", 10)
    for number in range(50):
        await rig.get(str(number))
    assert len(rig.thing._digests) == 10  # pyright: ignore[reportPrivateUsage]
    assert not flights(rig.thing)


async def test_closing_ends_what_still_runs(rig: Rig) -> None:
    rig.source.gate = asyncio.Event()
    waiting = asyncio.ensure_future(rig.get())
    await until(lambda: rig.source.times == 1)
    await rig.cache.aclose()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not flights(rig.thing)


@pytest.mark.parametrize(("is_set", "in_use"), [(None, 60.0), (90.0, 90.0), (1e9, 3600.0), (0.001, 1.0)])
async def test_a_lifetime_that_is_set_holds_within_the_limits(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, is_set: float | None, in_use: float
) -> None:
    def get(self: Lifetimes, key_class: str) -> float | None:
        return is_set if key_class == "thing" else None

    monkeypatch.setattr(Lifetimes, "get", get)
    await rig.get()
    assert rig.redis.lifetimes_s == [in_use]
    assert rig.values("cache_ttl_seconds")[-1] == in_use


@pytest.mark.parametrize("ttl_s", [0.5, 7200.0, 0.0, float("nan")])
async def test_a_lifetime_outside_its_own_limits_is_refused(rig: Rig, ttl_s: float) -> None:
    with pytest.raises(ValueError, match="other"):
        rig.cache.key_class("other", ttl_s, max_ttl_s=3600.0)


async def test_a_class_is_defined_once(rig: Rig) -> None:
    with pytest.raises(ValueError, match="thing"):
        rig.cache.key_class("thing", 60.0)


async def test_a_client_that_decodes_is_refused() -> None:
    client = Redis(decode_responses=True)
    with pytest.raises(ValueError, match="decode_responses"):
        Cache(client, "app", settings=Settings())
