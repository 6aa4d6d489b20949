"""Redis comes back with less than it had acknowledged: what producers kept of the last 2 s they send again."""

import random
import time
from collections.abc import Iterator
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


def cut_power(bench: Bench, server: RedisServer, after_bytes: int, began_s: float) -> bool:
    """Kill -9, cut the file off somewhere after so many bytes, start again; False: it took too long, nothing is cut."""
    server.kill()
    is_short = time.monotonic() - began_s < RESEND_S
    if is_short:
        file = appended(server)
        size = file.stat().st_size
        assert size > after_bytes
        with file.open("rb+") as opened:
            opened.truncate(random.Random(size).randrange(after_bytes, size))
    bench.told("streamgauge_component_status", 1, "/metrics/self", component="redis", status="down")
    server.open()
    return is_short


def lose_a_second(bench: Bench, server: RedisServer) -> tuple[str, bool]:
    """Cut the power of what nobody had read; returns the emitter, and whether the tail was as short as is promised."""
    name = bench.emitters.start(8 * RATE, rate=RATE)
    known = entries(bench)
    bench.until(lambda: entries(bench) > known + 2, "entries come")
    bench.aggregator_link.blackhole()
    size, began_s = appended(server).stat().st_size, time.monotonic()
    bench.until(lambda: appended(server).stat().st_size > size + 10_000, "more comes")
    is_short = cut_power(bench, server, size, began_s)
    bench.aggregator_link.pass_on()
    bench.until(lambda: bench.says(name, "redis_changed"), "the producer notices another server")
    return name, is_short


def test_what_power_took_within_two_seconds_is_sent_again(bench: Bench, server: RedisServer) -> None:
    """4b: the file ends at a random byte of its last second; nobody had read that second."""
    was_short = any(lose_a_second(bench, server)[1] for _ in range(ATTEMPTS))
    assert was_short, "this machine is too slow for a test of seconds"
    books = bench.check(5)
    assert total(books, "lost") == total(books, "missing") == 0
    assert bench.emitters.differences() == []
