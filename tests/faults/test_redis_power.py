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


def cut_power(bench: Bench, server: RedisServer, after_bytes: int) -> None:
    """Kill -9, cut the file off somewhere after so many bytes, start again."""
    server.kill()
    file = appended(server)
    size = file.stat().st_size
    assert size > after_bytes
    cut = random.Random(size).randrange(after_bytes, size)
    with file.open("rb+") as opened:
        opened.truncate(cut)
    server.open()


def test_what_power_took_within_two_seconds_is_sent_again(bench: Bench, server: RedisServer) -> None:
    """4b: the file ends at a random byte of its last second; nobody had read that second."""
    name = bench.emitters.start(8 * RATE, rate=RATE)
    bench.until(lambda: entries(bench) > 2, "entries come")
    bench.aggregator_link.blackhole()
    size, began_s = appended(server).stat().st_size, time.monotonic()
    bench.until(lambda: appended(server).stat().st_size > size + 10_000, "more comes")
    assert time.monotonic() - began_s < RESEND_S, "this machine is too slow for a test of seconds"
    cut_power(bench, server, size)
    bench.aggregator_link.pass_on()
    bench.until(lambda: bench.says(name, "redis_changed"), "the producer notices another server")
    books = bench.check()
    assert total(books, "lost") == total(books, "missing") == 0
    assert bench.emitters.differences() == []
