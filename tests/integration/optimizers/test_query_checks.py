"""Q1 to Q4 find slow, slower, crowded and spilling statements, and stay silent otherwise."""

import asyncpg
import pytest

from optimizers.check import Severity, Unsupported
from optimizers.checks.q1_slow_queries import SlowQueries
from optimizers.checks.q2_query_regression import QueryRegression
from optimizers.checks.q3_statement_table import StatementTable
from optimizers.checks.q4_spill_to_disk import SpillToDisk
from tests.integration.optimizers.ill import Ill

EXTENSION = "CREATE EXTENSION pg_stat_statements"
MANY = """DO $$ BEGIN FOR n IN 1..{} LOOP
    EXECUTE 'SELECT 1' || repeat(', ' || (ARRAY['1', 'true', '1.5', 'NULL::date'])[n % 4 + 1], n / 4);
END LOOP; END $$"""
"""Statements that differ in more than their constants."""


async def call(ill: Ill, times: int, seconds: float) -> None:
    """Call one statement; its normalised text is the same for every duration."""
    for _ in range(times):
        await ill.connection.execute(f"SELECT pg_sleep({seconds})")


async def test_slow_query_is_found_with_its_numbers(ill: Ill) -> None:
    """Calls, mean, share; not what it did before the last look."""
    await ill.sql(EXTENSION)
    check = SlowQueries(calls_per_hour=5, mean_ms=10)
    await call(ill, 20, 0.001)
    assert (await ill.look(check)).insufficient == "no hour of statement counters yet"
    await call(ill, 6, 0.02)
    ill.pass_time(hours=1)
    (found,) = (await ill.findings(check)).values()
    assert found.severity is Severity.CRITICAL
    assert found.evidence["query"] == "SELECT pg_sleep($1)"
    assert found.evidence["calls_per_hour"] == pytest.approx(6)
    assert 20 <= found.evidence["mean_ms"] < 200
    assert found.evidence["time_share"] > 0.5


async def test_rare_or_fast_queries_are_not_slow(ill: Ill) -> None:
    """Both thresholds must be passed; twice the time halves the rate."""
    await ill.sql(EXTENSION)
    check = SlowQueries(calls_per_hour=5, mean_ms=10)
    await ill.look(check)
    await call(ill, 4, 0.02)
    for _ in range(50):
        await ill.connection.execute("SELECT 1")
    ill.pass_time(hours=1)
    assert not await ill.findings(check)
    await call(ill, 6, 0.02)
    ill.pass_time(hours=2)
    assert not await ill.findings(check)


async def test_slow_query_that_is_a_small_part_of_the_load_warns(ill: Ill) -> None:
    """A tenth of all time makes it critical; here all of it is asked for, and more."""
    await ill.sql(EXTENSION)
    check = SlowQueries(calls_per_hour=5, mean_ms=10, critical_share=1.1)
    await ill.look(check)
    await call(ill, 6, 0.02)
    ill.pass_time(hours=1)
    (found,) = (await ill.findings(check)).values()
    assert found.severity is Severity.WARN


async def test_reset_of_statement_counters_is_noticed(ill: Ill) -> None:
    """No comparison across it."""
    await ill.sql(EXTENSION)
    await ill.look(SlowQueries())
    await ill.sql("SELECT pg_stat_statements_reset()")
    ill.pass_time(hours=1)
    assert (await ill.look(SlowQueries())).insufficient == "no hour of statement counters yet"


@pytest.mark.parametrize("check", [SlowQueries(), QueryRegression(), StatementTable()])
async def test_absence_of_the_extension_is_said(ill: Ill, check: SlowQueries) -> None:
    """It is not an empty answer."""
    with pytest.raises(Unsupported, match="CREATE EXTENSION"):
        await ill.look(check)


async def test_slower_than_at_this_hour_of_other_days_is_found(ill: Ill) -> None:
    """Twice the median, beyond the spread; the usual is silent."""
    await ill.sql(EXTENSION)
    check = QueryRegression(calls=5, days=3, time_share=0.01)
    for day in range(5):
        await ill.look(check)
        await call(ill, 6, 0.003)
        ill.pass_time(hours=1)
        answer = await ill.look(check)
        assert not answer.findings
        assert (answer.insufficient is None) == (day >= 3)
        ill.pass_time(hours=23)
    await ill.look(check)
    await call(ill, 6, 0.05)
    ill.pass_time(hours=1)
    (found,) = (await ill.findings(check)).values()
    assert found.evidence["mean_ms"] > 2 * found.evidence["usual_mean_ms"]
    assert "calls unchanged" in found.recommendation


async def test_another_hour_of_the_day_is_no_comparison(ill: Ill) -> None:
    """What is slow every night is not slow at night."""
    await ill.sql(EXTENSION)
    check = QueryRegression(calls=5, days=1)
    for seconds in (0.001, 0.05):
        await ill.look(check)
        await call(ill, 6, seconds)
        ill.pass_time(hours=1)
    assert (await ill.look(check)).insufficient == "no statement has 1 days with this hour yet"


async def test_full_statement_table_is_found(ill: Ill) -> None:
    """Nearly full is critical by now, and certain also before an hour has passed."""
    await ill.sql(EXTENSION)
    answer = await ill.look(StatementTable(full_share=0.0))
    assert answer.insufficient == "no hour of evictions yet"
    assert [(found.object, found.severity) for found in answer.findings] == [("pg_stat_statements", Severity.CRITICAL)]
    ill.pass_time(hours=1)
    assert not await ill.findings(StatementTable())


async def test_statements_that_were_thrown_out_are_found(ill: Ill) -> None:
    """More texts than there is room for: what went took its counters along."""
    await ill.sql(EXTENSION)
    check = StatementTable(full_share=1.1)
    await ill.look(check)
    most = await ill.connection.fetchval("SELECT current_setting('pg_stat_statements.max')::int")
    await ill.sql("SET pg_stat_statements.track = 'all'", MANY.format(most + 100))
    ill.pass_time(hours=1)
    found = (await ill.findings(check))["pg_stat_statements"]
    assert (found.severity, found.evidence["evictions"] >= 1) == (Severity.WARN, True)
    assert "entries were thrown out" in found.recommendation


async def test_spill_to_disk_is_found_with_who_wrote(ill: Ill) -> None:
    """Files an hour; the statement and its role where they are counted."""
    await ill.sql(EXTENSION, "CREATE TABLE t AS SELECT random() AS a FROM generate_series(1, 20000)")
    spill = ["SET work_mem = '64kB'", *["SELECT a FROM t ORDER BY a"] * 6]
    found = await ill.after_an_hour(SpillToDisk(), *spill)
    (name,) = found
    assert found[name].severity is Severity.WARN
    assert found[name].evidence["files_per_hour"] == pytest.approx(6)
    assert found[name].evidence["queries"][0]["query"] == "SELECT a FROM t ORDER BY a"
    assert "streamgauge" in found[name].recommendation


@pytest.mark.parametrize(
    ("thresholds", "severity"),
    [
        ({"files_warn": 1000.0, "files_critical": 1000.0, "bytes_warn": 1000.0}, Severity.WARN),
        ({"files_warn": 1000.0, "files_critical": 1000.0, "bytes_critical": 1000.0}, Severity.CRITICAL),
        ({"files_critical": 6.0}, Severity.CRITICAL),
    ],
    ids=["bytes", "many bytes", "many files"],
)
async def test_spill_to_disk_is_judged_by_files_and_by_bytes(
    ill: Ill, thresholds: dict[str, float], severity: Severity
) -> None:
    await ill.sql("CREATE TABLE t AS SELECT random() AS a FROM generate_series(1, 20000)")
    spill = ["SET work_mem = '64kB'", *["SELECT a FROM t ORDER BY a"] * 6]
    (found,) = (await ill.after_an_hour(SpillToDisk(**thresholds), *spill)).values()
    assert found.severity is severity


async def test_sorts_in_memory_are_silent(ill: Ill) -> None:
    """Also without pg_stat_statements."""
    await ill.sql("CREATE TABLE t AS SELECT random() AS a FROM generate_series(1, 20000)")
    assert not await ill.after_an_hour(SpillToDisk(), *["SELECT a FROM t ORDER BY a"] * 6)


async def test_statements_of_others_are_hidden_without_pg_monitor(ill: Ill) -> None:
    """That is a missing right, not an absence of slow queries."""
    await ill.sql(EXTENSION, "DROP ROLE IF EXISTS nobody_special", "CREATE ROLE nobody_special LOGIN")
    try:
        ill.dsn = ill.dsn.replace("//streamgauge@", "//nobody_special@")
        with pytest.raises((Unsupported, asyncpg.InsufficientPrivilegeError)):
            await ill.look(SlowQueries())
    finally:
        await ill.sql("DROP ROLE nobody_special")
