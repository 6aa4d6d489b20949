"""Hostile input: each kind of bad entry is set aside with its bytes and reason, and its neighbours commit."""

import os
import struct
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import zstandard

from aggregator.lanes import OPEN_RUNS
from contract import batch as wire
from contract.batch import Body, Directory, encode_directory, seal
from contract.metric import Kind, MetricDef
from contract.streams import FIELD, stream_key
from database.load_runs import purge
from tests.batches import make_batch
from tests.consuming import SHARD, Consumer, consumer
from tests.fundamentals.test_one_effect import NOW_S, batches

Make = Callable[[bytes], bytes]


def good(producer: bytes, **changes: Any) -> bytes:
    """A batch that nothing is wrong with but for `changes`."""
    given: dict[str, Any] = {"counters": {b"hits_total": (2, 2.0)}, "window_s": NOW_S, **changes}
    return make_batch(producer, 1, **given)


def with_body(producer: bytes, events: int = 2, **changes: Any) -> bytes:
    """A sealed batch whose body has other columns than it should."""
    directory = Directory((MetricDef("hits_total", Kind.COUNTER),), [b"hits_total"], struct.pack("<H", 0), 1, 0, 0, 0)
    columns: dict[str, Any] = {
        "directory": encode_directory(directory),
        "counter_n": struct.pack("<Q", events),
        "counter_sum": struct.pack("<d", 2.0),
        **changes,
    }
    body = Body("test", NOW_S, NOW_S * 1000, NOW_S * 1000, 0, 0, 1, events, {}, False, None, **columns)
    return seal(producer, 1, events, body)


def with_content(producer: bytes, content: bytes, flags: int = 0) -> bytes:
    """A batch with a right checksum around any content."""
    head = struct.pack("<4sHH16sQQ", wire.MAGIC, wire.VERSION, flags, producer, 1, 2)
    data = head + bytes(8) + content
    return head + wire.checksum_of(data) + content


def with_key(producer: bytes, key: bytes, name: str = "hits_total") -> bytes:
    directory = Directory((MetricDef(name, Kind.COUNTER),), [key], struct.pack("<H", 0), 1, 0, 0, 0)
    return with_body(producer, directory=encode_directory(directory))


def flipped(data: bytes) -> bytes:
    return data[:60] + bytes([data[60] ^ 1]) + data[61:]


def samples(producer: bytes, *values: float) -> bytes:
    return good(producer, counters={}, histograms={b"size": values})


BOMB = zstandard.ZstdCompressor(level=19).compress(bytes(64 << 20))
UNTRUSTED: dict[str, tuple[Make, str]] = {
    "empty": (lambda p: b"", "truncated"),
    "foreign": (lambda p: b"GET / HTTP/1.1\r\n" * 9, "bad_magic"),
    "truncated": (lambda p: good(p)[:-3], "checksum"),
    "bit flipped": (lambda p: flipped(good(p)), "checksum"),
    "too long": (lambda p: good(p) + bytes(wire.MAX_BATCH_BYTES), "too_large"),
}
TRUSTED: dict[str, tuple[Make, str]] = {
    "NaN": (lambda p: samples(p, 1.0, float("nan")), "malformed"),
    "+Inf": (lambda p: samples(p, 1.0, float("inf")), "malformed"),
    "-Inf": (lambda p: samples(p, float("-inf"), 1.0), "malformed"),
    "NUL in a label": (lambda p: with_key(p, b'hits_total{x="a\0b"}'), "malformed"),
    "3 kB label": (lambda p: with_key(p, b'hits_total{x="' + b"y" * 3000 + b'"}'), "malformed"),
    "bad UTF-8": (lambda p: with_key(p, b'hits_total{x="\xff"}'), "malformed"),
    "forged line": (lambda p: with_key(p, b'hits_total 1\nup{x="1"}'), "malformed"),
    "labels not sorted": (lambda p: with_key(p, b'hits_total{b="1",a="2"}'), "malformed"),
    "key of another metric": (lambda p: with_key(p, b"other_total"), "malformed"),
    "bad metric name": (lambda p: with_key(p, b"a-b", "a-b"), "malformed"),
    "count of 2^63": (lambda p: with_body(p, counter_n=struct.pack("<Q", 1 << 63)), "malformed"),
    "counts that do not add up": (lambda p: with_body(p, counter_n=struct.pack("<Q", 3)), "malformed"),
    "negative increment": (lambda p: with_body(p, counter_sum=struct.pack("<d", -1.0)), "malformed"),
    "short column": (lambda p: with_body(p, counter_sum=b""), "malformed"),
    "no msgpack": (lambda p: with_content(p, b"\xc1" * 50), "malformed"),
    "deep nesting": (lambda p: with_content(p, b"\x91" * 100_000), "malformed"),
    "huge length": (lambda p: with_content(p, b"\xdd\xff\xff\xff\xff"), "malformed"),
    "zstd bomb": (lambda p: with_content(p, BOMB, wire.COMPRESSED), "too_large"),
    "no zstd": (lambda p: with_content(p, b"\0" * 50, wire.COMPRESSED), "malformed"),
    "far future": (lambda p: good(p, window_s=NOW_S + 86_400), "future"),
    "NUL in the run id": (lambda p: good(p, run_id="a\0b"), "malformed"),
    "NUL in a reason to drop": (lambda p: good(p, dropped={"a\0b": 1}), "malformed"),
    "long reason to drop": (lambda p: good(p, dropped={"x" * 65: 1}), "malformed"),
    "accepted of 2^62": (lambda p: good(p, accepted=(1 << 62) - 1), "malformed"),
    "dropped of 2^62": (lambda p: good(p, accepted=2 + (1 << 52), dropped={"nonfinite": 1 << 52}), "malformed"),
}


async def neighbours_commit(c: Consumer, bad: bytes) -> list[dict[str, Any]]:
    """Send a bad entry between good ones; everything is acknowledged, the good are committed."""
    before, after = batches(2)
    await c.send(before, bad, after)
    assert await c.consume() == 3
    assert await c.pending() == 0
    assert await c.one("SELECT n FROM totals JOIN series USING (series_id) WHERE key LIKE 'hits_total{%'") == 6
    return await c.rows("SELECT reason, payload, seq, events FROM quarantine")


@pytest.mark.parametrize("name", UNTRUSTED)
async def test_untrusted_bytes_are_set_aside_and_touch_no_ledger(name: str, dsn: str, redis_url: str) -> None:
    """Nothing in them can be believed, the seq least of all."""
    make, reason = UNTRUSTED[name]
    async with consumer(dsn, redis_url) as c:
        data = make(os.urandom(16))
        (row,) = await neighbours_commit(c, data)
        assert row == {"reason": reason, "payload": data, "seq": None, "events": None}
        assert await c.one("SELECT count(*) FROM producers") == 1


@pytest.mark.parametrize("name", TRUSTED)
async def test_bad_content_is_quarantined_under_its_seq(name: str, dsn: str, redis_url: str) -> None:
    """Its producer's ledger says where its events are."""
    make, reason = TRUSTED[name]
    producer = os.urandom(16)
    async with consumer(dsn, redis_url) as c:
        data = make(producer)
        (row,) = await neighbours_commit(c, data)
        assert row == {"reason": reason, "payload": data, "seq": 1, "events": 2}
        query = "SELECT accepted, committed_events, quarantined_events FROM producers WHERE quarantined <> '{}'"
        assert [tuple(r.values()) for r in await c.rows(query)] == [(2, 0, 2)]


async def test_quarantined_entry_delivered_again_is_kept_once(dsn: str, redis_url: str) -> None:
    """A crash between quarantine and XACK doubles nothing."""
    async with consumer(dsn, redis_url) as c:
        await c.send(b"no batch", with_body(os.urandom(16), counter_sum=b""))
        await c.committer.settle(await c.read())
        c.reader.restart()
        await c.consume()
        assert await c.one("SELECT count(*) FROM quarantine") == 2
        assert await c.one("SELECT sum(quarantined_events) FROM producers") == 2


async def test_unknown_version_is_parked_until_somebody_knows_it(dsn: str, redis_url: str) -> None:
    """A newer producer's batch is no poison."""
    producer = os.urandom(16)
    data = bytearray(good(producer))
    data[4:6] = struct.pack("<H", wire.VERSION + 1)
    data[40:48] = wire.checksum_of(bytes(data))
    async with consumer(dsn, redis_url) as c:
        assert await neighbours_commit(c, bytes(data)) == []
        (row,) = await c.rows("SELECT reason, version, events, payload FROM parked")
        assert row == {"reason": "unknown_version", "version": 2, "events": 2, "payload": bytes(data)}


async def test_far_past_is_booked_to_the_oldest_open_window(dsn: str, redis_url: str) -> None:
    """Counted, never dropped: `displaced`."""
    async with consumer(dsn, redis_url) as c:
        assert (
            await neighbours_commit(c, good(os.urandom(16), window_s=NOW_S - 3 * 86_400, flushed_ms=NOW_S * 1000)) == []
        )
        assert await c.one("SELECT sum(displaced) FROM producers") == 1
        age = "SELECT extract(epoch FROM now() - min(window_start)) FROM parts"
        assert 86_000 < await c.one(age) < 86_420


async def test_batch_without_history_is_parked(dsn: str, redis_url: str) -> None:
    """Sealed longer ago than ledgers live, by a producer that has none: nobody can tell whether it was applied."""
    async with consumer(dsn, redis_url) as c:
        old_ms = (NOW_S - 8 * 86_400) * 1000
        assert await neighbours_commit(c, good(os.urandom(16), flushed_ms=old_ms)) == []
        assert await c.one("SELECT reason FROM parked") == "unknown_history"


async def test_another_kind_sets_aside_just_its_columns(dsn: str, redis_url: str) -> None:
    """The rest of the batch commits, and the events add up."""
    producer = os.urandom(16)
    async with consumer(dsn, redis_url) as c:
        await c.send(good(os.urandom(16), counters={}, gauges={b"hits_total": [1.0]}))
        await c.consume()
        await c.send(good(producer, histograms={b"size": [1.0, 2.0, 3.0]}))
        await c.consume()
        (row,) = await c.rows("SELECT reason, events FROM quarantine")
        assert row == {"reason": "kind_conflict", "events": 2}
        query = "SELECT accepted, committed_events, quarantined_events FROM producers ORDER BY producer_no DESC LIMIT 1"
        assert [tuple(r.values()) for r in await c.rows(query)] == [(5, 3, 2)]


async def test_seq_far_above_everything_seen_is_refused(dsn: str, redis_url: str) -> None:
    """It would open a gap of a million batches."""
    async with consumer(dsn, redis_url) as c:
        data = make_batch(os.urandom(16), 5_000_000, counters={b"hits_total": (2, 2.0)}, window_s=NOW_S)
        (row,) = await neighbours_commit(c, data)
        assert (row["reason"], row["seq"]) == ("seq_jump", None)
        assert await c.one("SELECT count(*) FROM gaps") == 0


async def test_far_seq_of_bad_content_opens_no_gap(dsn: str, redis_url: str) -> None:
    """What cannot be read may still claim any seq: kept with its bytes, and the ledger believes none of it."""
    producer = os.urandom(16)
    head = struct.pack("<4sHH16sQQ", wire.MAGIC, wire.VERSION, 0, producer, 1 << 61, 2)
    far = head + wire.checksum_of(head + bytes(8) + b"no body") + b"no body"
    async with consumer(dsn, redis_url) as c:
        row, *_ = await neighbours_commit(c, far)
        assert row == {"reason": "malformed", "payload": far, "seq": None, "events": None}
        assert await c.one("SELECT count(*) FROM gaps") == 0
        assert await c.one("SELECT max(top_seq) FROM producers") == 2


async def test_bad_content_of_a_producer_that_was_just_retired_is_set_aside(dsn: str, redis_url: str) -> None:
    """Its cached number is no longer valid: it gets a new row, as with a batch that is applied."""
    producer = os.urandom(16)
    async with consumer(dsn, redis_url) as c:
        await c.send(good(producer))
        await c.consume()
        await (await c.pool()).execute("UPDATE producers SET last_seen = now() - interval '8 days'")
        assert await c.one("SELECT retire_producers(7 * 86400)") == 1
        await c.send(with_body(producer, counter_sum=b""))
        assert await c.consume() == 1
        assert await c.rows("SELECT quarantined::text, quarantined_events FROM producers") == [
            {"quarantined": "{[1,2)}", "quarantined_events": 2}
        ]


async def test_surplus_series_go_to_the_overflow_series(dsn: str, redis_url: str) -> None:
    """Beyond a metric's budget totals stay right."""
    async with consumer(dsn, redis_url, streamgauge_series_budget=3) as c:
        counters = {f'hits_total{{x="{i}"}}'.encode(): (1, 1.0) for i in range(10)}
        await c.send(good(os.urandom(16), counters=counters))
        await c.consume()
        assert await c.one("SELECT sum(n) FROM totals") == 10
        overflow = "SELECT n FROM totals JOIN series USING (series_id) WHERE key = 'hits_total{overflow=\"true\"}'"
        assert await c.one(overflow) == 7


def test_encoder_of_the_corpus_is_not_the_decoder() -> None:
    """The corpus is made by hand where it must be: a body is an array whose first field is the service."""
    assert msgspec.msgpack.decode(good(bytes(16))[48:])[0] == "test"


async def test_window_is_no_future_where_redis_is_as_far_ahead(dsn: str, redis_url: str) -> None:
    """A clock was set, of Redis or of the database: the batch is booked to the window of now, and displaced."""
    async with consumer(dsn, redis_url) as c:
        ahead_s = NOW_S + 86_400
        data = good(os.urandom(16), window_s=ahead_s)
        await c.link.xadd(stream_key(SHARD), {FIELD: data}, id=f"{ahead_s * 1000}-0")
        assert await c.consume() == 1
        assert await c.one("SELECT count(*) FROM quarantine") == 0
        assert await c.one("SELECT sum(displaced) FROM producers") == 1
        assert await c.one("SELECT abs(extract(epoch FROM now() - min(window_start))) < 60 FROM parts")


def of_run(run_id: str, producer: bytes | None = None) -> bytes:
    return good(producer or os.urandom(16), run_id=run_id)


async def test_batches_of_more_runs_than_may_be_make_no_schema(dsn: str, redis_url: str) -> None:
    """Whoever may send may name any run: beyond the limit its batches are kept aside, and the others go on."""
    async with consumer(dsn, redis_url, streamgauge_load_runs=2) as c:
        beyond = [of_run(f"flood-{n}") for n in range(5)]
        await c.send(of_run("one"), of_run("two"), *beyond, good(os.urandom(16)))
        assert await c.consume() == 8
        runs = await c.rows("SELECT run_id, schema_name FROM load_runs ORDER BY run_id")
        assert [run["run_id"] for run in runs] == ["one", "two"]
        for run in runs:
            assert await c.one(f'SELECT sum(n) FROM "{run["schema_name"]}".totals') == 2
        kept = await c.rows("SELECT reason, payload, seq FROM quarantine")
        assert sorted(row["payload"] for row in kept) == sorted(beyond)
        assert {(row["reason"], row["seq"]) for row in kept} == {("run_limit", None)}
        assert await c.one("SELECT sum(n) FROM totals") == 2
        await purge(await c.pool(), "one")
        await c.send(of_run("flood-0"))
        await c.consume()
        assert await c.one("SELECT count(*) FROM load_runs WHERE purged_at IS NULL") == 2


async def test_many_runs_leave_few_pools_open(dsn: str, redis_url: str) -> None:
    """Each had one that nobody closed: they would take every connection that PostgreSQL has."""
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'streamgauge-aggregator' AND datname = $1"
    async with consumer(dsn, redis_url) as c:
        for n in range(3 * OPEN_RUNS):
            await c.send(of_run(f"run-{n % (2 * OPEN_RUNS)}"))
            await c.consume()
        assert len(c.lanes.open_lanes()) == 1 + OPEN_RUNS
        assert await c.one(count, await c.one("SELECT current_database()")) <= 3 + OPEN_RUNS
        committed = [
            await c.one(f'SELECT sum(n) FROM "{run["schema_name"]}".totals')
            for run in await c.rows("SELECT schema_name FROM load_runs")
        ]
        assert sum(committed) == 2 * 3 * OPEN_RUNS
