"""B checks: dead rows, and tables and indexes much larger than what they hold."""

from datetime import UTC, datetime

import asyncpg
import pytest

from optimizers.check import Severity, Tier
from optimizers.checks.b1_dead_tuples import DeadTuples
from optimizers.checks.b2_table_bloat import TableBloat
from optimizers.checks.b3_index_bloat import IndexBloat
from tests.integration.optimizers.ill import Ill

only_18 = pytest.mark.parametrize("ill_dsn", ["18"], indirect=True, ids=["postgres18"])

TABLE = "CREATE TABLE t (a int, b text) WITH (autovacuum_enabled = off)"
ROWS = "INSERT INTO t SELECT g, repeat('x', 90) FROM generate_series(1, {}) g"
SMALL = {"size_bytes_warn": 100_000, "size_bytes_critical": 200_000}
NOON, NIGHT = (datetime(2030, 1, 1, hour, tzinfo=UTC) for hour in (12, 2))


async def test_b1_dead_rows_are_found_by_share(ill: Ill) -> None:
    """A fifth is a warning, two fifths are critical, and there have to be enough of them."""
    await ill.sql(TABLE, ROWS.format(1000), "DELETE FROM t WHERE a <= 200")
    found = (await ill.findings(DeadTuples(min_dead_rows=200)))["public.t"]
    assert (found.severity, found.tier, found.sql) == (Severity.WARN, Tier.AUTOMATIC, "VACUUM (ANALYZE) public.t")
    assert found.evidence["dead_share"] == 0.2
    assert "200 dead rows in public.t, 20 %" in found.recommendation
    assert not await ill.findings(DeadTuples(min_dead_rows=201))
    assert not await ill.findings(DeadTuples(min_dead_rows=200, dead_share_warn=0.21))
    await ill.sql("DELETE FROM t WHERE a <= 400")
    assert (await ill.findings(DeadTuples(min_dead_rows=200)))["public.t"].severity is Severity.CRITICAL


@only_18
async def test_b1_large_tables_are_judged_more_strictly(ill: Ill) -> None:
    """Above 1 GB a tenth is enough, above 10 GB a fifth is critical; the sizes are lowered here."""
    await ill.sql(TABLE, ROWS.format(1000), "DELETE FROM t WHERE a <= 150")
    big = DeadTuples(min_dead_rows=100, big_bytes=50_000)
    assert (await ill.findings(big))["public.t"].severity is Severity.WARN
    assert not await ill.findings(DeadTuples(min_dead_rows=100))
    await ill.sql("DELETE FROM t WHERE a <= 210")
    huge = DeadTuples(min_dead_rows=100, huge_bytes=50_000)
    assert (await ill.findings(huge))["public.t"].severity is Severity.CRITICAL


@only_18
async def test_b1_vacuum_cures_what_it_finds(ill: Ill) -> None:
    """The statement it proposes leaves nothing to find."""
    await ill.sql(TABLE, ROWS.format(1000), "DELETE FROM t WHERE a <= 900")
    check = DeadTuples(min_dead_rows=100)
    sql = (await ill.findings(check))["public.t"].sql
    assert sql is not None
    await ill.sql(sql)
    assert not await ill.findings(check)


@only_18
async def test_b1_names_who_holds_the_dead_rows(ill: Ill) -> None:
    """A VACUUM that could remove nothing is not proposed."""
    await ill.sql(TABLE, ROWS.format(1000))
    other = await asyncpg.connect(ill.dsn, server_settings={"application_name": "reports"})
    try:
        await other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        await ill.sql("DELETE FROM t")
        found = (await ill.findings(DeadTuples(min_dead_rows=100, held_s=0)))["public.t"]
    finally:
        await other.close()
    assert (found.sql, found.tier) == (None, Tier.NEVER)
    assert found.evidence["horizon_held_by"].startswith("session streamgauge / reports")


@only_18
async def test_b1_proposes_a_smaller_scale_factor_with_the_way_back(ill: Ill) -> None:
    """Opt-in; one that is small enough, autovacuum that is off, and a horizon that is held are no cases for it."""
    await ill.sql("CREATE TABLE t (a int, b text)", ROWS.format(1000), "DELETE FROM t WHERE a <= 500")
    check = DeadTuples(min_dead_rows=100)
    found = (await ill.findings(check))["public.t (autovacuum)"]
    assert (found.severity, found.tier) == (Severity.INFO, Tier.OPT_IN)
    assert found.sql == "ALTER TABLE public.t SET (autovacuum_vacuum_scale_factor = 0.05)"
    assert found.rollback == "ALTER TABLE public.t RESET (autovacuum_vacuum_scale_factor)"
    await ill.sql("ALTER TABLE t SET (autovacuum_vacuum_scale_factor = 0.5)")
    again = (await ill.findings(check))["public.t (autovacuum)"]
    assert again.rollback == "ALTER TABLE public.t SET (autovacuum_vacuum_scale_factor = 0.5)"
    assert again.sql is not None
    await ill.sql(again.sql)
    assert list(await ill.findings(check)) == ["public.t"]
    await ill.sql(
        "ALTER TABLE t RESET (autovacuum_vacuum_scale_factor)", "ALTER TABLE t SET (autovacuum_enabled = off)"
    )
    assert list(await ill.findings(check)) == ["public.t"]


async def test_b2_emptied_table_is_found_and_full_one_is_not(ill: Ill) -> None:
    """Rows were deleted and vacuumed: the file keeps its size."""
    await ill.sql(TABLE, ROWS.format(5000), "ANALYZE t")
    assert not await ill.findings(TableBloat(**SMALL))
    await ill.sql("DELETE FROM t WHERE a % 10 <> 0", "VACUUM (ANALYZE) t")
    found = (await ill.findings(TableBloat(**SMALL)))["public.t"]
    assert (found.severity, found.sql, found.tier) == (Severity.CRITICAL, None, Tier.NEVER)
    assert 0.85 < found.evidence["bloat_share"] < 0.95
    assert "VACUUM makes room for new rows but does not shrink it" in found.recommendation
    assert not await ill.findings(TableBloat()), "a small table is nobody's trouble"


@only_18
async def test_b2_estimate_knows_nulls_fillfactor_and_kinds_of_columns(ill: Ill) -> None:
    """Tables that are as full as they can be are silent."""
    await ill.sql(
        "CREATE TABLE n (a int, b text, c timestamptz, d numeric, e jsonb) WITH (fillfactor = 60)",
        "INSERT INTO n SELECT g, CASE WHEN g % 2 = 0 THEN repeat('y', g % 50) END, now(), g * 1.5, '{\"a\": 1}' "
        "FROM generate_series(1, 5000) g",
        "ANALYZE n",
    )
    assert not await ill.findings(TableBloat(**SMALL, bloat_share_warn=0.2, bloat_share_critical=0.2))


@only_18
async def test_b2_is_measured_at_night_where_pgstattuple_is(ill: Ill) -> None:
    """By day it is an estimate; at night the map of free space has the last word."""
    await ill.sql("CREATE SCHEMA ext", "CREATE EXTENSION pgstattuple SCHEMA ext", TABLE, ROWS.format(5000))
    await ill.sql("DELETE FROM t WHERE a % 10 <> 0", "VACUUM (ANALYZE) t")
    ill.now = NOON
    assert not (await ill.findings(TableBloat(**SMALL)))["public.t"].evidence["is_measured"]
    ill.now = NIGHT
    found = (await ill.findings(TableBloat(**SMALL)))["public.t"]
    assert found.evidence["is_measured"]
    assert 0.8 < found.evidence["bloat_share"] < 0.95
    # An estimate on numbers that are wrong is put right.
    await ill.sql("INSERT INTO t SELECT g, repeat('x', 90) FROM generate_series(1, 4400) g")
    assert not await ill.findings(TableBloat(**SMALL))


@only_18
async def test_b2_says_that_it_cannot_read_statistics(ill: Ill) -> None:
    """pg_stats shows a role only what it may SELECT."""
    await ill.sql(TABLE, ROWS.format(5000), "CREATE INDEX t_a ON t (a)", "ANALYZE t", "CREATE ROLE blind LOGIN")
    try:
        ill.dsn = ill.dsn.replace("streamgauge@", "blind@")
        for check, name in ((TableBloat(**SMALL), "public.t:"), (IndexBloat(min_pages=1), "public.t_a:")):
            answer = await ill.look(check)
            assert not answer.findings
            assert name in (answer.insufficient or "")
    finally:
        await ill.sql("DROP ROLE blind")


async def test_b3_index_of_deleted_rows_is_found(ill: Ill) -> None:
    """Pages that are nearly empty, until it is built anew."""
    await ill.sql(TABLE, ROWS.format(60_000), "CREATE INDEX t_a ON t (a)", "ANALYZE t")
    assert not await ill.findings(IndexBloat())
    await ill.sql("DELETE FROM t WHERE a % 10 <> 0", "VACUUM (ANALYZE) t")
    found = (await ill.findings(IndexBloat()))["public.t_a"]
    assert (found.severity, found.tier) == (Severity.CRITICAL, Tier.OPT_IN)
    assert found.sql == "REINDEX INDEX CONCURRENTLY public.t_a"
    assert 0.85 < found.evidence["bloat_share"] < 0.95
    by_bytes = IndexBloat(bloat_share_warn=1, bloat_share_critical=1, wasted_bytes_warn=found.evidence["wasted_bytes"])
    assert (await ill.findings(by_bytes))["public.t_a"].severity is Severity.WARN
    await ill.sql(found.sql, "ANALYZE t")
    assert not await ill.findings(IndexBloat(min_pages=10, bloat_share_warn=0.2, wasted_share=0.2))


@only_18
async def test_b3_equal_entries_are_counted_once(ill: Ill) -> None:
    """Built anew, an index of few values is a third of what its rows would take: half empty, it is bloated."""
    await ill.sql(TABLE, ROWS.format(60_000), "CREATE INDEX t_c ON t ((a % 7))", "DELETE FROM t WHERE a % 5 < 3")
    await ill.sql("VACUUM (ANALYZE) t")
    found = (await ill.findings(IndexBloat(min_pages=10)))["public.t_c"]
    await ill.sql("REINDEX INDEX t_c")
    built_anew = await ill.connection.fetchval("SELECT pg_relation_size('t_c')")
    assert abs(found.evidence["estimated_bytes"] / built_anew - 1) < 0.15


async def test_b3_new_indexes_of_all_kinds_are_silent(ill: Ill) -> None:
    """Equal values stored once, expressions, several columns, NULLs, a fill factor of its own."""
    await ill.sql(
        "CREATE TABLE t (a int, b text, c int, d numeric)",
        "INSERT INTO t SELECT g, md5(g::text), g % 7, CASE WHEN g % 3 = 0 THEN g END FROM generate_series(1, 40000) g",
        "CREATE INDEX ON t (c)",
        "CREATE INDEX ON t (upper(b))",
        "CREATE INDEX ON t (c, b) WITH (fillfactor = 70)",
        "CREATE INDEX ON t (d)",
        "CREATE UNIQUE INDEX ON t (b) INCLUDE (c)",
        "ANALYZE t",
    )
    assert not await ill.findings(IndexBloat(min_pages=1, bloat_share_warn=0.2, wasted_share=0.2))
