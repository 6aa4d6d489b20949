"""I1: a batch changes rollups and totals at most once, however often it is sent, delivered, claimed or replayed."""

import asyncio
import os
import time
from typing import Any

from database import upkeep
from database.settings import RetentionSettings
from tests.batches import make_batch
from tests.consuming import Consumer, consumer

NOW_S = int(time.time()) // 10 * 10


def batches(count: int, producer: bytes | None = None) -> list[bytes]:
    """Consecutive batches of one producer: 3 increments and 2 samples each."""
    producer = producer or os.urandom(16)
    return [
        make_batch(
            producer,
            seq,
            counters={b'hits_total{x="1"}': (3, 3.0)},
            histograms={b"size": [0.5, 2.0]},
            window_s=NOW_S,
            accepted=5 * seq,
        )
        for seq in range(1, count + 1)
    ]


async def state(c: Consumer) -> dict[str, Any]:
    """What one effect is: the ledger, the totals with their `le` counts, the parts."""
    return {
        "ledger": await c.rows("SELECT applied::text, committed_events, accepted FROM producers"),
        "totals": await c.rows("SELECT key, n, sum, le FROM totals JOIN series USING (series_id) ORDER BY key"),
        "parts": await c.rows("SELECT series_id, sum(n) AS n, sum(sum) AS sum FROM parts GROUP BY 1 ORDER BY 1"),
    }


async def test_batch_sent_eleven_times_is_applied_once(dsn: str, redis_url: str) -> None:
    """A lost reply makes redis-py's defaults send eleven; the ledger leaves one."""
    async with consumer(dsn, redis_url) as c:
        (batch,) = batches(1)
        await c.send(batch)
        await c.consume()
        once = await state(c)
        await c.send(*[batch] * 10)
        assert await c.consume() == 10
        assert await state(c) == once
        assert await c.one("SELECT duplicates FROM producers") == 10
        assert await c.one("SELECT n FROM totals WHERE le IS NULL") == 3


async def test_copies_within_one_commit_are_applied_once(dsn: str, redis_url: str) -> None:
    """Also when all copies are folded together."""
    async with consumer(dsn, redis_url) as c:
        first, second = batches(2)
        await c.send(first, first, second, first, second)
        await c.consume()
        assert await c.one("SELECT committed_events FROM producers") == 10
        assert await c.one("SELECT duplicates FROM producers") == 3


async def test_redelivered_batch_is_applied_once(dsn: str, redis_url: str) -> None:
    """A consumer that dies between COMMIT and XACK leaves its entries pending; they are delivered again."""
    async with consumer(dsn, redis_url) as c:
        await c.send(*batches(5))
        entries = await c.read()
        await c.committer.settle(entries)
        once = await state(c)
        c.reader.restart()
        assert await c.consume() == 5
        assert await state(c) == once
        assert await c.pending() == 0


async def test_claimed_batch_is_applied_once(dsn: str, redis_url: str) -> None:
    """Another consumer claims what the first one has committed and not acknowledged."""
    async with consumer(dsn, redis_url) as first, consumer(dsn, redis_url, "other") as other:
        await first.send(*batches(5))
        await first.committer.settle(await first.read())
        once = await state(first)
        claimed = await other.reader.reclaim(100)
        assert len(claimed) == 5
        await other.committer.settle(claimed)
        await other.ack(claimed)
        assert await state(first) == once


async def test_two_aggregators_commit_the_same_batches_at_once(dsn: str, redis_url: str) -> None:
    """The producer's row lock decides; one of them finds only duplicates."""
    async with consumer(dsn, redis_url) as first, consumer(dsn, redis_url, "other") as other:
        await first.send(*batches(20))
        entries = await first.read()
        await asyncio.gather(first.committer.settle(entries), other.committer.settle(list(reversed(entries))))
        assert await first.one("SELECT committed_events FROM producers") == 100
        assert await first.one("SELECT duplicates FROM producers") == 20
        assert await first.one("SELECT sum(n) FROM totals") == 100


async def test_order_of_delivery_does_not_matter(dsn: str, redis_url: str) -> None:
    """A higher seq may be applied first: the ledger keeps intervals, not a high-water mark."""
    async with consumer(dsn, redis_url) as c:
        one, two, three, four = batches(4)
        await c.send(three, one)
        await c.consume()
        assert await c.one("SELECT applied::text FROM producers") == "{[1,2),[3,4)}"
        await c.send(four, two, three)
        await c.consume()
        assert await c.one("SELECT applied::text FROM producers") == "{[1,5)}"
        assert await c.one("SELECT committed_events FROM producers") == 20
        assert await c.one("SELECT count(*) FROM gaps") == 0


async def test_same_seq_with_other_content_raises_an_alarm(dsn: str, redis_url: str) -> None:
    """Forged or corrupted: the second content has no effect and is kept as evidence."""
    producer = os.urandom(16)
    async with consumer(dsn, redis_url) as c:
        await c.send(*batches(1, producer))
        await c.consume()
        once = await state(c)
        await c.send(make_batch(producer, 1, counters={b"hits_total": (9, 9.0)}, window_s=NOW_S))
        await c.consume()
        assert await state(c) == once
        assert await c.one("SELECT reason FROM quarantine") == "conflict"


async def test_another_aggregator_knows_what_was_applied_under_a_seq(dsn: str, redis_url: str) -> None:
    """The checksums are in the ledger: neither a restart nor a second reader makes a forged batch a mere duplicate."""
    producer = os.urandom(16)
    async with consumer(dsn, redis_url) as c:
        await c.send(*batches(2, producer))
        await c.consume()
    async with consumer(dsn, redis_url, "other") as c:
        once = await state(c)
        forged = make_batch(producer, 1, counters={b"hits_total": (9, 9.0)}, window_s=NOW_S)
        await c.send(forged, *batches(2, producer))
        await c.consume()
        assert await state(c) == once
        assert await c.rows("SELECT reason, payload FROM quarantine") == [{"reason": "conflict", "payload": forged}]
        assert await c.one("SELECT duplicates FROM producers") == 3


async def test_two_contents_under_one_seq_in_one_commit_raise_an_alarm(dsn: str, redis_url: str) -> None:
    """The first one is applied."""
    producer = os.urandom(16)
    async with consumer(dsn, redis_url) as c:
        forged = make_batch(producer, 1, counters={b"hits_total": (9, 9.0)}, window_s=NOW_S)
        await c.send(*batches(1, producer), forged, *batches(1, producer))
        await c.consume()
        assert await c.one("SELECT committed_events FROM producers") == 5
        assert await c.rows("SELECT reason, payload FROM quarantine") == [{"reason": "conflict", "payload": forged}]


async def test_malformed_batch_under_the_next_seq_of_another_raises_an_alarm(dsn: str, redis_url: str) -> None:
    """Whoever takes a seq first is accounted for under it; the other content is kept, whichever it is."""
    producer = os.urandom(16)
    first, second = batches(2, producer)
    malformed = make_batch(producer, 2, counters={b"hits_total": (9, 9.0)}, window_s=NOW_S + 86_400)
    async with consumer(dsn, redis_url) as c:
        await c.send(first, malformed, second, malformed, first)
        await c.consume()
        assert await c.one("SELECT committed_events FROM producers") == 5
        assert await c.rows("SELECT reason, payload FROM quarantine ORDER BY reason") == [
            {"reason": "conflict", "payload": second},
            {"reason": "future", "payload": malformed},
        ]
        assert await c.one("SELECT duplicates FROM producers") == 3


async def test_malformed_batch_under_an_applied_seq_raises_an_alarm(dsn: str, redis_url: str) -> None:
    """It cannot be applied, and it is no copy of what was."""
    producer = os.urandom(16)
    malformed = make_batch(producer, 1, counters={b"hits_total": (9, 9.0)}, window_s=NOW_S + 86_400)
    async with consumer(dsn, redis_url) as c:
        await c.send(*batches(2, producer))
        await c.consume()
        once = await state(c)
        await c.send(malformed)
        await c.consume()
        assert await state(c) == once
        assert await c.rows("SELECT reason, payload FROM quarantine") == [{"reason": "conflict", "payload": malformed}]


async def test_copies_are_counted_though_numbers_were_looked_up_again(dsn: str, redis_url: str) -> None:
    """Copies within a commit, and one that alone makes a commit: each is counted, so that its ack waits for a write."""
    async with consumer(dsn, redis_url) as c:
        (batch,) = batches(1)
        await c.send(batch)
        await c.consume()
        await (await c.pool()).execute("UPDATE state SET generation = generation + 1")
        await c.send(batch, batch)
        await c.consume()
        assert await c.one("SELECT duplicates FROM producers") == 2
        await (await c.pool()).execute(STALE_ONCE)
        await c.send(batch)
        await c.consume()
        assert await c.one("SELECT duplicates FROM producers") == 3
        assert await c.one("SELECT count(*) FROM commits") == 3


STALE_ONCE = """
CREATE SEQUENCE tried;
CREATE FUNCTION stale_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('tried') = 1 THEN RAISE EXCEPTION 'generation changed' USING ERRCODE = 'SG001'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER stale_once BEFORE UPDATE ON producers FOR EACH ROW EXECUTE FUNCTION stale_once();
"""


async def test_duplicates_are_counted_where_a_neighbour_is_refused(dsn: str, redis_url: str) -> None:
    """A commit that is divided until a data fault stands alone keeps its count of copies."""
    refuse = """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'out of range' USING ERRCODE = '22003'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON totals FOR EACH ROW WHEN (NEW.sum = 666) EXECUTE FUNCTION refuse();
    """
    bad = make_batch(os.urandom(16), 1, counters={b"odd_total": (2, 666.0)}, window_s=NOW_S)
    async with consumer(dsn, redis_url) as c:
        await (await c.pool()).execute(refuse)
        first, second = batches(2)
        await c.send(first)
        await c.consume()
        await c.send(first, bad, first, second)
        await c.consume()
        assert await c.one("SELECT max(duplicates) FROM producers") == 2
        assert await c.one("SELECT max(committed_events) FROM producers") == 10


async def test_checksums_are_forgotten_with_the_replay_window(dsn: str, redis_url: str) -> None:
    async with consumer(dsn, redis_url) as c:
        await c.send(*batches(2))
        await c.consume()
        pool = await c.pool()
        assert await upkeep.run(pool, RetentionSettings(), drained=True) == []
        assert await c.one("SELECT count(*) FROM checksums") == 1
        await pool.execute("UPDATE checksums SET at = at - interval '1 hour'")
        assert await upkeep.run(pool, RetentionSettings(), drained=True) == []
        assert await c.one("SELECT count(*) FROM checksums") == 0
