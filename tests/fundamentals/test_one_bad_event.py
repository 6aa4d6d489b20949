"""I6: one bad event harms nobody else: it is refused at the door, or set aside with its bytes and reason."""

import os

from tests.batches import make_batch
from tests.consuming import consumer
from tests.fundamentals.test_one_effect import NOW_S, batches


async def test_neighbours_of_a_corrupted_batch_commit(dsn: str, redis_url: str) -> None:
    """The corrupted one is kept with its bytes; its seq cannot be trusted, so no ledger is touched by it."""
    async with consumer(dsn, redis_url) as c:
        before, damaged, after = batches(3)
        damaged = damaged[:60] + bytes([damaged[60] ^ 1]) + damaged[61:]
        await c.send(before, damaged, after)
        assert await c.consume() == 3
        assert await c.rows("SELECT reason, payload FROM quarantine") == [{"reason": "checksum", "payload": damaged}]
        assert await c.rows("SELECT applied::text FROM producers") == [{"applied": "{[1,2),[3,4)}"}]
        assert await c.one("SELECT sum(n) FROM totals") == 10
        assert await c.pending() == 0


REFUSE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'out of range' USING ERRCODE = '22003'; END $$;
"""


async def test_data_fault_is_pinned_on_the_batch_that_causes_it(dsn: str, redis_url: str) -> None:
    """What only PostgreSQL refuses is found by dividing: the others of its commit are applied."""
    async with consumer(dsn, redis_url) as c:
        trigger = "CREATE TRIGGER refuse BEFORE INSERT ON totals FOR EACH ROW WHEN (NEW.sum = 666) EXECUTE FUNCTION "
        await (await c.pool()).execute(f"{REFUSE} {trigger} refuse()")
        bad = make_batch(os.urandom(16), 1, counters={b"odd_total": (2, 666.0)}, window_s=NOW_S)
        await c.send(*batches(4), bad, *batches(3))
        assert await c.consume() == 8
        assert await c.rows("SELECT reason, events FROM quarantine") == [{"reason": "database", "events": 2}]
        assert await c.one("SELECT sum(committed_events) FROM producers") == 35
        assert await c.pending() == 0


async def test_data_fault_of_an_identity_is_pinned_too(dsn: str, redis_url: str) -> None:
    """What PostgreSQL refuses before anything is applied, of a producer that cannot be registered at all."""
    async with consumer(dsn, redis_url) as c:
        trigger = "CREATE TRIGGER refuse BEFORE INSERT ON producers FOR EACH ROW WHEN (NEW.service = 'odd') EXECUTE "
        await (await c.pool()).execute(f"{REFUSE} {trigger} FUNCTION refuse()")
        bad = make_batch(os.urandom(16), 1, counters={b"odd_total": (2, 2.0)}, window_s=NOW_S, service="odd")
        await c.send(*batches(4), bad, *batches(3))
        assert await c.consume() == 8
        kept = await c.rows("SELECT reason, payload, seq FROM quarantine")
        assert kept == [{"reason": "database", "payload": bad, "seq": None}]
        assert await c.one("SELECT sum(committed_events) FROM producers") == 35
        assert await c.pending() == 0


async def test_what_the_ledger_refuses_to_set_aside_is_kept_with_its_bytes(dsn: str, redis_url: str) -> None:
    """A data fault of the quarantine itself ends nothing: the entry is kept, without a seq."""
    async with consumer(dsn, redis_url) as c:
        when = "FOR EACH ROW WHEN (NEW.quarantined <> '{}') EXECUTE FUNCTION refuse()"
        await (await c.pool()).execute(f"{REFUSE} CREATE TRIGGER refuse BEFORE UPDATE ON producers {when}")
        bad = make_batch(os.urandom(16), 1, counters={b"late_total": (2, 2.0)}, window_s=NOW_S + 86_400)
        await c.send(*batches(2), bad, *batches(2))
        assert await c.consume() == 5
        assert await c.rows("SELECT reason, payload, seq FROM quarantine") == [
            {"reason": "future", "payload": bad, "seq": None}
        ]
        assert await c.one("SELECT sum(committed_events) FROM producers") == 20
        assert await c.pending() == 0
