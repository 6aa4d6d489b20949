"""Redis away, cut off, out of memory, or robbed of what it held, under load: nothing is lost, or exactly what is told.

Each fault comes while an emitter emits. Afterwards its oracle, the ledger, the totals and the audit agree; meanwhile no
served counter fell.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from contract.streams import DEFAULT_SHARDS, FIELD, GROUP, stream_key
from streamgauge.embedded import RedisServer
from streamgauge.processes import wait_until
from tests.faults.bench import Bench
from tests.faults.oracle import Book, are_read, total
from tests.loading import DUPLICATES, STALLED_S, ask, fetch, since_last_commit

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

EVENTS = 3000
RATE = 1000
STREAMS = [stream_key(shard) for shard in range(DEFAULT_SHARDS)]
COPIES = 11


@pytest.fixture
def bench(tmp_path: Path, dsn: str, redis_url: str) -> Iterator[Bench]:
    with Bench(tmp_path, dsn, redis_url) as made:
        made.exporter()
        made.aggregator()
        yield made


def emit(bench: Bench, events: int = EVENTS) -> str:
    """Start an emitter and wait until it has sent something, which is long before its end."""
    with bench.client() as client:
        before = entries(client)
        name = bench.emitters.start(events, rate=RATE)
        bench.until(lambda: entries(client) > before, f"{name} is at work")
        return name


def entries(client: Any) -> int:
    return sum(client.xlen(key) for key in STREAMS)


def book(bench: Bench, name: str) -> Book:
    return next(b for b in bench.emitters.books() if b.name == name)


def meant(bench: Bench, name: str, events: int = EVENTS) -> Callable[[], bool]:
    """Whether an emitter has emitted its share; what it sends of it is another matter."""
    return lambda: book(bench, name).meant >= events


def unread(bench: Bench) -> int:
    """Count entries that nobody has read."""
    with bench.client() as client:
        groups = {key: client.xinfo_groups(key) for key in STREAMS if client.exists(key)}
        after = {key: found[0]["last-delivered-id"] if found else b"0-0" for key, found in groups.items()}
        return sum(len(client.xrange(key, b"(" + last, "+")) for key, last in after.items())


def producers_cut_off(bench: Bench) -> None:
    """8: for the producers Redis is a black hole, as when packets are dropped."""
    name = emit(bench)
    bench.producer_link.blackhole()
    bench.until(meant(bench, name), "emitting goes on")
    known = bench.sample("streamgauge_last_seen_timestamp_seconds") or 0.0
    assert book(bench, name).accepted < EVENTS
    bench.producer_link.pass_on()
    bench.until(lambda: (bench.sample("streamgauge_last_seen_timestamp_seconds") or 0) > known, "it is seen again")


def producers_refused(bench: Bench) -> None:
    """8: connections are reset and refused."""
    name = emit(bench)
    bench.producer_link.reset()
    bench.until(meant(bench, name), "emitting goes on")
    bench.producer_link.pass_on()


def producers_cut_amid_a_batch(bench: Bench) -> None:
    """8: the connection breaks inside a batch: the half of it is no command."""
    emit(bench)
    cuts = bench.producer_link.cuts
    for n_bytes in (1, 700, 1500):
        bench.producer_link.cut_after(n_bytes)
        bench.until(lambda n=cuts: bench.producer_link.cuts > n, "it is cut")
        cuts = bench.producer_link.cuts


def replies_lost(bench: Bench) -> None:
    """8c: Redis does as it is told and nobody hears of it: the same bytes come again and change nothing."""
    name = emit(bench)
    dropped = bench.producer_link.dropped_bytes
    known = fetch(bench.dsn, DUPLICATES)
    bench.producer_link.drop_replies()
    bench.until(lambda: bench.producer_link.dropped_bytes > dropped, "replies are lost")
    bench.until(meant(bench, name), "emitting goes on")
    bench.producer_link.pass_on()
    bench.until(lambda: fetch(bench.dsn, DUPLICATES) > known, "duplicates arrived")
    bench.told("streamgauge_duplicate_batches_total", known + 1)


def aggregator_cut_off(bench: Bench) -> None:
    """8: for the aggregator Redis is a black hole, and replies to it are lost when it heals."""
    name = emit(bench)
    bench.aggregator_link.drop_replies()
    bench.until(lambda: bench.aggregator_link.dropped_bytes > 0, "replies are lost")
    bench.aggregator_link.blackhole()
    bench.until(meant(bench, name), "emitting goes on")
    bench.told("streamgauge_stream_oldest_wait_seconds", 1, "/metrics/self")
    bench.aggregator_link.pass_on()


def redis_killed(bench: Bench, server: RedisServer) -> None:
    """4: kill -9, and back after emitting has ended."""
    name = emit(bench)
    server.kill()
    bench.told("streamgauge_component_status", 1, "/metrics/self", kind="redis", status="down")
    bench.until(meant(bench, name), "emitting goes on")
    server.open()


def redis_out_of_memory(bench: Bench) -> None:
    """11: XADD is refused, what is there is read and acknowledged, and nobody has to help afterwards."""
    name = emit(bench)
    with bench.client() as client:
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        client.config_set("maxmemory", "1mb")
        try:
            bench.until(lambda: bench.says(name, "redis_refuses_or_is_away"), "batches are refused")
            bench.until(meant(bench, name), "emitting goes on")
            bench.until(lambda: are_read(bench.redis_url), "what is there is acknowledged")
            bench.until(lambda: since_last_commit(bench.pipeline) > STALLED_S, "that nothing is committed is told")
            assert book(bench, name).accepted < EVENTS
        finally:
            client.config_set("maxmemory", "0")


def test_a_redis_that_is_away_costs_nothing(bench: Bench, redis_server: RedisServer) -> None:
    """One fault after the other; each drains by itself within a minute, and none costs an event."""
    faults: list[Callable[[], None]] = [
        lambda: producers_cut_off(bench),
        lambda: producers_refused(bench),
        lambda: producers_cut_amid_a_batch(bench),
        lambda: replies_lost(bench),
        lambda: aggregator_cut_off(bench),
        lambda: redis_killed(bench, redis_server),
        lambda: redis_out_of_memory(bench),
    ]
    for inject in faults:
        inject()
        bench.emitters.finish()
        assert bench.emitters.drain()[-1].committed == EVENTS
    books = bench.check(10)
    assert total(books, "lost") == total(books, "missing") == total(books, "dropped") == 0
    assert bench.emitters.differences() == []


def trimmed(client: Any) -> None:
    for key in STREAMS:
        client.xtrim(key, maxlen=0)


def deleted(client: Any) -> None:
    client.delete(*STREAMS)


def flushed(client: Any) -> None:
    client.flushall()


def rob(bench: Bench, how: Callable[[Any], None]) -> Book:
    """13: take away what nobody has read while the emitter goes on; returns its account when the gap is closed."""
    name = emit(bench, 2 * EVENTS)
    bench.aggregator_link.blackhole()
    bench.until(lambda: unread(bench) >= 3, "entries wait")
    with bench.client() as client:
        how(client)
    known = book(bench, name).committed
    assert wait_until(lambda: unread(bench) >= 1, 30), "the emitter goes on"
    bench.aggregator_link.pass_on()
    bench.until(lambda: book(bench, name).committed > known, "the aggregator goes on")
    bench.emitters.finish()
    bench.emitters.drain()
    bench.close_gaps()
    found = book(bench, name)
    assert found.lost > 0 and found.committed + found.lost == found.meant == 2 * EVENTS, found
    return found


def test_what_somebody_takes_out_of_redis_is_lost_to_the_event(bench: Bench) -> None:
    """13: trimmed, deleted, flushed: the gap's events are the oracle's difference, and the metric tells them."""
    lost = 0
    for how in (trimmed, deleted, flushed):
        lost += rob(bench, how).lost
        bench.told("streamgauge_lost_events", lost)
    assert total(bench.check(10), "lost") == lost == bench.sample("streamgauge_lost_events")


def test_entries_taken_away_while_pending_are_counted_and_acknowledged(bench: Bench) -> None:
    """13: they come back without payload; a destroyed group is made again and reads everything that is kept once."""
    with bench.client() as client:
        name = bench.aggregator(STREAMGAUGE_CRASH_AT="after_read")
        bench.kill(bench.aggregators()[0])
        emitter = bench.emitters.start(EVENTS, rate=RATE)
        process = bench.pipeline.processes[name]
        bench.until(lambda: process.poll() is not None, "it dies with entries pending")
        pending = sum(client.xpending(key, GROUP)["pending"] for key in STREAMS if client.exists(key))
        assert pending > 0
        trimmed(client)
        bench.aggregator()
        bench.emitters.finish()
        bench.emitters.drain()
        bench.close_gaps()
        found = book(bench, emitter)
        assert 0 < found.lost == found.meant - found.committed, found
        bench.told("streamgauge_payload_gone_entries_total", pending)
        assert bench.sample("streamgauge_payload_gone_entries_total") == pending
        kept = [key for key in STREAMS if client.exists(key) and client.xlen(key)]
        for key in kept:
            client.xgroup_destroy(key, GROUP)
        known = fetch(bench.dsn, DUPLICATES)
        bench.until(lambda: fetch(bench.dsn, DUPLICATES) > known, "what is kept is read again")
        bench.until(lambda: are_read(bench.redis_url), "the group is at the end again")
        assert sum(client.xpending(key, GROUP)["pending"] for key in kept) == 0
    bench.check()


UNHURRIED: Final = {"STREAMGAUGE_RECLAIM_IDLE_S": "60"}
"""Nobody claims from one that is slow: that would be duplicates, too."""
A_DAY: Final = """
WITH aged AS (UPDATE producers SET first_seen = first_seen - interval '1 day', last_seen = last_seen - interval '1 day'
              RETURNING 1) SELECT count(*) FROM aged
"""


def test_every_batch_eleven_times_in_any_order_counts_once(bench: Bench, tmp_path: Path) -> None:
    """15: as a client with default retries would send it, and once more from a file, a day later, to an aggregator that
    knows nobody; the counter of duplicates tells the copies."""
    bench.kill(bench.aggregators()[0])
    bench.aggregator(**UNHURRIED)
    emit(bench)
    bench.emitters.finish()
    bench.emitters.drain()
    once = fetch(bench.dsn, DUPLICATES)
    with bench.client() as client:
        frames = [(key, fields[FIELD]) for key in STREAMS for _, fields in client.xrange(key)]
        copies = (COPIES - 1) * frames
        random.Random(15).shuffle(copies)
        for key, data in copies:
            client.xadd(key, {FIELD: data})
    bench.until(lambda: are_read(bench.redis_url), "all copies are read")
    assert fetch(bench.dsn, DUPLICATES) == once + len(copies)
    bench.told("streamgauge_duplicate_batches_total", once + len(copies))
    file = tmp_path / "frames"
    file.write_bytes(msgspec.msgpack.encode(frames))
    assert ask(bench.dsn, A_DAY) > 0
    bench.kill(bench.aggregators()[0])
    bench.aggregator(**UNHURRIED)
    with bench.client() as client:
        client.delete(*STREAMS)
        for key, data in msgspec.msgpack.decode(file.read_bytes()):
            client.xadd(key, {FIELD: data})
    bench.told("streamgauge_duplicate_batches_total", once + len(copies) + len(frames))
    books = bench.check()
    assert bench.emitters.differences() == []
    assert total(books, "lost") == total(books, "missing") == 0
