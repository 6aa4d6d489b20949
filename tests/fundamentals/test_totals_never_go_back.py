"""I4: no restart, failover, slow commit or second exporter makes a served counter fall."""

import asyncio
import itertools

import pytest
import redis

from contract.streams import DATABASE_KEY, OWNER_KEY
from tests.exporting import exporter, scrape, writer

KEY = "shop_requests_total"


@pytest.fixture
async def series(dsn: str) -> int:
    async with writer(dsn) as rows, rows.connection.transaction():
        number = await rows.series(await rows.metric(KEY, 1), KEY)
        await rows.total(number, 1, 1.0)
        await rows.commit(number)
        return number


async def test_two_exporters_and_a_restarted_one_never_show_less(dsn: str, redis_url: str, series: int) -> None:
    """Scraped in turns while commits go on, as behind one address: every answer is at least the one before."""
    stop = asyncio.Event()

    async def commit_for_ever(shard: int) -> None:
        async with writer(dsn) as rows:
            while not stop.is_set():
                async with rows.connection.transaction():
                    await rows.total(series, 1, 0.1, shard=shard)
                    await rows.commit(series)

    seen: list[float] = []
    async with exporter(dsn, redis_url) as one, asyncio.TaskGroup() as tasks:
        for shard in range(3):
            tasks.create_task(commit_for_ever(shard))
        for _ in range(3):
            async with exporter(dsn, redis_url) as other:
                for client in itertools.islice(itertools.cycle((one, other)), 30):
                    seen.append((await scrape(client))[KEY])
        stop.set()
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]


async def test_commit_that_was_slower_than_a_later_one_is_not_missed(dsn: str, redis_url: str, series: int) -> None:
    """A transaction that drew its commit number first and committed last is read by the scrape after it."""
    async with exporter(dsn, redis_url) as client, writer(dsn) as slow, writer(dsn) as quick:
        other = await quick.series(await quick.metric("shop_other_total", 1), "shop_other_total")
        transaction = slow.connection.transaction()
        await transaction.start()
        await slow.total(series, 1, 10.0)
        await slow.commit(series)
        async with quick.connection.transaction():
            await quick.total(other, 1, 5.0)
            await quick.commit(other)
        before = await scrape(client)
        assert (before["shop_other_total"], before[KEY]) == (5, 1)
        await transaction.commit()
        assert (await scrape(client))[KEY] == 11


async def test_nothing_is_served_behind_a_fence(dsn: str, redis_url: str, series: int) -> None:
    """While totals are being restored, a gap; afterwards everything is read anew."""
    async with exporter(dsn, redis_url) as client, writer(dsn) as rows:
        assert (await scrape(client))[KEY] == 1
        await rows.connection.execute("INSERT INTO fences (reason, raised_by) VALUES ('test', 'test')")
        assert (await client.get("/metrics")).status_code == 503
        assert (await client.get("/readyz")).status_code == 503
        await rows.connection.execute("UPDATE fences SET lowered_at = now()")
        assert (await scrape(client))[KEY] == 1


async def test_database_that_acknowledgements_do_not_refer_to_is_not_served(
    dsn: str, redis_url: str, series: int
) -> None:
    """A promoted standby may lack a tail of commits until it was replayed: the identity in Redis tells."""
    async with exporter(dsn, redis_url) as client, writer(dsn) as rows:
        system = await rows.connection.fetchval("SELECT system_identifier FROM pg_control_system()")
        with redis.Redis.from_url(redis_url, protocol=2, socket_timeout=10) as link:
            for identity, status in ((f"{system}/1", 200), (f"{system}/2", 503)):
                link.set(DATABASE_KEY, identity)
                assert (await client.get("/metrics")).status_code == status


async def test_database_is_not_served_once_another_one_is_being_restored(dsn: str, redis_url: str, series: int) -> None:
    """It may live on and commit what the other one has yet to fold; neither is served before that is done."""
    async with exporter(dsn, redis_url) as client, writer(dsn) as rows:
        system = await rows.connection.fetchval("SELECT system_identifier FROM pg_control_system()")
        with redis.Redis.from_url(redis_url, protocol=2, socket_timeout=10) as link:
            link.set(DATABASE_KEY, f"{system}/1")
            link.set(OWNER_KEY, f"{system}/1")
            assert (await client.get("/metrics")).status_code == 200
            link.set(DATABASE_KEY, f"{system}/0")
            assert (await client.get("/metrics")).status_code == 503, "this one is being restored"
            link.set(DATABASE_KEY, f"{system}/1")
            assert (await client.get("/metrics")).status_code == 200
            link.set(OWNER_KEY, f"{system}/2")
            assert (await client.get("/metrics")).status_code == 503, "another one is"


async def test_changed_generation_reads_everything_anew(dsn: str, redis_url: str, series: int) -> None:
    """`forget` invalidates what is cached: a forgotten series is gone, the others keep their totals."""
    async with exporter(dsn, redis_url) as client, writer(dsn) as rows:
        gone = await rows.series(await rows.metric("shop_gone_total", 1), "shop_gone_total")
        async with rows.connection.transaction():
            await rows.total(gone, 1, 3.0)
            await rows.commit(gone)
        assert (await scrape(client))["shop_gone_total"] == 3
        async with rows.connection.transaction():
            await rows.connection.execute("DELETE FROM totals WHERE series_id = $1", gone)
            await rows.connection.execute("DELETE FROM series WHERE series_id = $1", gone)
            await rows.connection.execute("UPDATE state SET generation = generation + 1")
        found = await scrape(client)
        assert "shop_gone_total" not in found
        assert found[KEY] == 1


async def test_scrape_shows_what_was_committed_before_it_was_asked(dsn: str, redis_url: str, series: int) -> None:
    """Many requests at once share flights, and none is answered from an older snapshot than its own time."""
    async with exporter(dsn, redis_url) as client, writer(dsn) as rows:

        async def ask_after_commit() -> None:
            async with lock:
                async with rows.connection.transaction():
                    await rows.total(series, 1, 1.0)
                    await rows.commit(series)
                expected = await rows.connection.fetchval("SELECT sum(sum) FROM totals WHERE series_id = $1", series)
            assert (await scrape(client))[KEY] >= expected

        lock = asyncio.Lock()
        await asyncio.gather(*(ask_after_commit() for _ in range(40)))
