"""K checks: sessions that are too many, idle with locks, waiting, or that ended badly."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest

from database.connect import AWAY
from optimizers.check import Finding, Severity, Tier
from optimizers.checks.k1_connections import Connections
from optimizers.checks.k2_idle_in_transaction import IdleInTransaction
from optimizers.checks.k3_oversized_pool import OversizedPool
from optimizers.checks.k4_blocked import Blocked, queues_of
from optimizers.checks.k5_session_ends import SessionEnds
from optimizers.checks.v6_xmin_horizon import NO_PRIVILEGE
from tests.integration.optimizers.ill import Ill

only_15 = pytest.mark.parametrize("ill_dsn", ["15"], indirect=True, ids=["postgres15"])
only_18 = pytest.mark.parametrize("ill_dsn", ["18"], indirect=True, ids=["postgres18"])
WAITING = "SELECT count(*) = {} FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
Session = asyncpg.Connection  # its type argument is there for the type checker only


@asynccontextmanager
async def session(ill: Ill, name: str = "app") -> AsyncGenerator["Session[asyncpg.Record]", None]:
    """Another session on the ill database, under a name."""
    connection = await asyncpg.connect(ill.dsn, server_settings={"application_name": name}, timeout=10)
    try:
        yield connection
    finally:
        await connection.close(timeout=10)


async def test_k1_open_connections_are_counted_against_the_limit(ill: Ill) -> None:
    """Of all databases, by application; the limit is what is not reserved."""
    allowed = await ill.connection.fetchval("SELECT current_setting('max_connections')::int") - 3
    async with session(ill, "shop"), session(ill, "shop"), session(ill, "shop"):
        found = (await ill.findings(Connections(used_share_warn=3 / allowed, used_share_critical=1)))["max_connections"]
        assert found.severity is Severity.WARN
        assert found.evidence["allowed_sessions"] == allowed
        assert found.evidence["by_application"]["streamgauge / shop"]["sessions"] == 3
        assert "streamgauge / shop 3" in found.recommendation
        critical = Connections(used_share_warn=0, used_share_critical=3 / allowed)
        assert (await ill.findings(critical))["max_connections"].severity is Severity.CRITICAL
        assert not await ill.findings(Connections(used_share_warn=0.5))


async def test_k2_open_transaction_that_does_nothing_is_found_by_role(ill: Ill) -> None:
    """With the setting that ends such sessions and its undo."""
    async with session(ill, "shop") as other:
        await other.execute("BEGIN; SELECT 1")
        found = (await ill.findings(IdleInTransaction(idle_s_warn=0)))['"streamgauge"']
        assert found.severity is Severity.WARN
        assert found.evidence["application"] == "shop"
        assert found.recommendation.startswith("1 session of streamgauge is idle in transaction")
        assert found.evidence["pids"] == [other.get_server_pid()]
        assert found.sql == "ALTER ROLE \"streamgauge\" SET idle_in_transaction_session_timeout = '60s'"
        assert found.rollback == 'ALTER ROLE "streamgauge" RESET idle_in_transaction_session_timeout'
        critical = await ill.findings(IdleInTransaction(idle_s_critical=0))
        assert critical['"streamgauge"'].severity is Severity.CRITICAL
        assert not await ill.findings(IdleInTransaction()), "a moment between two statements is healthy"


@only_18
async def test_k2_many_at_once_are_found_however_short(ill: Ill) -> None:
    """A hundred by default; here more than one."""
    async with session(ill) as one, session(ill) as two:
        await one.execute("BEGIN; SELECT 1")
        assert not await ill.findings(IdleInTransaction(sessions_warn=1))
        await two.execute("BEGIN; SELECT 1")
        found = (await ill.findings(IdleInTransaction(sessions_warn=1)))['"streamgauge"']
        assert found.evidence["sessions_of_all_roles"] == 2


@only_18
async def test_k2_idle_session_without_transaction_is_silent(ill: Ill) -> None:
    """A pool's idle connections harm nobody."""
    async with session(ill) as other:
        await other.execute("SELECT 1")
        assert not await ill.findings(IdleInTransaction(idle_s_warn=0, sessions_warn=0))


async def test_k2_termination_is_offered_only_where_it_is_set(ill: Ill) -> None:
    """Off by default; opt-in, with nothing to undo it; a session idle for less is left alone."""
    async with session(ill, "shop") as other:
        await other.execute("BEGIN; SELECT 1")
        name = f"session {other.get_server_pid()}"
        assert list(await ill.findings(IdleInTransaction(idle_s_warn=0))) == ['"streamgauge"']
        assert not await ill.findings(IdleInTransaction(terminate_after_s=300))
        found = (await ill.findings(IdleInTransaction(terminate_after_s=1e-6)))[name]
        assert (found.tier, found.rollback, found.severity) == (Tier.OPT_IN, None, Severity.WARN)
        assert "nothing undoes that" in found.recommendation
        assert found.evidence["idle_s"] <= found.evidence["in_transaction_s"]


async def test_k2_statement_ends_the_session_only_as_it_was_seen(ill: Ill) -> None:
    """One that has worked since is left alone, though it is idle in a transaction again."""
    async with session(ill, "shop") as other:
        await other.execute("BEGIN; SELECT 1")
        check, name = IdleInTransaction(terminate_after_s=1e-6), f"session {other.get_server_pid()}"
        seen = (await ill.findings(check))[name].sql
        await other.execute("SELECT 1")
        assert seen is not None
        assert await ill.connection.fetch(seen) == []
        now = (await ill.findings(check))[name].sql
        assert now is not None
        assert [row[0] for row in await ill.connection.fetch(now)] == [True]
        with pytest.raises(AWAY):
            await other.execute("SELECT 1")


async def test_k3_idle_pool_is_found_with_a_size_that_would_do(ill: Ill) -> None:
    """Time passes for the check only, so a session has to book more of it than the interval holds."""
    async with AsyncExitStack() as stack:
        pool = [await stack.enter_async_context(session(ill, "shop")) for _ in range(3)]
        found = await _later(ill, pool, OversizedPool(min_sessions=0), seconds=300)
        assert found["connections"].evidence["proposed_sessions"] == 2
        assert found["connections"].evidence["busy_share"] < 0.2
        assert "streamgauge / shop 3" in found["connections"].recommendation


@only_18
async def test_k3_busy_and_small_pools_are_silent(ill: Ill) -> None:
    """Few sessions may idle; and a share that is high enough is no finding."""
    async with session(ill, "shop") as other:
        assert not await _later(ill, [other], OversizedPool(), seconds=300)
        assert not await _later(ill, [other], OversizedPool(min_sessions=0, busy_share_warn=0), seconds=600)


async def _later(
    ill: Ill, pool: "list[Session[asyncpg.Record]]", check: OversizedPool, seconds: float
) -> dict[str, Finding]:
    await ill.look(check)
    for each in pool:
        await each.execute("SELECT pg_stat_force_next_flush()")
        await each.execute("SELECT 1")
    ill.pass_time(seconds=seconds)
    return await ill.findings(check)


async def test_k4_role_that_does_not_see_who_waits_says_so(ill: Ill) -> None:
    """Without pg_monitor nobody seems to wait."""
    await ill.sql("CREATE ROLE blind_k4 LOGIN")
    try:
        ill.dsn = ill.dsn.replace("streamgauge@", "blind_k4@")
        assert (await ill.look(Blocked())).insufficient == NO_PRIVILEGE
    finally:
        await ill.sql("DROP ROLE blind_k4")


async def test_k4_head_of_the_queue_is_named_and_nobody_in_it(ill: Ill) -> None:
    """One holds the lock, one waits for it, one waits for that one: the first is the cause."""
    await ill.sql("CREATE TABLE t (a int)")
    async with session(ill, "migration") as head, session(ill, "ddl") as second, session(ill, "shop") as third:
        await head.execute("BEGIN; LOCK TABLE t IN ACCESS SHARE MODE")
        waits = [asyncio.create_task(second.execute("BEGIN; LOCK TABLE t; COMMIT"))]
        try:
            await ill.until(WAITING.format(1))
            waits.append(asyncio.create_task(third.execute("SELECT FROM t")))
            await ill.until(WAITING.format(2))
            found = await ill.findings(Blocked(sessions_warn=2))
            assert list(found) == ["session streamgauge / migration"]
            cause = found["session streamgauge / migration"]
            assert cause.severity is Severity.WARN
            assert cause.evidence["waiting_sessions"] == 2
            assert cause.sql == f"SELECT pg_terminate_backend({head.get_server_pid()})"
            assert (await ill.findings(Blocked(waited_s_warn=0, sessions_warn=2))).popitem()[
                1
            ].severity is Severity.CRITICAL
            assert not await ill.findings(Blocked()), "two that wait a moment are healthy"
        finally:
            await head.execute("ROLLBACK")
            await asyncio.gather(*waits, return_exceptions=True)


@only_15
async def test_k4_prepared_transaction_is_named_as_the_cause(ill: Ill) -> None:
    """It has no session that one could end."""
    await ill.sql("CREATE TABLE t (a int)", "BEGIN; LOCK TABLE t; PREPARE TRANSACTION 'forgotten'")
    async with session(ill) as other:
        waiting = asyncio.create_task(other.execute("SELECT FROM t"))
        await ill.until(WAITING.format(1))
        found = await ill.findings(Blocked(waited_s_warn=0))
        await ill.sql("ROLLBACK PREPARED 'forgotten'")
        await waiting
    assert list(found) == ["a prepared transaction"]


def test_k4_queues_follow_every_way_to_a_root() -> None:
    """Several blockers, chains and a deadlock, which has no root."""
    rows = [
        {"pid": 1, "blockers": [2, 9], "waited_s": 5.0},
        {"pid": 2, "blockers": [8], "waited_s": 7.0},
        {"pid": 3, "blockers": [4], "waited_s": 1.0},
        {"pid": 4, "blockers": [3], "waited_s": 1.0},
    ]
    assert sorted(queues_of(rows)) == [(8, [1, 2], 7.0), (9, [1], 5.0)]


async def kill_a_session(ill: Ill) -> None:
    """Have the server end a session, and count it."""
    other = await asyncpg.connect(ill.dsn, timeout=10)
    try:
        await ill.sql(f"SELECT pg_terminate_backend({other.get_server_pid()})")
        await ill.until("SELECT sessions_killed > 0 FROM pg_stat_database WHERE datname = current_database()")
    finally:
        other.terminate()


async def test_k5_killed_sessions_are_found(ill: Ill) -> None:
    """A tenth of a thousand sessions; here one of two."""
    check = SessionEnds(min_bad_ends=1)
    await ill.look(check)
    await kill_a_session(ill)
    ill.pass_time(hours=1)
    found = (await ill.findings(check))["sessions"]
    assert found.severity is Severity.CRITICAL
    assert found.evidence["killed"] == 1
    assert "1 killed" in found.recommendation
    ill.pass_time(hours=1)
    assert not await ill.findings(check), "the next hour is quiet"


@only_18
async def test_k5_few_bad_ends_are_silent(ill: Ill) -> None:
    """Somebody closed a terminal."""
    await ill.look(SessionEnds())
    await kill_a_session(ill)
    ill.pass_time(hours=1)
    assert not await ill.findings(SessionEnds())
