"""The schedule on a real PostgreSQL: one owner a run, whatever happens to it, and all of it visible."""

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from aggregator import schedule
from aggregator.schedule import run_schedule
from aggregator.settings import AggregatorSettings
from contract.crash import CrashPoint
from database import jobs
from database.connect import Connection, Pool, acquire, open_pool
from database.jobs import Claim, Keep
from database.queries import load
from database.settings import read_settings
from optimizers.job import Job, Outcome, Result, Run
from streamgauge.embedded import PostgresServer
from tests.exporting import writer

DEADLINE_S = 20.0
DAY_S = 86_400.0
SOON = {
    "STREAMGAUGE_SCHEDULE_JITTER_S": "0.05",
    "STREAMGAUGE_SCHEDULE_BEAT_S": "0.05",
    "STREAMGAUGE_SCHEDULE_STALE_S": "0.5",
}


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often and stop at once."""
    monkeypatch.setattr(schedule, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(schedule, "STOP_GRACE_S", 0.2)


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    """A pool of the test's own."""
    opened = await open_pool(read_settings(AggregatorSettings, {"POSTGRES_DSN": dsn}), size=4)
    yield opened
    await opened.close()


async def settled(_: float) -> None:
    """Everything is committed."""


async def keep_nowhere(_: Connection) -> None:
    """Leave the tallies to PostgreSQL."""


async def tallies(of: Pool | Connection) -> dict[str, int]:
    """Return the counts that are in no stream."""
    return {row["name"]: row["n"] for row in await of.fetch(load("tallies_kept"))}


@asynccontextmanager
async def scheduled(
    dsn: str,
    *planned: Job,
    consumer: str = "one",
    until_settled: Callable[[float], Awaitable[str | None]] = settled,
    keep: Keep = keep_nowhere,
    **given: str,
) -> AsyncGenerator[asyncio.Task[None], None]:
    """Run a schedule; it is stopped at the end and its death is the test's."""
    settings = read_settings(AggregatorSettings, {"POSTGRES_DSN": dsn} | SOON | given)
    stopping = asyncio.Event()
    task = asyncio.create_task(
        run_schedule(planned, settings, consumer, lambda: 0.0, until_settled, keep, CrashPoint(""), stopping)
    )
    try:
        yield task
    finally:
        stopping.set()
        await asyncio.wait_for(task, DEADLINE_S)


def job(run: Callable[[Run], Awaitable[Result]], name: str = "job", every_s: float = DAY_S, **fields: Any) -> Job:
    """Make a job; by default its slot comes once in a test."""
    return Job(name, "a job of a test", every_s, run, **fields)


async def fine(_: Run) -> Result:
    return Result(Outcome.DONE, "fine", {"n": 1})


async def for_ever(_: Run) -> Result:
    await asyncio.Event().wait()
    raise AssertionError("BUG: waited to the end")


async def ended(pool: Pool, count: int = 1) -> list[dict[str, Any]]:
    """Wait until so many runs have ended; return them, oldest first."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = [row for row in await jobs.history(pool, limit=1000) if row["outcome"] is not None]
            if len(found) >= count:
                return found[::-1]
            await asyncio.sleep(0.02)


async def ask_now(pool: Pool) -> None:
    """Ask for a run of now, beside that of the day's slot."""
    await pool.execute("INSERT INTO aggregators (consumer, facts) VALUES ('one', '{}')")
    async with asyncio.timeout(DEADLINE_S):
        while not await jobs.list_jobs(pool):  # noqa: ASYNC110 - PostgreSQL tells nobody
            await asyncio.sleep(0.02)
    await jobs.request(pool, "job", "cli", "ann")


async def leave_by_crash(pool: Pool, name: str = "job", consumer: str = "dead") -> Claim:
    """Claim the slot of a day as an aggregator that died a minute ago."""
    async with acquire(pool) as connection:
        claim = await jobs.claim_slot(
            connection, name, DAY_S, consumer, grace_s=DAY_S, coalesce=True, keep=keep_nowhere
        )
        await let_go_stale(pool)
    assert claim is not None
    return claim


async def let_go_stale(pool: Pool) -> None:
    await pool.execute("UPDATE runs SET beat_at = beat_at - interval '1 min' WHERE finished_at IS NULL")


async def test_a_slot_is_run_by_one_of_two_schedules(dsn: str, pool: Pool) -> None:
    done: list[tuple[str, datetime]] = []

    def of(consumer: str) -> Job:
        async def run(run: Run) -> Result:
            done.append((consumer, run.scheduled_for))
            return Result(Outcome.DONE)

        return job(run, every_s=0.25)

    async with scheduled(dsn, of("one"), consumer="one"), scheduled(dsn, of("two"), consumer="two"):
        await ended(pool, 6)
    slots = [slot for _, slot in done]
    assert len(set(slots)) == len(slots) >= 6
    assert all(slot.microsecond % 250_000 == 0 for slot in slots)
    rows = await jobs.history(pool)
    assert {(row["consumer"], row["scheduled_for"]) for row in rows} == set(done)
    assert {row["attempt"] for row in rows} == {1}
    assert await pool.fetchval("SELECT n FROM job_tallies WHERE outcome = 'done'") == len(done)


async def test_a_run_left_by_a_crash_is_begun_again_and_both_attempts_are_seen(dsn: str, pool: Pool) -> None:
    claim = await leave_by_crash(pool)
    async with scheduled(dsn, job(fine), consumer="heir"):
        (row,) = await ended(pool)
    assert (row["scheduled_for"], row["outcome"], row["attempt"], row["consumer"]) == (
        claim.scheduled_for,
        "done",
        2,
        "heir",
    )
    assert [(a["attempt"], a["consumer"], a["ended"]) for a in row["attempts"]] == [
        (1, "dead", "crashed"),
        (2, "heir", "done"),
    ]
    assert row["facts"] == {"n": 1}


async def test_a_slot_waits_for_a_run_that_nobody_has_given_up_yet(dsn: str, pool: Pool) -> None:
    """Its lock is free and its beat is fresh: its connection broke a moment ago, and it may still be at work."""
    claim = await leave_by_crash(pool)
    await pool.execute("UPDATE runs SET beat_at = now(), scheduled_for = scheduled_for - interval '1 day'")
    async with scheduled(dsn, job(fine)):
        old, new = await ended(pool, 2)
    assert [attempt["ended"] for attempt in old["attempts"]] == ["crashed", "done"]
    assert new["scheduled_for"] == claim.scheduled_for
    assert new["started_at"] >= old["finished_at"]


async def test_the_third_crash_is_the_last(dsn: str, pool: Pool) -> None:
    await leave_by_crash(pool)
    async with acquire(pool) as connection:
        for attempt in (2, 3):
            claim = await jobs.take(connection, "job", "dead", 0.5, keep_nowhere)
            assert claim is not None
            assert claim.attempt == attempt
            await let_go_stale(pool)
    async with scheduled(dsn, job(fine)):
        (row,) = await ended(pool)
    assert (row["outcome"], row["detail"], row["attempt"]) == ("failed", "crashed 3 times", 3)
    assert [a["ended"] for a in row["attempts"]] == ["crashed"] * 3
    assert await tallies(pool) == {"job/job/crashed": 3, "job/job/failed": 1}


async def test_a_job_never_runs_twice_at_once(dsn: str, pool: Pool) -> None:
    """Two schedules, slots three times as often as the job can: what is missed is made up by one run."""
    at_once = most = 0

    async def slow(_: Run) -> Result:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.6)
        at_once -= 1
        return Result(Outcome.DONE)

    async with scheduled(dsn, job(slow, every_s=0.2)), scheduled(dsn, job(slow, every_s=0.2), consumer="two"):
        rows = await ended(pool, 3)
    assert most == 1
    assert all(
        after["scheduled_for"] - before["scheduled_for"] >= timedelta(seconds=0.59)
        for before, after in itertools.pairwise(rows)
    )


async def test_a_run_that_outlives_its_time_is_stopped(dsn: str, pool: Pool) -> None:
    async with scheduled(dsn, job(for_ever, timeout_s=0.2)):
        (row,) = await ended(pool)
    assert (row["outcome"], row["detail"]) == ("timed_out", "stopped after 0.2 s")


async def test_what_a_job_raises_ends_its_run_and_never_the_service(
    dsn: str, pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    raised: list[BaseException] = [ConnectionError("no route"), ZeroDivisionError("by 0"), asyncio.CancelledError()]

    async def breaks(_: Run) -> Result:
        if raised:
            raise raised.pop(0)
        return Result(Outcome.DONE)

    with caplog.at_level(logging.ERROR, "aggregator.execution"):
        async with scheduled(dsn, job(breaks, every_s=0.2)):
            rows = await ended(pool, 4)
    assert [(row["outcome"], row["detail"]) for row in rows[:4]] == [
        ("failed", "ConnectionError: no route"),
        ("failed", "BUG: ZeroDivisionError: by 0"),
        ("failed", "BUG: it cancelled itself"),
        ("done", None),
    ]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def endless() -> tuple[Callable[[Run], Awaitable[Result]], asyncio.Event, asyncio.Event]:
    """Return work without an end, and events that are set when it begins and when it was stopped."""
    began, stopped = asyncio.Event(), asyncio.Event()

    async def works(run: Run) -> Result:
        began.set()
        try:
            return await for_ever(run)
        finally:
            stopped.set()

    return works, began, stopped


async def test_a_run_whose_lock_is_lost_is_stopped(dsn: str, pool: Pool) -> None:
    """Its server closed the connection: another session may hold the lock from now on."""
    works, began, stopped = endless()
    async with scheduled(dsn, job(works)):
        await asyncio.wait_for(began.wait(), DEADLINE_S)
        assert await pool.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_locks JOIN pg_stat_activity USING (pid) "
            "WHERE locktype = 'advisory' AND application_name = 'streamgauge-schedule'"
        )
        (row,) = await ended(pool)
        assert stopped.is_set()
    assert row["outcome"] == "failed"
    assert row["detail"].startswith("stopped: the connection that holds its lock failed")


async def test_a_run_that_another_has_begun_again_is_stopped_and_left_to_it(dsn: str, pool: Pool) -> None:
    works, began, stopped = endless()
    async with scheduled(dsn, job(works)):
        await asyncio.wait_for(began.wait(), DEADLINE_S)
        await pool.execute("UPDATE runs SET consumer = 'other', attempt = 2, beat_at = now() + interval '1 min'")
        await asyncio.wait_for(stopped.wait(), DEADLINE_S)
    (row,) = await jobs.history(pool)
    assert (row["consumer"], row["outcome"], row["attempts"]) == ("other", None, [])


async def test_a_stalled_holder_of_the_lock_is_evicted(dsn: str, pool: Pool) -> None:
    """It holds lock and connection but has not said for long that it goes on: a stopped or swapped-out process."""
    await leave_by_crash(pool, consumer="stalled")
    stalled = await asyncpg.connect(dsn, timeout=10, server_settings={"search_path": "streamgauge"})
    try:
        assert await stalled.fetchval(load("job_lock"), "job", timeout=10)
        async with scheduled(dsn, job(fine), consumer="heir"):
            (row,) = await ended(pool)
        assert stalled.is_closed()
    finally:
        await stalled.close(timeout=10)
    assert [(a["consumer"], a["ended"]) for a in row["attempts"]] == [("stalled", "crashed"), ("heir", "done")]


async def test_what_a_stalled_aggregator_says_of_a_run_taken_over_is_not_written(pool: Pool) -> None:
    old = await leave_by_crash(pool, consumer="stalled")
    async with acquire(pool) as connection:
        assert await jobs.take(connection, "job", "heir", 0.5, keep_nowhere) is not None
        assert not await jobs.beat(connection, old, "stalled")
    assert not await jobs.finish(pool, old, "stalled", "done", "", {}, keep_nowhere)
    assert await pool.fetchval("SELECT outcome FROM runs") is None


async def test_a_stop_hands_the_run_back(dsn: str, pool: Pool) -> None:
    began = asyncio.Event()

    async def works(run: Run) -> Result:
        began.set()
        return await for_ever(run)

    async with scheduled(dsn, job(works), consumer="leaving"):
        await asyncio.wait_for(began.wait(), DEADLINE_S)
    async with scheduled(dsn, job(fine), consumer="heir"):
        (row,) = await ended(pool)
    assert [(a["consumer"], a["ended"]) for a in row["attempts"]] == [("leaving", "handed_back"), ("heir", "done")]
    assert await pool.fetchval("SELECT crashes FROM runs") == 0


async def test_a_run_that_was_asked_for_is_begun_at_once_and_only_once(dsn: str, pool: Pool) -> None:
    await pool.execute("INSERT INTO aggregators (consumer, facts) VALUES ('one', '{}')")
    async with scheduled(dsn, job(fine)):
        await ended(pool)
        slot = await jobs.request(pool, "job", "cli", "ann")
        rows = await ended(pool, 2)
    assert (rows[1]["scheduled_for"], rows[1]["trigger"], rows[1]["requested_by"]) == (slot, "cli", "ann")
    first = await jobs.request(pool, "job", "api", "bob")
    assert await jobs.request(pool, "job", "cli", "eve") == first
    with pytest.raises(jobs.NoSuchJob, match="there is no job jab; there are job"):
        await jobs.request(pool, "jab", "cli", "ann")


async def test_nobody_is_asked_when_no_aggregator_lives(pool: Pool) -> None:
    await pool.execute(
        "INSERT INTO aggregators (consumer, facts, seen_at) VALUES ('one', '{}', now() - '1 min'::interval)"
    )
    with pytest.raises(jobs.NoAggregator, match="no aggregator is running"):
        await jobs.request(pool, "job", "cli", "ann")


async def test_a_job_that_judges_data_waits_and_says_when_it_was_in_vain(dsn: str, pool: Pool) -> None:
    async def late(wait_s: float) -> str | None:
        return f"shard 1 not committed after {wait_s:g} s"

    judging, other = job(fine, "judging", judges_s=600.0), job(fine, "other")
    async with scheduled(dsn, judging, other, until_settled=late, STREAMGAUGE_SCHEDULE_WAIT_S="3"):
        rows = {row["job"]: row for row in await ended(pool, 2)}
    assert rows["judging"]["detail"] == "shard 1 not committed after 3 s; fine"
    assert rows["judging"]["facts"] == {"n": 1, "settled": False}
    assert rows["other"]["detail"] == "fine"


GAP = "INSERT INTO gaps VALUES ($1, 5, 6, 10, 20, $2, $2)"
WAITING = "SELECT count(*) FROM runs WHERE trigger = 'cli' AND started_at < now() - '1s'::interval AND outcome IS NULL"


async def lacking(dsn: str, age_s: float) -> int:
    """Make a producer with an open gap of ten minutes ago; returns its number."""
    async with writer(dsn) as w:
        now = datetime.now(UTC)
        later = int(now.timestamp()) + 86_400
        number = await w.producer(age_s=age_s, first_seen=now - timedelta(hours=1), watermark_s=later)
        await w.connection.execute(GAP, number, int(now.timestamp()) - 600)
        return number


async def test_a_job_that_judges_data_waits_for_complete_windows_and_says_which_are_not(dsn: str, pool: Pool) -> None:
    """A gap of a live producer may still be filled, so it is waited for."""
    number = await lacking(dsn, age_s=0)
    async with scheduled(dsn, job(fine, judges_s=DAY_S), STREAMGAUGE_SCHEDULE_WAIT_S="1"):
        await ask_now(pool)
        row = (await ended(pool, 2))[-1]
    assert row["detail"] == f"after 1 s 1 of 1440 minutes partial (shop/{number}); fine"
    assert row["facts"] == {"n": 1, "settled": False}
    assert row["duration_s"] >= 1


async def test_a_gap_that_is_filled_meanwhile_is_not_told(dsn: str, pool: Pool) -> None:
    await lacking(dsn, age_s=0)
    async with scheduled(dsn, job(fine, judges_s=DAY_S), STREAMGAUGE_SCHEDULE_WAIT_S="20"):
        await ask_now(pool)
        async with asyncio.timeout(DEADLINE_S):
            while not await pool.fetchval(WAITING):  # noqa: ASYNC110 - PostgreSQL tells nobody
                await asyncio.sleep(0.02)
        await pool.execute("DELETE FROM gaps")
        row = (await ended(pool, 2))[-1]
    assert (row["detail"], row["facts"]) == ("fine", {"n": 1})


async def test_what_nobody_can_send_any_more_is_told_and_not_waited_for(dsn: str, pool: Pool) -> None:
    number = await lacking(dsn, age_s=300)
    async with scheduled(dsn, job(fine, judges_s=DAY_S), STREAMGAUGE_SCHEDULE_WAIT_S="3600"):
        await ask_now(pool)
        row = (await ended(pool, 2))[-1]
    assert row["detail"] == f"1 of 1440 minutes partial (shop/{number}); fine"


@pytest.mark.parametrize(("coalesce", "runs"), [(True, 1), (False, 3)])
async def test_missed_slots_are_one_run_or_one_each(pool: Pool, coalesce: bool, runs: int) -> None:
    """The last slot that had an owner was three intervals ago."""
    now = datetime.now(UTC)
    newest = datetime.fromtimestamp(now.timestamp() // 3600 * 3600, UTC)
    await pool.execute(
        "INSERT INTO runs (job, scheduled_for, attempt, outcome, finished_at) VALUES ('job', $1, 1, 'done', now())",
        newest - timedelta(hours=3),
    )
    slots: list[datetime] = []
    async with acquire(pool) as connection:
        given: dict[str, Any] = {"grace_s": DAY_S, "coalesce": coalesce, "keep": keep_nowhere}
        while claim := await jobs.claim_slot(connection, "job", 3600, "one", **given):
            slots.append(claim.scheduled_for)
            assert await jobs.finish(pool, claim, "one", "done", "", {}, keep_nowhere)
    assert slots == [newest - timedelta(hours=hours) for hours in reversed(range(runs))]


async def test_a_slot_later_than_the_grace_is_skipped_and_seen(pool: Pool) -> None:
    given: dict[str, Any] = {"grace_s": 0.001, "coalesce": True, "keep": keep_nowhere}
    async with acquire(pool) as connection:
        assert await jobs.claim_slot(connection, "job", DAY_S * 7, "one", **given) is None
    (row,) = await jobs.history(pool)
    assert row["outcome"] == "skipped"
    assert row["detail"].endswith(" s late")
    assert row["consumer"] is None


async def test_tallies_are_kept_before_a_run_has_ended(dsn: str, pool: Pool) -> None:
    """However it ended, and when it crashed: nobody can have seen a count that is kept nowhere else."""
    kept: list[dict[str, int]] = []
    seen: list[dict[str, int]] = []

    async def keep(connection: Connection) -> None:
        kept.append(await tallies(connection))
        seen.append(await tallies(pool))

    async with scheduled(dsn, job(fine), keep=keep):
        await ended(pool)
    async with acquire(pool) as connection:
        given: dict[str, Any] = {"grace_s": 0.001, "coalesce": True, "keep": keep}
        assert await jobs.claim_slot(connection, "late", DAY_S * 7, "one", **given) is None
        await leave_by_crash(pool, "crashing")
        while await jobs.take(connection, "crashing", "one", 0.5, keep):
            await let_go_stale(pool)
    skipped = {"job/job/done": 1, "job/late/skipped": 1}
    assert kept == [
        {"job/job/done": 1},
        skipped,
        skipped | {"job/crashing/crashed": 1},
        skipped | {"job/crashing/crashed": 2},
        skipped | {"job/crashing/crashed": 3, "job/crashing/failed": 1},
    ]
    assert seen == [{}, *kept[:-1]]


async def test_counts_outlive_the_history(dsn: str, pool: Pool) -> None:
    async with scheduled(dsn, job(fine)):
        await ended(pool)
    await pool.execute("UPDATE runs SET scheduled_for = scheduled_for - interval '31 days'")
    async with acquire(pool) as connection:
        await connection.execute(load("prune_runs"))
        rows = await connection.fetch(load("samples_jobs"))
    assert await pool.fetchval("SELECT count(*) FROM runs") == 0
    found = {(row["name"], *row["labels"]): row["value"] for row in rows}
    assert found["streamgauge_job_runs_total", "job", "done"] == 1
    assert found["streamgauge_job_runs_total", "job", "failed"] == 0
    assert found["streamgauge_job_overdue", "job"] == 0
    assert found["streamgauge_job_last_success_timestamp_seconds", "job"] > 1e9
    assert ("streamgauge_job_last_duration_seconds", "job") not in found


async def test_a_job_is_overdue_after_three_intervals_without_success(pool: Pool) -> None:
    await jobs.register(pool, [jobs.Planned("job", "a job", 60, False)])
    (row,) = await jobs.list_jobs(pool)
    assert (row["is_overdue"], row["last"], row["last_success_at"]) == (False, None, None)
    assert row["next_run"].second == 0
    await pool.execute("UPDATE jobs SET first_seen_at = now() - interval '181 s'")
    (row,) = await jobs.list_jobs(pool)
    assert row["is_overdue"]


async def test_a_schedule_waits_for_a_database_that_is_away(dsn: str, pool: Pool) -> None:
    """It is not there yet: the schedule goes on asking, and runs what is due when it comes."""
    await pool.execute("ALTER TABLE streamgauge.runs RENAME TO elsewhere")
    async with scheduled(dsn, job(fine)) as task:
        async with asyncio.timeout(DEADLINE_S):
            while not await pool.fetchval("SELECT count(*) FROM jobs"):  # noqa: ASYNC110 - another session's row
                await asyncio.sleep(0.02)
        await pool.execute("ALTER TABLE streamgauge.elsewhere RENAME TO runs")
        (row,) = await ended(pool)
        assert not task.done()
    assert row["outcome"] == "done"


async def test_at_the_start_the_first_job_is_done_before_the_others(dsn: str, pool: Pool) -> None:
    """A new database has no partitions ahead until the upkeep made them; whoever looks before reports that."""

    async def slow(_: Run) -> Result:
        await asyncio.sleep(0.3)
        return Result(Outcome.DONE)

    async with scheduled(dsn, job(slow, "upkeep"), job(fine, "audit"), STREAMGAUGE_UPKEEP_INTERVAL_S="3600"):
        rows = {row["job"]: row for row in await ended(pool, 2)}
    assert rows["audit"]["started_at"] >= rows["upkeep"]["finished_at"]


async def test_a_restart_of_the_database_fails_the_run_and_not_the_schedule(
    dsn: str, pool: Pool, postgres_server: PostgresServer
) -> None:
    began = asyncio.Event()

    async def asks(run: Run) -> Result:
        async with acquire(run.pool) as connection:
            began.set()
            await connection.execute("SELECT pg_sleep($1)", 0.0 if done else 60.0)
        return Result(Outcome.DONE)

    done: list[bool] = []
    async with scheduled(dsn, job(asks, every_s=1.0)):
        await asyncio.wait_for(began.wait(), DEADLINE_S)
        done.append(True)
        # In this thread, which the server is bound to: it ends with the thread that started it.
        postgres_server.restart()
        rows = await ended(pool, 3)
    assert (rows[0]["outcome"], rows[-1]["outcome"]) == ("failed", "done")
    assert {len(row["attempts"]) for row in rows} == {1}
