"""I2 proves an index by the plan with it, on PostgreSQL 15 with HypoPG; without HypoPG it says so."""

import pytest

from optimizers.check import Tier, Unsupported
from optimizers.checks.i2_proved_index import ProvedIndex
from tests.integration.optimizers.ill import Ill

EXTENSIONS = ["CREATE EXTENSION hypopg", "CREATE EXTENSION pg_stat_statements"]
TABLE = [
    'CREATE TABLE t (a int, b int, c int, d text, "Odd" int)',
    "INSERT INTO t SELECT g, g % 200, abs(hashint4(g)) % 200, repeat('x', 50), g FROM generate_series(1, 40000) AS g",
    "ANALYZE t",
]
CHECK = ProvedIndex(mean_ms=0.0)


on_15 = pytest.mark.parametrize("ill_dsn", ["15"], indirect=True)
on_18 = pytest.mark.parametrize("ill_dsn", ["18"], indirect=True)


@on_18
async def test_absence_of_hypopg_is_said(ill: Ill) -> None:
    """With what to do."""
    with pytest.raises(Unsupported, match="CREATE EXTENSION hypopg"):
        await ill.look(CHECK)


@on_15
async def test_index_that_saves_half_is_found_and_the_statement_silences_it(ill: Ill) -> None:
    """Cost before and after, size, and SQL that works."""
    await ill.sql(*EXTENSIONS, *TABLE)
    found = await ill.after_an_hour(CHECK, *["SELECT d FROM t WHERE a = 7"] * 12)
    finding = found["public.t (a)"]
    assert finding.tier is Tier.OPT_IN
    assert finding.evidence["queries"][0]["query"] == "SELECT d FROM t WHERE a = $1"
    assert finding.evidence["queries"][0]["cost_after"] < finding.evidence["queries"][0]["cost_before"] / 2
    assert finding.evidence["size_bytes"] > 100_000
    await ill.sql(str(finding.sql))
    assert not await ill.after_an_hour(CHECK, *["SELECT d FROM t WHERE a = 7"] * 12)


@on_15
async def test_second_column_is_proposed_only_where_it_halves_the_cost_again(ill: Ill) -> None:
    """(b, c) for two selective columns; (a) alone where a is unique."""
    await ill.sql(*EXTENSIONS, *TABLE)
    found = await ill.after_an_hour(
        CHECK,
        *["SELECT d FROM t WHERE b = 7 AND c = 3"] * 12,
        *["SELECT d FROM t WHERE a = 7 AND c = 0"] * 12,
    )
    (pair,) = {"public.t (b, c)", "public.t (c, b)"} & set(found)
    assert sorted(found) == sorted([pair, "public.t (a)"])


@on_15
async def test_a_statement_gets_two_indexes_at_most(ill: Ill) -> None:
    """Three tables of which each would need one; the third is found once the two are there."""
    sizes = {"t": 160_000, "u": 40_000, "v": 12_000}
    make = "CREATE TABLE {} AS SELECT g AS a, repeat('x', 50) AS d FROM generate_series(1, {}) AS g"
    await ill.sql(*EXTENSIONS, *[make.format(name, rows) for name, rows in sizes.items()], "ANALYZE")
    slow = ["SELECT t.d FROM t, u, v WHERE t.a = 7 AND u.a = 7 AND v.a = 7"] * 12
    one = await ill.after_an_hour(ProvedIndex(mean_ms=0.0, indexes_per_statement=1), *slow)
    assert list(one) == ["public.t (a)"]
    two = await ill.after_an_hour(CHECK, *slow)
    assert set(two) == {"public.t (a)", "public.u (a)"}
    await ill.sql(*[str(finding.sql) for finding in two.values()])
    assert list(await ill.after_an_hour(CHECK, *slow)) == ["public.v (a)"]


@on_15
async def test_joins_updates_and_odd_names_are_planned(ill: Ill) -> None:
    """Aliases, quoted columns, statements that write."""
    await ill.sql(*EXTENSIONS, "CREATE TABLE u AS SELECT generate_series(1, 5) AS i", *TABLE, "ANALYZE u")
    found = await ill.after_an_hour(
        CHECK,
        *['SELECT x.d FROM t AS x JOIN u ON x."Odd" = u.i'] * 12,
        *["UPDATE t SET d = 'y' WHERE a = 7"] * 12,
    )
    assert sorted(found) == ["public.t (Odd)", "public.t (a)"]
    assert '("Odd")' in str(found["public.t (Odd)"].sql)


@pytest.mark.parametrize(
    "statements",
    [
        ["SELECT d FROM t WHERE b >= 0"] * 12,
        ["SELECT count(*) FROM t"] * 12,
        ["SELECT d FROM t WHERE a = 7"] * 3,
        ["SELECT d FROM t WHERE lower(d) = 'x'"] * 12,
        ["CREATE TABLE IF NOT EXISTS u (a int)"] * 12,
    ],
    ids=["most rows", "all rows", "seldom", "expression", "no query"],
)
@on_15
async def test_statements_that_no_index_helps_are_silent(ill: Ill, statements: list[str]) -> None:
    """A plan decides, not a guess."""
    await ill.sql(*EXTENSIONS, *TABLE)
    assert not await ill.after_an_hour(CHECK, *statements)


@on_15
async def test_index_that_exists_is_not_proposed_again(ill: Ill) -> None:
    """Nor its prefix."""
    await ill.sql(*EXTENSIONS, *TABLE, "CREATE INDEX ON t (a, b)")
    assert not await ill.after_an_hour(CHECK, *["SELECT d FROM t WHERE a = 7"] * 12)


@on_15
async def test_small_tables_are_silent(ill: Ill) -> None:
    """A scan is right."""
    await ill.sql(*EXTENSIONS, "CREATE TABLE t AS SELECT g AS a, 'x' AS d FROM generate_series(1, 900) AS g", "ANALYZE")
    assert not await ill.after_an_hour(CHECK, *["SELECT d FROM t WHERE a = 7"] * 12)


@on_15
async def test_partitions_get_one_index_of_their_parent(ill: Ill) -> None:
    """It cannot be made CONCURRENTLY: a person decides when."""
    await ill.sql(
        *EXTENSIONS,
        "CREATE TABLE t (a int, d text) PARTITION BY RANGE (a)",
        "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (20000)",
        "CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (20000) TO (90000)",
        "INSERT INTO t SELECT g, g::text FROM generate_series(1, 40000) AS g",
        "ANALYZE t",
    )
    found = await ill.after_an_hour(CHECK, *["SELECT a FROM t WHERE d = '7'"] * 12)
    assert list(found) == ["public.t (d)"]
    assert found["public.t (d)"].tier is Tier.NEVER
    assert str(found["public.t (d)"].sql).startswith("CREATE INDEX ix_t_d_")


@on_15
async def test_role_that_may_not_read_is_told(ill: Ill) -> None:
    """Not that all is well."""
    await ill.sql(*EXTENSIONS, *TABLE, "DROP ROLE IF EXISTS blind", "CREATE ROLE blind LOGIN IN ROLE pg_monitor")
    owner = ill.dsn
    try:
        ill.dsn = owner.replace("//streamgauge@", "//blind@")
        await ill.look(CHECK)
        await ill.sql(*["SELECT d FROM t WHERE a = 7"] * 12)
        ill.pass_time(hours=1)
        answer = await ill.look(CHECK)
        assert "permission denied for table t" in str(answer.insufficient)
    finally:
        await ill.sql("DROP ROLE blind")
