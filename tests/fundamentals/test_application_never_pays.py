"""I5: emitting never blocks, never awaits, never raises; memory is bounded however long Redis is away."""

import asyncio
import math
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from producers import Client, Counter, Gauge, Histogram, Settings
from streamgauge.embedded import RedisServer
from streamgauge.processes import wait_until
from tests.stream_sums import read_streams

UNREACHABLE = Settings(redis_url="redis://127.0.0.1:1/0", flush_interval_s=0.02)
DEADLINE_S = 30.0


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    """A client of its own, sending to a real Redis often."""
    client = Client(Settings(redis_url=redis_url, flush_interval_s=0.02))
    yield client
    client.stop(5)


def test_emitting_is_one_list_append() -> None:
    """A bound child's `observe` and `set` are the list's own method: nothing else can run in a request."""
    client = Client(UNREACHABLE)
    samples = Histogram("a_seconds", labelnames=["x"], registry=client).labels("1")
    level = Gauge("b", labelnames=["x"], registry=client).labels("1")
    assert samples.observe == samples.values.append
    assert level.set == level.values.append
    client.stop(0)


def test_no_value_and_no_label_raises(client: Client, redis_url: str) -> None:
    """Whatever a request emits is counted: as an event, or as a drop with its reason."""
    count = Counter("a", labelnames=["x"], registry=client)
    samples = Histogram("b", registry=client)
    level = Gauge("c", registry=client)
    odd: list[Any] = [math.nan, math.inf, -math.inf, "7", None, [], 10**400, 1e300, object()]
    for value in odd:
        count.labels("x").inc(value)
        samples.observe(value)
        level.set(value)
        level.inc(value)
    count.labels("x").inc(-1)
    labels: list[object] = ["a\0b", "x" * 3000, "\ud800", [], object]
    for label in labels:
        count.labels(label).inc()
    count.labels("x").inc(2)
    samples.observe(0.5)
    level.set(3)
    assert client.stop(DEADLINE_S)
    sums = read_streams(redis_url)
    dropped = sums.dropped()
    # Three labels are refused; `[]` and a class print as legal text.
    assert dropped["bad_label"] == 3
    assert dropped["negative"] == 1
    assert sum(dropped.values()) + sums.events == 4 * len(odd) + 1 + 5 + 3
    assert sums.series[b'a_total{x="x"}'].sum == 2
    assert sums.series[b"b"].n == 1
    assert sums.series[b"c"].last == 3


def test_outage_costs_no_count_and_little_memory(redis_server: RedisServer, redis_url: str) -> None:
    """While Redis is away at most four batches wait and samples merge; afterwards every count is there."""
    client = Client(Settings(redis_url=redis_url, flush_interval_s=0.01))
    count = Counter("a", registry=client)
    samples = Histogram("b", buckets=(1.0, 2.0, 5.0), registry=client)
    samples.observe(0.5)
    assert wait_until(lambda: client.stats().batches_sent > 0, DEADLINE_S)
    redis_server.kill()
    emitted = 1
    for i in range(300):
        count.inc()
        samples.observe(i % 7)
        emitted += 1
        before = client.stats().accepted
        assert wait_until(lambda b=before: client.stats().accepted > b, DEADLINE_S)
    assert client.stats().batches_waiting <= 4
    redis_server.open()
    assert client.stop(DEADLINE_S)
    sums = read_streams(redis_url)
    assert sums.series[b"a_total"].n == 300
    assert sums.series[b"b"].n == emitted
    assert sum(sums.series[b"b"].sketch.values()) == emitted
    assert not sums.missing()
    # 300 flushes became a handful of batches: what waited was merged.
    assert len(sums.bodies) < 150
    assert any(body.merged_n for body in sums.bodies.values())


def test_threads_and_tasks_lose_no_increment(client: Client, redis_url: str) -> None:
    """Eight threads and a hundred tasks emit to one child while it is drained."""
    child = Counter("a", labelnames=["x"], registry=client).labels("1")

    def emit(times: int) -> None:
        for _ in range(times):
            child.inc()

    async def emit_in_tasks() -> None:
        async def one() -> None:
            for _ in range(100):
                child.inc()
                await asyncio.sleep(0)

        await asyncio.gather(*(one() for _ in range(100)))

    threads = [threading.Thread(target=emit, args=(20_000,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    asyncio.run(emit_in_tasks())
    for thread in threads:
        thread.join()
    assert client.stop(DEADLINE_S)
    assert read_streams(redis_url).series[b'a_total{x="1"}'].sum == 8 * 20_000 + 100 * 100


def test_emitting_goes_on_while_the_flusher_is_stuck(client: Client) -> None:
    """No emitter shares a lock with whoever drains, and new series are admitted meanwhile too."""
    count = Counter("a", labelnames=["x"], registry=client)
    child = count.labels("1")
    life = client._life  # pyright: ignore[reportPrivateUsage]
    assert life is not None
    done = threading.Event()

    def emit() -> None:
        for i in range(1000):
            child.inc()
            count.labels(i).inc()
        done.set()

    with life.lock:
        threading.Thread(target=emit).start()
        assert done.wait(DEADLINE_S)
