"""Cache: values of an application in Redis, computed once when they are missing and measured per class of keys.

In: a key and how to compute its value. Out: the value; what it cost and how old it was, as metrics.
Promise: Redis never makes a call fail: without it values are computed. One process computes a key once at a time;
what the computation raises reaches all who wait and is not kept. Memory is bounded.
"""

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from math import log
from time import perf_counter
from typing import Final

from redis.asyncio import Redis

from producers.cache_lifetimes import Lifetimes
from producers.cache_memory import MemoryWatch, Say
from producers.cache_store import Entry, Store, Unanswered
from producers.metrics import Counter, Gauge, Histogram, Registry
from producers.settings import Settings

Compute = Callable[[], Awaitable[bytes]]

DEADLINE_S: Final = 0.5
COMPUTE_DEADLINE_S: Final = 30.0
JITTER: Final = 0.1
"""Share of the lifetime by which entries end sooner or later, so that those filled together do not end together."""
BETA: Final = 1.0
"""More than 1 refreshes sooner (Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede Prevention)."""
DIGEST_BYTES: Final = 8
MAX_DIGESTS: Final = 10_000
AGE_BUCKETS_S: Final = (
    1, 2, 5, 10, 20, 40, 80, 160, 300, 600, 1200, 2400, 3600, 7200, 14_400, 28_800, 57_600, 86_400, 172_800, 345_600,
    604_800,
)  # fmt: skip


class CacheMetrics:
    """What caches emit; caches of one process share them."""

    def __init__(self, registry: Registry | None) -> None:
        label = ("key_class",)
        self.lookups = Counter(
            "cache_lookups_total", "Look-ups in caches, by what Redis said.", ("key_class", "result"), registry=registry
        )
        self.recompute = Histogram(
            "cache_recompute_seconds", "Time to compute a value.", label, unit="seconds", registry=registry
        )
        self.age = Histogram(
            "cache_age_at_hit_seconds", "Age of values when they were found.", label, AGE_BUCKETS_S, "seconds",
            registry=registry,
        )  # fmt: skip
        self.fills = Counter(
            "cache_fills_total", "Values kept, by whether they had changed.", ("key_class", "changed"),
            registry=registry,
        )  # fmt: skip
        self.filled_bytes = Counter("cache_filled_bytes_total", "Bytes of values kept.", label, registry=registry)
        self.ttl = Gauge("cache_ttl_seconds", "Lifetime of cached values in use.", label, registry=registry)
        self.used = Gauge(
            "cache_used_bytes", "Memory in use of the Redis that holds a class.", label, registry=registry
        )
        self.limit = Gauge(
            "cache_max_bytes", "Memory allowed to the Redis that holds a class; 0: any.", label, registry=registry
        )


class Cache:
    """Classes of keys in one Redis; `client` is the application's own, None computes always and measures nothing."""

    def __init__(
        self,
        client: Redis | None,
        name: str,
        *,
        settings: Settings | None = None,
        deadline_s: float = DEADLINE_S,
        registry: Registry | None = None,
        now: Callable[[], float] = time.time,
        rand: Callable[[], float] = random.random,
    ) -> None:
        if client is not None and client.connection_pool.connection_kwargs.get("decode_responses"):
            raise ValueError("the cache's values are bytes: open its client without decode_responses")
        self.name = name
        self.settings = settings if settings is not None else Settings.read()
        self.store = Store(client, deadline_s) if client is not None else None
        self.memory = MemoryWatch(client) if client is not None else None
        self.lifetimes = Lifetimes(self.settings)
        self.metrics = CacheMetrics(registry)
        self.now = now
        self.rand = rand
        self._classes: dict[str, KeyClass] = {}
        self._sayers: list[Say] = []

    async def open(self) -> None:
        """Follow the lifetimes that are set, if that is wanted, and tell how full Redis is; returns at once."""
        if self.settings.disabled or self.memory is None:
            return
        self.memory.open(self._sayers)
        if self.settings.cache_ttl_apply:
            self.lifetimes.open(self._classes.values())

    async def aclose(self) -> None:
        """End what runs in the background. The client stays open."""
        await self.lifetimes.aclose()
        if self.memory is not None:
            await self.memory.aclose()
        for key_class in self._classes.values():
            await key_class.aclose()

    def key_class(
        self,
        name: str,
        ttl_s: float,
        *,
        min_ttl_s: float = 1.0,
        max_ttl_s: float = 86_400.0,
        compute_deadline_s: float = COMPUTE_DEADLINE_S,
    ) -> "KeyClass":
        """Return a class of keys with its default lifetime and the limits of any other one.

        `name` is a label value, and a field of the hash of lifetimes: one meaning in all that share a Redis.
        """
        if name in self._classes:
            raise ValueError(f"key class {name!r} is there already")
        if not 0 < min_ttl_s <= ttl_s <= max_ttl_s:
            raise ValueError(f"lifetimes of {name!r}: 0 < min_ttl_s <= ttl_s <= max_ttl_s must hold")
        found = KeyClass(self, name, ttl_s, (min_ttl_s, max_ttl_s), compute_deadline_s)
        self._classes[name] = found
        self._sayers.append(found.say_memory)
        return found


class KeyClass:
    """Keys whose values cost and change alike."""

    def __init__(
        self, cache: Cache, name: str, ttl_s: float, limits_s: tuple[float, float], compute_deadline_s: float
    ) -> None:
        self.name = name
        self._cache = cache
        self._ttl_s = ttl_s
        self._limits_s = limits_s
        self._compute_deadline_s = compute_deadline_s
        self._prefix = f"{cache.name}:cache1:{name}:"
        self._flights: dict[str, asyncio.Task[bytes]] = {}
        self._landed = 0
        self._digests: OrderedDict[str, bytes] = OrderedDict()
        """Of values seen lately: an entry that ended can no longer say what it was."""
        if cache.store is not None:
            self._bind(cache.metrics)

    def _bind(self, metrics: CacheMetrics) -> None:
        self._count_hit, self._count_miss, self._count_error = (
            metrics.lookups.labels(self.name, result).inc for result in ("hit", "miss", "error")
        )
        self._observe_age = metrics.age.labels(self.name).observe
        self._observe_recompute = metrics.recompute.labels(self.name).observe
        self._add_bytes = metrics.filled_bytes.labels(self.name).inc
        self._set_ttl, self._set_used, self._set_limit = (
            gauge.labels(self.name).set for gauge in (metrics.ttl, metrics.used, metrics.limit)
        )
        self.say_lifetime()

    @property
    def lifetime_s(self) -> float:
        """The lifetime that holds now: the one that is set, within the limits, or the default."""
        low_s, high_s = self._limits_s
        return min(max(self._cache.lifetimes.get(self.name) or self._ttl_s, low_s), high_s)

    def say_lifetime(self) -> None:
        """Emit the lifetime that holds now."""
        self._set_ttl(self.lifetime_s)

    def say_memory(self, used_bytes: float, max_bytes: float) -> None:
        """Emit how full the Redis of this class is."""
        self._set_used(used_bytes)
        self._set_limit(max_bytes)

    async def get_or_compute(self, key: str, compute: Compute) -> bytes:
        """Return the value of a key; raises what `compute` raises, or TimeoutError when it takes too long.

        A value near its end is refreshed in the background by the process that drew the lot; the caller gets
        the present one and does not wait.
        """
        store = self._cache.store
        landed = self._landed
        try:
            entry = await store.get(self._prefix + key) if store is not None else None
        except Unanswered:
            self._count_error()
            return await asyncio.shield(self._flight(key, compute, may_be_there=False))
        if entry is None:
            if store is not None:
                self._count_miss()
            return await asyncio.shield(self._flight(key, compute, may_be_there=landed != self._landed))
        self._count_hit()
        now_s = self._cache.now()
        self._observe_age(max(0.0, now_s - entry.filled_at_s))
        self._remember(key, entry.digest)
        if self._is_due(entry, now_s):
            self._flight(key, compute, may_be_there=False)
        return entry.value

    async def aclose(self) -> None:
        """End computations that still run."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def _is_due(self, entry: Entry, now_s: float) -> bool:
        """Whether to refresh early: the nearer the end and the dearer the value, the likelier (XFetch)."""
        left_s = entry.expires_at_s - now_s
        # Past its end by our clock, but there: the clocks differ, and Redis knows better.
        return 0 < left_s <= -entry.recompute_s * BETA * log(1.0 - self._cache.rand())

    def _flight(self, key: str, compute: Compute, *, may_be_there: bool) -> asyncio.Task[bytes]:
        """Return the running computation of a key, or start it. It ends by itself, whoever gives up waiting."""
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._fill(key, compute, may_be_there), name=f"streamgauge - fill {self.name}")
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._land(key, done))
        return flight

    def _land(self, key: str, flight: asyncio.Task[bytes]) -> None:
        self._landed += 1
        del self._flights[key]
        if not flight.cancelled():
            # Those who wait get it; when nobody does, asyncio would complain that nobody looked.
            flight.exception()

    async def _fill(self, key: str, compute: Compute, may_be_there: bool) -> bytes:
        store = self._cache.store
        if store is not None and may_be_there:
            # A computation ended while this look-up was on its way: it may have been of this key.
            try:
                entry = await store.get(self._prefix + key)
            except Unanswered:
                entry = None
            if entry is not None:
                return entry.value
        started_at_s = perf_counter()
        async with asyncio.timeout(self._compute_deadline_s):
            value = await compute()
        recompute_s = perf_counter() - started_at_s
        if store is not None:
            self._observe_recompute(recompute_s)
            await self._keep(store, key, value, recompute_s)
        return value

    async def _keep(self, store: Store, key: str, value: bytes, recompute_s: float) -> None:
        before = self._digests.get(key)
        digest = blake2b(value, digest_size=DIGEST_BYTES).digest()
        lifetime_s = self.lifetime_s * (1 + JITTER * (2 * self._cache.rand() - 1))
        now_s = self._cache.now()
        entry = Entry(now_s, now_s + lifetime_s, recompute_s, digest, value)
        try:
            await store.put(self._prefix + key, entry, lifetime_s)
        except Unanswered:
            return
        changed = "first" if before is None else "no" if before == digest else "yes"
        self._cache.metrics.fills.labels(self.name, changed).inc()
        self._add_bytes(len(value))
        self.say_lifetime()
        self._remember(key, digest)

    def _remember(self, key: str, digest: bytes) -> None:
        self._digests[key] = digest
        self._digests.move_to_end(key)
        if len(self._digests) > MAX_DIGESTS:
            self._digests.popitem(last=False)
