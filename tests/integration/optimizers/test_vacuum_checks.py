"""V checks: statistics, VACUUM, freezing, and who keeps VACUUM from its work."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from database import partitions
from optimizers.check import Severity, Tier
from optimizers.checks.v1_stale_statistics import StaleStatistics
from optimizers.checks.v2_stale_vacuum import StaleVacuum
from optimizers.checks.v3_never_frozen import NeverFrozen
from optimizers.checks.v4_default_autovacuum import DefaultAutovacuum
from optimizers.checks.v5_wraparound import Wraparound
from optimizers.checks.v6_xmin_horizon import XminHorizon
from tests.integration.optimizers.ill import Ill, opened

only_18 = pytest.mark.parametrize("ill_dsn", ["18"], indirect=True, ids=["postgres18"])

TABLE = "CREATE TABLE t (a int, b int) WITH (autovacuum_enabled = off)"
ROWS = "INSERT INTO t SELECT g, 0 FROM generate_series(1, {}) g"
only_15 = pytest.mark.parametrize("ill_dsn", ["15"], indirect=True, ids=["postgres15"])
OLD_ANALYZE_S = 0.0
"""As `fresh_s`: an ANALYZE of this very moment counts as old."""


@asynccontextmanager
async def session(ill: Ill, name: str = "app") -> AsyncGenerator["asyncpg.Connection[asyncpg.Record]", None]:
    """Another session on the ill database, under a name."""
    connection = await asyncpg.connect(ill.dsn, server_settings={"application_name": name}, timeout=10)
    try:
        yield connection
    finally:
        await connection.close(timeout=10)


async def test_v1_never_analyzed_table_is_found_and_may_be_analyzed(ill: Ill) -> None:
    """More than a tenth has changed and there are no statistics at all; a table of this hour is left to autovacuum."""
    await ill.sql(TABLE, ROWS.format(3000))
    assert not await ill.findings(StaleStatistics())
    ill.pass_time(minutes=59)
    assert not await ill.findings(StaleStatistics())
    ill.pass_time(minutes=1)
    found = (await ill.findings(StaleStatistics()))["public.t"]
    assert (found.severity, found.tier, found.sql) == (Severity.WARN, Tier.AUTOMATIC, "ANALYZE public.t")
    assert found.evidence["changed_rows"] == 3000
    assert "never analyzed" in found.recommendation


@only_18
async def test_v1_grade_follows_the_number_of_changes(ill: Ill) -> None:
    """100 000 and 500 000 are the thresholds; here they are 2000 and 3000."""
    await ill.sql(TABLE, ROWS.format(2000))
    by_number = StaleStatistics(changed_share_warn=2, changed_rows_warn=2000, changed_rows_critical=2001)
    assert (await ill.findings(by_number))["public.t"].severity is Severity.WARN
    await ill.sql(ROWS.format(1))
    assert (await ill.findings(by_number))["public.t"].severity is Severity.CRITICAL
    assert not await ill.findings(StaleStatistics(changed_share_warn=2))


@only_18
async def test_v1_a_large_share_waits_for_an_hour_after_an_analyze(ill: Ill) -> None:
    """An hour later it is found."""
    await ill.sql(TABLE, ROWS.format(3000))
    await ill.sql("ANALYZE t", "UPDATE t SET b = 1")
    assert not await ill.findings(StaleStatistics())
    assert "public.t" in await ill.findings(StaleStatistics(fresh_s=OLD_ANALYZE_S))


@only_18
async def test_v1_many_changed_rows_are_found_however_large_the_table_and_fresh_its_statistics(ill: Ill) -> None:
    """A million and a half of two hundred million; here a hundred of three thousand."""
    await ill.sql(TABLE, ROWS.format(3000))
    await ill.sql("ANALYZE t", "UPDATE t SET b = 1 WHERE a <= 100")
    found = await ill.findings(StaleStatistics(min_changed_rows=10, changed_rows_warn=50, changed_rows_critical=100))
    assert found["public.t"].severity is Severity.CRITICAL
    assert not await ill.findings(StaleStatistics(min_changed_rows=10, fresh_s=OLD_ANALYZE_S)), "three per cent"


@only_18
async def test_v1_small_tables_are_silent(ill: Ill) -> None:
    """One row that changed completely misleads no planner."""
    await ill.sql(TABLE, ROWS.format(1))
    assert not await ill.findings(StaleStatistics(fresh_s=OLD_ANALYZE_S))


@only_18
async def test_v1_partitions_are_reported_as_their_table(ill: Ill) -> None:
    """One finding, whose statement names the partitions that changed."""
    await ill.sql("CREATE TABLE p (a int) PARTITION BY RANGE (a)")
    for n in range(3):
        await ill.sql(f"CREATE TABLE p{n} PARTITION OF p FOR VALUES FROM ({n}000) TO ({n + 1}000)")
    await ill.sql("INSERT INTO p SELECT generate_series(0, 1999)")
    found = await ill.findings(StaleStatistics(min_changed_rows=500, fresh_s=OLD_ANALYZE_S))
    assert list(found) == ["public.p"]
    assert "2 partitions of public.p" in found["public.p"].recommendation
    assert found["public.p"].sql in ("ANALYZE public.p0, public.p1", "ANALYZE public.p1, public.p0")


async def test_v1_parts_of_the_store_are_not_analyzed_and_its_rollups_are(dsn: str) -> None:
    """Compaction drops a minute's parts while ANALYZE would still wait for its turn."""
    async with opened(dsn, dsn) as store:
        await store.sql("SET search_path = streamgauge")
        await partitions.ensure(store.connection)
        for table in ("parts", "rollup_10s"):
            await store.sql(
                f"INSERT INTO {table} (window_start, series_id, producer_no, n, sum)"
                " SELECT now(), g, 0, 1, 1 FROM generate_series(1, 2000) g"
            )
        at_once = StaleStatistics(fresh_s=OLD_ANALYZE_S)
        assert set(await store.findings(at_once, is_monitoring=True)) == {"streamgauge.rollup_10s"}
        assert "streamgauge.parts" in await store.findings(at_once)


@only_18
async def test_v1_locked_table_is_skipped(ill: Ill) -> None:
    """What somebody holds ACCESS EXCLUSIVE is not waited for."""
    await ill.sql(TABLE, ROWS.format(3000))
    async with session(ill) as other:
        await other.execute("BEGIN; LOCK TABLE t")
        assert not await ill.findings(StaleStatistics(fresh_s=OLD_ANALYZE_S))
    assert "public.t" in await ill.findings(StaleStatistics(fresh_s=OLD_ANALYZE_S))


async def test_v2_table_without_vacuum_for_days_is_found(ill: Ill) -> None:
    """Dead rows are counted from when they were first seen; three days later VACUUM is overdue, seven: critical."""
    check = StaleVacuum(dead_rows_warn=900, dead_rows_critical=500)
    await ill.sql(TABLE, ROWS.format(1000), "DELETE FROM t")
    assert not await ill.findings(check)
    ill.pass_time(days=3, seconds=1)
    found = (await ill.findings(check))["public.t"]
    assert (found.severity, found.tier, found.sql) == (Severity.WARN, Tier.AUTOMATIC, "VACUUM (ANALYZE) public.t")
    assert "1 000 dead rows" in found.recommendation and "3 d" in found.recommendation
    ill.pass_time(days=4)
    assert (await ill.findings(check))["public.t"].severity is Severity.CRITICAL
    assert not await ill.findings(StaleVacuum(dead_rows_warn=1000, dead_rows_critical=1000))


@only_18
async def test_v2_vacuumed_table_is_silent(ill: Ill) -> None:
    """A VACUUM a moment ago is no VACUUM of last week."""
    check = StaleVacuum(dead_rows_warn=900, dead_rows_critical=500)
    await ill.sql(TABLE, ROWS.format(2000))
    await ill.sql("VACUUM t", "DELETE FROM t")
    ill.pass_time(days=30)
    assert not await ill.findings(check)
    found = await ill.findings(StaleVacuum(dead_rows_warn=900, age_s_warn=0))
    assert found["public.t"].evidence["vacuum_age_s"] < 3600


async def test_v3_closed_partition_may_be_frozen(ill: Ill) -> None:
    """A day that is over and was never vacuumed is written once more now, and never again."""
    await ill.sql("CREATE TABLE m (at timestamptz, v int) PARTITION BY RANGE (at)", *_days(-3, 2))
    await ill.sql("INSERT INTO m SELECT now() - interval '3 days' * (g % 2), g FROM generate_series(1, 4000) g")
    assert not await ill.findings(NeverFrozen())
    ill.pass_time(days=2, seconds=1)
    found = await ill.findings(NeverFrozen())
    day = f"public.m_{(datetime.now(UTC) - timedelta(days=3)):%Y%m%d}"
    assert (found["public.m"].sql, found["public.m"].tier) == (f"VACUUM (FREEZE) {day}", Tier.AUTOMATIC)
    open_day = f"public.m_{datetime.now(UTC):%Y%m%d}"
    assert found[open_day].tier is Tier.NEVER
    assert "FREEZE" not in (found[open_day].sql or "")


@only_18
async def test_v3_frozen_and_quiet_partitions_are_silent(ill: Ill) -> None:
    """One that was vacuumed, and one that few rows went into."""
    await ill.sql("CREATE TABLE m (at timestamptz, v int) PARTITION BY RANGE (at)", *_days(-3, 2))
    await ill.sql("INSERT INTO m SELECT now() - interval '3 days', g FROM generate_series(1, 4000) g")
    await ill.sql("VACUUM m")
    await ill.sql("INSERT INTO m SELECT now() - interval '2 days', g FROM generate_series(1, 20) g")
    await ill.findings(NeverFrozen())
    ill.pass_time(days=10)
    assert not await ill.findings(NeverFrozen())


def _days(first: int, end: int) -> list[str]:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = [today + timedelta(days=n) for n in range(first, end)]
    return [
        f"CREATE TABLE m_{day:%Y%m%d} PARTITION OF m FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"
        for day in days
    ]


async def test_v4_big_table_on_default_settings_is_found_with_its_undo(ill: Ill) -> None:
    """A table that is updated and waits for a fifth of it to die."""
    await ill.sql("CREATE TABLE t (a int, b int)", ROWS.format(2000), "UPDATE t SET b = 1 WHERE a <= 500")
    check = DefaultAutovacuum(rows_warn=1999, rows_critical=2000, min_changed_rows=500)
    found = (await ill.findings(check))["public.t"]
    assert (found.severity, found.tier) == (Severity.WARN, Tier.OPT_IN)
    assert found.evidence["trigger_rows"] == 50 + 0.2 * 2000
    assert found.sql and found.rollback
    await ill.sql(found.sql)
    assert not await ill.findings(check)
    await ill.sql(found.rollback)
    assert "public.t" in await ill.findings(check)
    assert not await ill.findings(DefaultAutovacuum(rows_warn=2000))
    huge = (await ill.findings(DefaultAutovacuum(rows_warn=1000, rows_critical=1999, min_changed_rows=500)))["public.t"]
    assert huge.severity is Severity.CRITICAL
    assert "autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000" in (huge.sql or "")


@only_18
async def test_v4_big_table_that_only_grows_is_silent(ill: Ill) -> None:
    """Nothing dies in it: the share that triggers VACUUM never comes."""
    await ill.sql("CREATE TABLE t (a int, b int)", ROWS.format(2000))
    assert not await ill.findings(DefaultAutovacuum(rows_warn=1000, min_changed_rows=1))


async def test_v5_old_table_and_database_are_found(ill: Ill) -> None:
    """Ages are made by burning a few transaction ids against low thresholds."""
    await ill.sql("CREATE TABLE old (a int)")
    for _ in range(30):
        await ill.sql("SELECT pg_current_xact_id()")
    await ill.sql("CREATE TABLE young (a int)", "VACUUM FREEZE young")
    age: int = await ill.connection.fetchval("SELECT age(relfrozenxid) FROM pg_class WHERE relname = 'old'")
    database = await ill.connection.fetchval("SELECT current_database()")
    found = await ill.findings(Wraparound(table_age_warn=age, database_age_warn=age, database_age_critical=age))
    assert found["public.old"].severity is Severity.WARN
    assert found["public.old"].sql == "VACUUM (FREEZE, VERBOSE) public.old"
    assert found["public.old"].tier is Tier.NEVER
    assert found[database].severity is Severity.CRITICAL
    assert "public.young" not in found


@only_18
async def test_v5_young_server_is_silent(ill: Ill) -> None:
    """A server of today is hundreds of millions away."""
    await ill.sql("CREATE TABLE t (a int)")
    assert not await ill.findings(Wraparound())


async def test_v6_idle_session_that_holds_the_horizon_is_named(ill: Ill) -> None:
    """By role, application and pid, with the statement that ends it."""
    async with session(ill, "reports") as other:
        await other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        pid = other.get_server_pid()
        found = await ill.findings(XminHorizon(age_s_warn=0))
        holder = found["session streamgauge / reports"]
        assert holder.sql == f"SELECT pg_terminate_backend({pid})"
        assert holder.evidence["state"] == "idle in transaction"
        assert f"pid {pid}" in holder.recommendation
        assert not await ill.findings(XminHorizon()), "a short transaction is healthy"


@only_18
async def test_v6_session_that_holds_nothing_is_silent(ill: Ill) -> None:
    """Between the statements of READ COMMITTED there is no snapshot."""
    async with session(ill) as other:
        await other.execute("BEGIN; SELECT 1")
        assert not await ill.findings(XminHorizon(age_s_warn=0))


@only_15
async def test_v6_replication_slot_that_holds_the_catalogue_is_named(ill: Ill) -> None:
    """A slot has no age in seconds: transactions tell."""
    await ill.sql("SELECT pg_create_logical_replication_slot('cdc', 'pgoutput')", "SELECT pg_current_xact_id()")
    try:
        found = await ill.findings(XminHorizon(age_xids_warn=0))
        assert found["replication slot cdc"].sql == "SELECT pg_drop_replication_slot('cdc')"
        assert not await ill.findings(XminHorizon())
    finally:
        await ill.sql("SELECT pg_drop_replication_slot('cdc')")


@only_15
async def test_v6_prepared_transaction_is_named(ill: Ill) -> None:
    """It outlives its session and every restart."""
    await ill.sql("BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'it''s forgotten'")
    try:
        found = await ill.findings(XminHorizon(age_s_warn=0))
        assert found["prepared transaction it's forgotten"].sql == "ROLLBACK PREPARED 'it''s forgotten'"
        assert found["prepared transaction it's forgotten"].evidence["pid"] is None
        assert not await ill.findings(XminHorizon())
    finally:
        await ill.sql("ROLLBACK PREPARED 'it''s forgotten'")


@only_18
async def test_v6_role_that_sees_little_says_so(ill: Ill) -> None:
    """Without pg_monitor other sessions' snapshots are hidden: silence would be a lie."""
    await ill.sql("CREATE ROLE blind LOGIN")
    try:
        ill.dsn = ill.dsn.replace("streamgauge@", "blind@")
        answer = await ill.look(XminHorizon())
        assert answer.insufficient is not None and "pg_monitor" in answer.insufficient
    finally:
        await ill.sql("DROP ROLE blind")


@only_18
async def test_v2_names_the_holder_instead_of_a_vacuum_that_cannot_help(ill: Ill) -> None:
    """A VACUUM that could remove nothing is not proposed."""
    check = StaleVacuum(dead_rows_warn=900, dead_rows_critical=900, age_s_critical=-1, held_s=0)
    await ill.sql(TABLE, ROWS.format(1000))
    async with session(ill, "reports") as other:
        await other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        await ill.sql("DELETE FROM t")
        found = (await ill.findings(check))["public.t"]
    assert (found.sql, found.tier) == (None, Tier.NEVER)
    assert "session streamgauge / reports" in found.recommendation
