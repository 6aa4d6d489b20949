"""Redis comes back with less than it had acknowledged: what producers kept of the last 2 s they send again."""

import random
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path

import pytest

from contract.streams import DEFAULT_SHARDS, stream_key
from streamgauge.embedded import RedisServer
from tests.faults.bench import Bench
from tests.faults.oracle import total

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

RATE = 1000
RESEND_S = 2.0
"""What producers keep after an acknowledgement: producers/sender.py."""
ATTEMPTS = 4
MORE_BYTES = 10_000
STREAMS = [stream_key(shard) for shard in range(DEFAULT_SHARDS)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path / "a")
    made.open()
    yield made
    made.close()


@pytest.fixture
def bench(tmp_path: Path, dsn: str, server: RedisServer) -> Iterator[Bench]:
    with Bench(tmp_path, dsn, server.url) as made:
        made.exporter()
        made.aggregator()
        yield made


def appended(server: RedisServer) -> Path:
    """Return the file that Redis appends to."""
    files = [*server.data.glob("appendonlydir/*.incr.aof"), *server.data.glob("appendonly.aof")]
    assert len(files) == 1, files
    return files[0]


def entries(bench: Bench) -> int:
    with bench.client() as client:
        return sum(client.xlen(key) for key in STREAMS)


def cut_power(bench: Bench, server: RedisServer, first: int, last: int = 0, deadline_s: float = inf) -> bool:
    """Kill -9, cut the file off at one of these bytes (0: its end), start again; False, uncut, if it is too late."""
    server.kill()
    is_in_time = time.monotonic() < deadline_s
    if is_in_time:
        file = appended(server)
        size = file.stat().st_size
        with file.open("rb+") as opened:
            opened.truncate(random.Random(size).randrange(first, last or size))
    bench.told("streamgauge_component_status", 1, "/metrics/self", component="redis", status="down")
    server.open()
    bench.aggregator_link.pass_on()
    return is_in_time


def begin_tail(bench: Bench, server: RedisServer) -> tuple[str, int]:
    """Have entries come that nobody reads; returns their emitter, and the bytes that the file had before them."""
    name = bench.emitters.start(8 * RATE, rate=RATE)
    known = entries(bench)
    bench.until(lambda: entries(bench) > known + 2, "entries come")
    bench.aggregator_link.blackhole()
    return name, appended(server).stat().st_size


def lose_a_second(bench: Bench, server: RedisServer) -> bool:
    """Cut the power of what nobody had read; returns whether the tail was as short as is promised."""
    name, size = begin_tail(bench, server)
    began_s = time.monotonic()
    bench.until(lambda: appended(server).stat().st_size > size + MORE_BYTES, "more comes")
    is_short = cut_power(bench, server, size, deadline_s=began_s + RESEND_S)
    bench.until(lambda: bench.says(name, "redis_changed"), "the producer notices another server")
    return is_short


def test_what_power_took_within_two_seconds_is_sent_again(bench: Bench, server: RedisServer) -> None:
    """4b: the file ends at a random byte of its last second; nobody had read that second."""
    was_short = any(lose_a_second(bench, server) for _ in range(ATTEMPTS))
    assert was_short, "this machine is too slow for a test of seconds"
    books = bench.check(5)
    assert total(books, "lost") == total(books, "missing") == 0
    assert bench.emitters.differences() == []


def test_of_what_power_took_before_that_the_loss_is_exact(bench: Bench, server: RedisServer) -> None:
    """4b: the file ends before the last 2 s begin; nobody had read any of it."""
    name, size = begin_tail(bench, server)
    bench.until(lambda: appended(server).stat().st_size > size + MORE_BYTES, "some comes")
    known, began_s = appended(server).stat().st_size, time.monotonic()
    bench.until(lambda: time.monotonic() > began_s + 2 * RESEND_S, "and more")
    assert cut_power(bench, server, size, known)
    bench.until(lambda: bench.says(name, "redis_changed"), "the producer notices another server")
    bench.emitters.finish()
    bench.emitters.drain()
    bench.close_gaps()
    lost = total(bench.check(5), "lost")
    assert lost > 0
    bench.told("streamgauge_lost_events", lost)
    assert bench.sample("streamgauge_lost_events") == lost
