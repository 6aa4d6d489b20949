"""I6 finds invalid indexes, each with the right way out, and nothing else."""

import asyncio

import asyncpg
import pytest

from optimizers.check import Finding, Severity, Tier
from optimizers.checks.i6_invalid_index import InvalidIndex
from tests.integration.optimizers.ill import Ill


async def left(ill: Ill) -> dict[str, Finding]:
    """Look twice, an hour apart: what is found is invalid for an hour."""
    await ill.look(InvalidIndex())
    ill.pass_time(hours=1)
    return await ill.findings(InvalidIndex())


async def test_invalid_index_is_found(ill: Ill) -> None:
    """A unique index that could not be built is to be rebuilt, by a person."""
    await ill.sql("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1), (1)")
    with pytest.raises(asyncpg.UniqueViolationError):
        await ill.sql("CREATE UNIQUE INDEX CONCURRENTLY t_a ON t (a)")
    found = (await left(ill))["public.t_a"]
    assert found.severity is Severity.WARN
    assert found.sql == "REINDEX INDEX CONCURRENTLY public.t_a"
    assert found.tier is Tier.NEVER


async def test_leftover_of_reindex_may_be_dropped(ill: Ill) -> None:
    """REINDEX CONCURRENTLY that fails leaves a `_ccnew` beside the index that still serves."""
    await ill.sql("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)", "CREATE UNIQUE INDEX t_a ON t (a)")
    await ill.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 't_a'::regclass")
    await ill.sql("ALTER INDEX t_a RENAME TO t_a_ccnew", "CREATE UNIQUE INDEX t_a ON t (a)")
    found = await left(ill)
    assert found["public.t_a_ccnew"].tier is Tier.OPT_IN
    assert found["public.t_a_ccnew"].sql == "DROP INDEX CONCURRENTLY public.t_a_ccnew"
    assert found["public.t_a_ccnew"].evidence["valid_twin"] == "public.t_a"


async def test_valid_indexes_are_not_found(ill: Ill) -> None:
    """Healthy indexes of all kinds are silent."""
    await ill.sql("CREATE TABLE t (a int PRIMARY KEY, b text)", "CREATE INDEX ON t (lower(b)) WHERE a > 3")
    assert not await left(ill)


async def test_index_that_backs_a_constraint_is_rebuilt_and_never_dropped(ill: Ill) -> None:
    """Not even with a valid twin, and though it looks like a leftover."""
    await ill.sql("CREATE TABLE t (a int, CONSTRAINT t_a_ccnew UNIQUE (a))", "CREATE UNIQUE INDEX twin ON t (a)")
    await ill.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 't_a_ccnew'::regclass")
    found = (await left(ill))["public.t_a_ccnew"]
    assert (found.sql, found.tier) == ("REINDEX INDEX CONCURRENTLY public.t_a_ccnew", Tier.NEVER)
    assert "it backs a constraint: rebuild it" in found.recommendation


async def test_index_with_a_valid_twin_is_dropped_by_a_person(ill: Ill) -> None:
    """With the statement that makes it again; one on other columns is no twin."""
    await ill.sql("CREATE TABLE t (a int, b int)", "CREATE INDEX mine ON t (a)", "CREATE INDEX other ON t (b)")
    await ill.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'mine'::regclass")
    assert (await left(ill))["public.mine"].sql == "REINDEX INDEX CONCURRENTLY public.mine"
    await ill.sql("CREATE INDEX twin ON t (a)")
    found = (await ill.findings(InvalidIndex()))["public.mine"]
    assert (found.sql, found.tier) == ("DROP INDEX CONCURRENTLY public.mine", Tier.NEVER)
    assert found.rollback == "CREATE INDEX mine ON public.t USING btree (a)"
    assert "public.twin does its work" in found.recommendation


async def test_index_that_is_invalid_for_less_than_an_hour_is_silent(ill: Ill) -> None:
    """Whoever built it may be at it again; how long it is so a run has to see."""
    await ill.sql("CREATE TABLE t (a int)", "CREATE INDEX t_a ON t (a)")
    await ill.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 't_a'::regclass")
    assert not await ill.findings(InvalidIndex())
    ill.pass_time(minutes=59)
    assert not await ill.findings(InvalidIndex())
    ill.pass_time(minutes=1)
    assert list(await ill.findings(InvalidIndex())) == ["public.t_a"]


async def test_index_that_is_being_built_is_not_found(ill: Ill) -> None:
    """CREATE INDEX CONCURRENTLY waits for older transactions with an index that is not valid yet."""
    await ill.sql("CREATE TABLE t (a int)")
    holder = await asyncpg.connect(ill.dsn)
    builder = await asyncpg.connect(ill.dsn)
    try:
        await holder.execute("BEGIN; INSERT INTO t VALUES (1)")
        building = asyncio.create_task(builder.execute("CREATE INDEX CONCURRENTLY t_a ON t (a)"))
        await ill.until("SELECT EXISTS (SELECT 1 FROM pg_index WHERE NOT indisvalid)")
        assert not await left(ill)
        await holder.execute("COMMIT")
        await building
    finally:
        await holder.close()
        await builder.close()
