"""I2: accepted = committed + dropped + quarantined + lost + in flight, for each producer."""

import asyncio
import os
from typing import Any

from contract.batch import read_envelope
from contract.streams import TALLIES_KEY
from tests.batches import make_batch
from tests.consuming import consumer
from tests.fundamentals.test_commit_then_ack import until
from tests.fundamentals.test_one_effect import NOW_S, batches


async def test_missing_batch_is_a_gap_with_its_events(dsn: str, redis_url: str) -> None:
    """The neighbours' cumulative counts tell how many events the missing ones held."""
    async with consumer(dsn, redis_url) as c:
        all_of_them = batches(6)
        await c.send(*(b for i, b in enumerate(all_of_them, 1) if i not in (3, 4)))
        await c.consume()
        gaps = await c.rows("SELECT first_seq, end_seq, sealed_after - sealed_before AS events FROM gaps")
        assert gaps == [{"first_seq": 3, "end_seq": 5, "events": 10}]
        ledger = await c.rows("SELECT accepted, committed_events FROM producers")
        assert ledger == [{"accepted": 30, "committed_events": 20}]


async def test_part_of_a_gap_that_arrives_leaves_the_rest(dsn: str, redis_url: str) -> None:
    """A gap is split, not forgotten."""
    async with consumer(dsn, redis_url) as c:
        all_of_them = batches(7)
        await c.send(all_of_them[0], all_of_them[6])
        await c.consume()
        await c.send(all_of_them[3])
        await c.consume()
        gaps = await c.rows("SELECT first_seq, end_seq, sealed_after - sealed_before AS events FROM gaps ORDER BY 1")
        assert gaps == [
            {"first_seq": 2, "end_seq": 4, "events": 10},
            {"first_seq": 5, "end_seq": 7, "events": 10},
        ]


async def test_drops_of_the_producer_are_part_of_the_sum(dsn: str, redis_url: str) -> None:
    """What a producer dropped travels in every batch, by reason."""
    producer = os.urandom(16)
    async with consumer(dsn, redis_url) as c:
        kept = {b"hits_total": (4, 4.0)}
        await c.send(make_batch(producer, 1, counters=kept, window_s=NOW_S, accepted=7, dropped={"nonfinite": 3}))
        await c.consume()
        (row,) = await c.rows("SELECT accepted, committed_events, dropped FROM producers")
        assert (row["accepted"], row["committed_events"], row["dropped"]) == (7, 4, '{"nonfinite": 3}')


async def test_quarantined_events_are_part_of_the_sum(dsn: str, redis_url: str) -> None:
    """A batch that can never be applied is accounted for under its seq, not left as a gap."""
    producer = os.urandom(16)
    async with consumer(dsn, redis_url) as c:
        first, second, third = batches(3, producer)
        future = make_batch(producer, 2, counters={b"hits_total": (5, 5.0)}, window_s=NOW_S + 3600, accepted=10)
        assert read_envelope(second).events == read_envelope(future).events
        await c.send(first, future, third)
        await c.consume()
        (row,) = await c.rows("SELECT accepted, committed_events, quarantined_events, quarantined::text FROM producers")
        assert tuple(row.values()) == (15, 10, 5, "{[2,3)}")
        assert await c.one("SELECT count(*) FROM gaps") == 0


async def test_trimmed_payload_is_counted_and_shows_as_a_gap(dsn: str, redis_url: str) -> None:
    """Entries trimmed while pending come back without a payload: counted, acknowledged, and missing by seq."""
    async with consumer(dsn, redis_url) as c:
        all_of_them = batches(3)
        await c.send(*all_of_them[:2])
        entries = await c.read()
        await c.link.xdel("sg:{00}", entries[1].stream_id)
        c.reader.restart()
        await c.send(all_of_them[2])
        await c.consume()
        assert c.reader.lost == [entries[1].stream_id]
        assert await c.one("SELECT sealed_after - sealed_before FROM gaps") == 5


async def test_what_is_gone_is_counted_once_though_counting_failed_first(dsn: str, redis_url: str) -> None:
    """A deleted entry leaves the pending list with the reply that tells of it: its id is kept until it is counted."""
    refuse = """
        CREATE SEQUENCE tried;
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM nextval('tried'); RAISE EXCEPTION 'the disk is full' USING ERRCODE = '53100'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON tallies FOR EACH ROW EXECUTE FUNCTION refuse();
    """
    gone = "SELECT value FROM tallies WHERE name = 'payload_gone'"
    fast: dict[str, Any] = {"streamgauge_commit_interval_s": 0.01, "streamgauge_reclaim_interval_s": 0.05}
    async with consumer(dsn, redis_url, "dead") as dead, consumer(dsn, redis_url, **fast) as c:
        await c.send(*batches(2))
        entries = await dead.read()
        await c.link.xdel("sg:{00}", entries[0].stream_id)
        await (await c.pool()).execute(refuse)
        shard = c.shard()
        running = asyncio.create_task(shard.run())
        await until(c, "SELECT coalesce(pg_sequence_last_value('tried'), 0) >= 2")
        await (await c.pool()).execute("DROP TRIGGER refuse ON tallies")
        await until(c, f"SELECT coalesce(({gone}), 0) > 0")
        await until(c, "SELECT sum(committed_events) = 5 FROM producers")
        shard.stop.set()
        await running
        assert await c.one(gone) == 1
        assert await c.link.hgetall(TALLIES_KEY) == {b"payload_gone": b"1"}
        assert await c.pending() == 0
