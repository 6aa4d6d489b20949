"""P checks: partitions that are missing, full, too old, or read all at once."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from database import partitions
from database.partitions import PARTS, ROLLUPS
from database.settings import SettingsError
from optimizers.check import Remedy, Severity, Tier
from optimizers.checks.p1_partitions_ahead import PartitionsAhead
from optimizers.checks.p2_default_partition import DefaultPartition
from optimizers.checks.p3_retention import Retention
from optimizers.checks.p4_partition_size import PartitionSize
from tests.debian_postgres import BINARIES
from tests.integration.optimizers.ill import Ill, opened

only_18 = pytest.mark.parametrize("ill_dsn", ["18"], indirect=True, ids=["postgres18"])
TABLE = "CREATE TABLE m (at timestamptz NOT NULL, v int) PARTITION BY RANGE (at)"
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def days(first: int, end: int, table: str = "m") -> list[str]:
    """SQL of daily partitions, counted from today."""
    bounds = [(TODAY + timedelta(days=n), TODAY + timedelta(days=n + 1)) for n in range(first, end)]
    return [
        f"CREATE TABLE {table}_{start:%Y%m%d} PARTITION OF {table} FOR VALUES FROM ('{start}') TO ('{until}')"
        for start, until in bounds
    ]


@pytest.fixture
async def store(dsn: str) -> AsyncGenerator[Ill, None]:
    """The monitoring database itself, with the partitions that its upkeep makes."""
    async with opened(dsn, dsn) as found:
        await found.sql("SET search_path = streamgauge")
        await partitions.ensure(found.connection)
        yield found


async def test_p1_missing_days_are_found_with_sql_that_makes_them(ill: Ill) -> None:
    """Two ahead are a warning, one is critical; the SQL makes it four."""
    ill.now = TODAY + timedelta(hours=12)
    await ill.sql(TABLE, *days(-2, 3))
    found = (await ill.findings(PartitionsAhead()))["public.m"]
    assert (found.severity, found.evidence["ahead"], found.tier) == (Severity.WARN, 2, Tier.OPT_IN)
    assert "rows after that are refused" in found.recommendation
    ill.pass_time(days=1)
    assert (await ill.findings(PartitionsAhead()))["public.m"].severity is Severity.CRITICAL
    ill.pass_time(days=-1)
    assert found.sql and found.rollback
    await ill.sql(found.sql)
    assert not await ill.findings(PartitionsAhead())
    await ill.sql(found.rollback)
    assert (await ill.findings(PartitionsAhead()))["public.m"].evidence["ahead"] == 2


@only_18
async def test_p1_gap_and_no_partition_for_now_are_critical(ill: Ill) -> None:
    """What lies beyond a gap is not ahead."""
    ill.now = TODAY + timedelta(hours=12)
    await ill.sql(TABLE, *days(-2, 1), *days(2, 9))
    assert (await ill.findings(PartitionsAhead()))["public.m"].evidence["ahead"] == 0
    await ill.sql("CREATE TABLE late (at timestamptz) PARTITION BY RANGE (at)", *days(-5, -1, "late"))
    found = (await ill.findings(PartitionsAhead()))["public.late"]
    assert (found.severity, found.evidence["holds_now"]) == (Severity.CRITICAL, False)


@only_18
async def test_p1_monthly_partitions_stay_monthly(ill: Ill) -> None:
    """Also by date, with a quoted name."""
    await ill.sql(
        'CREATE TABLE "M" (d date) PARTITION BY RANGE (d)',
        "CREATE TABLE m1 PARTITION OF \"M\" FOR VALUES FROM ('2030-01-01') TO ('2030-02-01')",
    )
    ill.now = datetime(2030, 1, 20, tzinfo=UTC)
    found = (await ill.findings(PartitionsAhead()))['public."M"']
    assert found.sql is not None
    assert 'public."M_20300201"' in found.sql
    assert "FROM ('2030-02-01 00:00:00+00') TO ('2030-03-01 00:00:00+00')" in found.sql
    await ill.sql(found.sql)
    assert not await ill.findings(PartitionsAhead())


@only_18
async def test_p1_closed_open_and_other_tables_are_silent(ill: Ill) -> None:
    """A table of last year, one without an end, and those that are not partitioned by time."""
    await ill.sql(
        "CREATE TABLE old (at date) PARTITION BY RANGE (at)",
        "CREATE TABLE old1 PARTITION OF old FOR VALUES FROM ('2001-01-01') TO ('2001-01-02')",
        "CREATE TABLE o (at timestamp) PARTITION BY RANGE (at)",
        "CREATE TABLE o1 PARTITION OF o FOR VALUES FROM (MINVALUE) TO ('2001-01-01')",
        "CREATE TABLE o2 PARTITION OF o FOR VALUES FROM ('2001-01-01') TO (MAXVALUE)",
        "CREATE TABLE n (a int) PARTITION BY RANGE (a)",
        "CREATE TABLE n1 PARTITION OF n FOR VALUES FROM (1) TO (2)",
        "CREATE TABLE l (at date) PARTITION BY LIST (at)",
        "CREATE TABLE e (at date) PARTITION BY RANGE (at)",
    )
    assert not await ill.findings(PartitionsAhead())


async def test_p1_upkeep_that_stopped_is_found_and_may_catch_up(store: Ill) -> None:
    """The monitoring database: half of what the upkeep makes, then the present moment, is missing."""
    check = PartitionsAhead()
    assert not await store.findings(check, is_monitoring=True)
    store.pass_time(minutes=PARTS.ahead / 2 + 2)
    found = (await store.findings(check, is_monitoring=True))["streamgauge.parts"]
    assert (found.severity, found.tier, found.remedy) == (Severity.WARN, Tier.AUTOMATIC, Remedy.PARTITIONS)
    store.pass_time(minutes=PARTS.ahead)
    assert (await store.findings(check, is_monitoring=True))["streamgauge.parts"].severity is Severity.CRITICAL
    store.pass_time(days=100)
    assert set(await store.findings(check, is_monitoring=True)) == {
        f"streamgauge.{kind.parent}" for kind in (PARTS, *ROLLUPS.values())
    }


@pytest.mark.parametrize("level", ROLLUPS)
async def test_p1_each_rollup_warns_below_four_ahead_and_is_critical_below_two(store: Ill, level: str) -> None:
    """By the clock, as the time passes that its partitions were made for."""
    kind, check, seen = ROLLUPS[level], PartitionsAhead(), list[Severity | None]()
    name = f"streamgauge.{kind.parent}"
    store.now = datetime.fromtimestamp(store.now.timestamp() // kind.width_s * kind.width_s + 1, UTC)
    for _ in range(kind.ahead + 2):
        found = (await store.findings(check, is_monitoring=True)).get(name)
        seen.append(found and found.severity)
        store.pass_time(seconds=kind.width_s)
    assert seen == [None, None, Severity.WARN, Severity.WARN, *[Severity.CRITICAL] * 3]


async def test_p1_store_without_partitions_is_found(dsn: str) -> None:
    """Nothing can be stored before the first upkeep."""
    async with opened(dsn, dsn) as bare:
        found = await bare.findings(PartitionsAhead(), is_monitoring=True)
        assert found["streamgauge.parts"].severity is Severity.CRITICAL
        assert found["streamgauge.parts"].remedy is Remedy.PARTITIONS


async def test_p2_one_row_in_the_default_partition_is_found(ill: Ill) -> None:
    """Before and after statistics know of it; an empty one is silent."""
    await ill.sql(TABLE, *days(0, 9), "CREATE TABLE rest PARTITION OF m DEFAULT")
    assert not await ill.findings(DefaultPartition())
    await ill.sql("INSERT INTO m VALUES ('2001-01-01', 1)")
    found = (await ill.findings(DefaultPartition()))["public.rest"]
    assert (found.severity, found.tier) == (Severity.WARN, Tier.NEVER)
    await ill.sql("DELETE FROM m")
    assert not await ill.findings(DefaultPartition())
    await ill.sql("CREATE ROLE blind LOGIN")
    try:
        ill.dsn = ill.dsn.replace("streamgauge@", "blind@")
        assert "public.rest" in ((await ill.look(DefaultPartition())).insufficient or "")
    finally:
        await ill.sql("DROP ROLE blind")


async def test_p2_statements_move_the_rows_into_a_partition(ill: Ill, tmp_path: Path) -> None:
    """As psql runs them, in batches; rows of another range stay."""
    await ill.sql(TABLE, *days(0, 9), "CREATE TABLE rest PARTITION OF m DEFAULT")
    await ill.sql(
        "INSERT INTO m SELECT '2001-01-01'::timestamptz + g * interval '1 s', g FROM generate_series(1, 300) g"
    )
    await ill.sql("INSERT INTO m VALUES ('2002-02-02', 1)")
    found = (await ill.findings(DefaultPartition()))["public.rest"]
    assert (found.tier, found.evidence["key"]) == (Tier.NEVER, "at")
    assert found.sql is not None
    sets = "\\set new m_2001\n\\set from '2001-01-01'\n\\set to '2001-01-02'\n"
    script = tmp_path / "move.sql"
    script.write_text(sets + found.sql)
    psql = (str(BINARIES / "psql"), "-X", "-v", "ON_ERROR_STOP=1", "-f", str(script), ill.dsn)
    done = await asyncio.create_subprocess_exec(*psql, stderr=asyncio.subprocess.PIPE)
    _, said = await asyncio.wait_for(done.communicate(), 60)
    assert done.returncode == 0, said
    assert await ill.connection.fetchval("SELECT count(*) FROM m_2001") == 300
    assert await ill.connection.fetchval("SELECT count(*) FROM m") == 301
    assert await ill.connection.fetchval("SELECT array_agg(v) FROM rest") == [1]


async def test_p3_retention_of_another_database_is_what_it_was_told(ill: Ill) -> None:
    """Detached by opt-in, oldest first, at most some at a time; without a retention silent."""
    ill.now = TODAY + timedelta(hours=12)
    await ill.sql(TABLE, *days(-10, 3))
    assert not await ill.findings(Retention())
    check = Retention(retention="public.m=5d", most_partitions=2)
    found = (await ill.findings(check))["public.m"]
    assert (found.tier, len(found.evidence["partitions"])) == (Tier.OPT_IN, 5)
    assert found.sql and found.rollback
    before = await ill.connection.fetchval("SELECT count(*) FROM pg_inherits")
    await ill.sql(found.sql)
    assert await ill.connection.fetchval("SELECT count(*) FROM pg_inherits") == before - 2
    assert len((await ill.findings(check))["public.m"].evidence["partitions"]) == 3
    await ill.sql(found.rollback)
    assert (await ill.findings(check))["public.m"].evidence == found.evidence
    assert not await ill.findings(Retention(retention="public.m=20d"))


@only_18
async def test_p3_partition_is_old_when_its_end_is(ill: Ill) -> None:
    """Not when its first row is, and not within the slack that an upkeep may need."""
    await ill.sql(TABLE, *days(-10, -9))
    ill.now = TODAY + timedelta(days=-4, hours=2)
    check = Retention(retention="public.m=5d")
    assert not await ill.findings(check)
    ill.pass_time(seconds=1)
    assert len((await ill.findings(check))["public.m"].evidence["partitions"]) == 1


@only_18
async def test_p3_unknown_table_is_said_and_bad_retention_refused(ill: Ill) -> None:
    """A retention that is never applied must not pass for one that is."""
    answer = await ill.look(Retention(retention="public.x=5d"))
    assert answer.insufficient is not None and "public.x" in answer.insufficient
    with pytest.raises(SettingsError, match=r"public\.x=soon"):
        Retention(retention="public.x=soon")


async def test_p3_monitoring_database_uses_its_own_retention(store: Ill) -> None:
    """Windows older than the setting that the upkeep has left."""
    old_s = int(store.now.timestamp()) - 5 * 86_400
    await partitions.ensure(store.connection, [old_s])
    found = await store.findings(Retention(), is_monitoring=True)
    assert list(found) == ["streamgauge.rollup_10s"]
    only = found["streamgauge.rollup_10s"]
    assert (only.tier, only.remedy, only.sql) == (Tier.AUTOMATIC, Remedy.RETENTION, None)
    assert not await store.findings(Retention(), is_monitoring=True, STREAMGAUGE_RETENTION_10S="7d")


async def test_p4_full_partition_is_found_with_a_narrower_interval(ill: Ill) -> None:
    """25 million rows by default; here a hundred."""
    await ill.sql(TABLE, *days(0, 2), "INSERT INTO m SELECT now(), g FROM generate_series(1, 400) g", "ANALYZE m")
    found = (await ill.look(PartitionSize(rows_warn=100))).findings
    assert [each.object for each in found] == ["public.m"]
    assert "from 1 d to 6 h" in found[0].recommendation
    assert not (await ill.look(PartitionSize(rows_warn=400))).findings


async def test_p4_statement_without_the_key_is_found(ill: Ill) -> None:
    """It visits every partition; the same with the key, and another table, are silent."""
    await ill.sql("CREATE EXTENSION pg_stat_statements", TABLE, *days(0, 2), "CREATE TABLE m2 (v int)")
    check = PartitionSize(calls_warn=5, calls_critical=10)
    statements = ["SELECT v FROM m WHERE v = 1", "SELECT v FROM m WHERE at > now()", "SELECT v FROM m2"]
    found = await ill.after_an_hour(check, *statements)
    assert not found
    found = await ill.after_an_hour(check, *(statements * 6))
    assert len(found) == 1
    (finding,) = found.values()
    assert finding.evidence["query"].startswith("SELECT v FROM m WHERE v")
    assert finding.severity is Severity.WARN
    assert "without its key at" in finding.recommendation
    often = await ill.after_an_hour(PartitionSize(calls_warn=1, calls_critical=6), *(statements * 6))
    assert {found.severity for found in often.values()} == {Severity.CRITICAL}
