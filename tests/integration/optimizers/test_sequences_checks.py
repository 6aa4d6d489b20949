"""S checks: keys that run out of values, constraints that nobody validated."""

import pytest

from optimizers.check import Severity, Tier
from optimizers.checks.s1_sequences import Sequences
from optimizers.checks.s2_invalid_constraints import InvalidConstraints
from tests.integration.optimizers.ill import Ill

only_18 = pytest.mark.parametrize("ill_dsn", ["18"], indirect=True, ids=["postgres18"])


async def test_s1_sequence_of_an_integer_column_is_found_at_half_of_it(ill: Ill) -> None:
    """Critical at three quarters; the cure is bigint."""
    await ill.sql("CREATE TABLE t (id serial PRIMARY KEY)", "SELECT setval('t_id_seq', 1073741823)")
    assert not await ill.findings(Sequences())
    await ill.sql("SELECT setval('t_id_seq', 1073741824)")
    found = (await ill.findings(Sequences()))["public.t_id_seq"]
    assert (found.severity, found.tier) == (Severity.WARN, Tier.NEVER)
    assert found.sql == "ALTER TABLE public.t ALTER COLUMN id TYPE bigint"
    assert "fills public.t.id (integer)" in found.recommendation
    await ill.sql("SELECT setval('t_id_seq', 1610612736)")
    assert (await ill.findings(Sequences()))["public.t_id_seq"].severity is Severity.CRITICAL


@only_18
async def test_s1_wide_sequence_into_a_narrow_column_is_judged_by_the_column(ill: Ill) -> None:
    """A bigint sequence that feeds a smallint."""
    await ill.sql(
        "CREATE TABLE t (id int2)",
        "CREATE SEQUENCE s OWNED BY t.id",
        "ALTER TABLE t ALTER id SET DEFAULT nextval('s')",
        "SELECT setval('s', 30000)",
    )
    found = (await ill.findings(Sequences()))["public.s"]
    assert found.severity is Severity.CRITICAL
    assert found.evidence["largest_value"] == 32767


@only_18
async def test_s1_bounded_sequence_is_found_by_its_own_end(ill: Ill) -> None:
    """Without a column: 75 % and 90 % of its maximum; one that cycles, or is unused, is silent."""
    await ill.sql(
        "CREATE SEQUENCE s MAXVALUE 1000",
        "CREATE SEQUENCE c MAXVALUE 1000 CYCLE",
        "CREATE SEQUENCE u MAXVALUE 1000",
        "SELECT setval('s', 750), setval('c', 999)",
    )
    found = await ill.findings(Sequences())
    assert list(found) == ["public.s"]
    assert (found["public.s"].severity, found["public.s"].sql) == (Severity.WARN, None)
    await ill.sql("SELECT setval('s', 749)")
    assert not await ill.findings(Sequences())


async def test_s1_integer_key_without_sequence_is_found_by_its_statistics(ill: Ill) -> None:
    """Keys that an application counts, and that refer to them; other columns may hold what they like."""
    await ill.sql(
        "CREATE TABLE t (id int PRIMARY KEY, ref int REFERENCES t, plain int)",
        "INSERT INTO t SELECT 1700000000 + g, NULL, 2000000000 FROM generate_series(1, 200) g",
        "UPDATE t SET ref = id WHERE id % 2 = 0",
        "ANALYZE t",
    )
    found = await ill.findings(Sequences())
    assert set(found) == {"public.t.id", "public.t.ref"}
    assert found["public.t.id"].severity is Severity.CRITICAL
    assert not await ill.findings(Sequences(integer_share_warn=0.8, integer_share_critical=0.9))


@only_18
async def test_s1_unreadable_sequence_is_said(ill: Ill) -> None:
    """Its last value is hidden from a role without the right to it."""
    await ill.sql("CREATE SEQUENCE s", "SELECT nextval('s')", "CREATE ROLE blind LOGIN")
    try:
        ill.dsn = ill.dsn.replace("streamgauge@", "blind@")
        answer = await ill.look(Sequences())
        assert answer.insufficient is not None and "public.s" in answer.insufficient
    finally:
        await ill.sql("DROP ROLE blind")


async def test_s1_key_whose_statistics_are_hidden_is_said(ill: Ill) -> None:
    """pg_stats shows a role only what it may read: nothing seen is not all well."""
    await ill.sql(
        "CREATE TABLE t (id int PRIMARY KEY)",
        "INSERT INTO t SELECT 1700000000 + g FROM generate_series(1, 200) g",
        "ANALYZE t",
        "CREATE ROLE watcher LOGIN IN ROLE pg_monitor",
    )
    try:
        ill.dsn = ill.dsn.replace("streamgauge@", "watcher@")
        answer = await ill.look(Sequences())
        assert answer.insufficient == "1 may not be read, public.t.id first: grant the role SELECT"
        await ill.sql("GRANT SELECT ON t TO watcher")
        assert list(await ill.findings(Sequences())) == ["public.t.id"]
    finally:
        await ill.sql("DROP OWNED BY watcher", "DROP ROLE watcher")


async def test_s2_constraint_that_was_never_validated_is_found_until_it_is(ill: Ill) -> None:
    """The statement it proposes leaves nothing to find."""
    await ill.sql(
        "CREATE TABLE p (id int PRIMARY KEY)",
        "CREATE TABLE t (a int, p int)",
        'ALTER TABLE t ADD CONSTRAINT "A>0" CHECK (a > 0) NOT VALID',
        "ALTER TABLE t ADD CONSTRAINT t_p FOREIGN KEY (p) REFERENCES p NOT VALID",
    )
    found = await ill.findings(InvalidConstraints())
    assert set(found) == {'public.t."A>0"', "public.t.t_p"}
    assert found["public.t.t_p"].tier is Tier.OPT_IN
    assert found["public.t.t_p"].sql == "ALTER TABLE public.t VALIDATE CONSTRAINT t_p"
    assert "foreign key" in found["public.t.t_p"].recommendation
    for finding in found.values():
        assert finding.sql is not None
        await ill.sql(finding.sql)
    assert not await ill.findings(InvalidConstraints())


@only_18
async def test_s2_constraint_that_is_not_enforced_is_meant_so(ill: Ill) -> None:
    """PostgreSQL 18 has them; NOT NULL may be NOT VALID there, too."""
    await ill.sql("CREATE TABLE t (a int CHECK (a > 0) NOT ENFORCED)", "INSERT INTO t VALUES (-1)")
    assert not await ill.findings(InvalidConstraints())
    await ill.sql("ALTER TABLE t ADD CONSTRAINT nn NOT NULL a NOT VALID")
    assert "not null" in (await ill.findings(InvalidConstraints()))["public.t.nn"].recommendation
