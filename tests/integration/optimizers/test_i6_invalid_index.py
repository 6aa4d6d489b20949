"""I6 finds invalid indexes, each with the right way out, and nothing else."""

import asyncio

import asyncpg
import pytest

from optimizers.check import Severity, Tier
from optimizers.checks.i6_invalid_index import InvalidIndex
from tests.integration.optimizers.ill import Ill


async def test_invalid_index_is_found(ill: Ill) -> None:
    """A unique index that could not be built is to be rebuilt, by a person."""
    await ill.sql("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1), (1)")
    with pytest.raises(asyncpg.UniqueViolationError):
        await ill.sql("CREATE UNIQUE INDEX CONCURRENTLY t_a ON t (a)")
    found = (await ill.findings(InvalidIndex()))["public.t_a"]
    assert found.severity is Severity.WARN
    assert found.sql == "REINDEX INDEX CONCURRENTLY public.t_a"
    assert found.tier is Tier.NEVER


async def test_leftover_of_reindex_may_be_dropped(ill: Ill) -> None:
    """REINDEX CONCURRENTLY that fails leaves a `_ccnew` beside the index that still serves."""
    await ill.sql("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)", "CREATE UNIQUE INDEX t_a ON t (a)")
    await ill.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 't_a'::regclass")
    await ill.sql("ALTER INDEX t_a RENAME TO t_a_ccnew", "CREATE UNIQUE INDEX t_a ON t (a)")
    found = await ill.findings(InvalidIndex())
    assert found["public.t_a_ccnew"].tier is Tier.OPT_IN
    assert found["public.t_a_ccnew"].sql == "DROP INDEX CONCURRENTLY public.t_a_ccnew"
    assert found["public.t_a_ccnew"].evidence["valid_twin"] == "public.t_a"


async def test_valid_indexes_are_not_found(ill: Ill) -> None:
    """Healthy indexes of all kinds are silent."""
    await ill.sql("CREATE TABLE t (a int PRIMARY KEY, b text)", "CREATE INDEX ON t (lower(b)) WHERE a > 3")
    assert not await ill.findings(InvalidIndex())


async def test_index_that_is_being_built_is_not_found(ill: Ill) -> None:
    """CREATE INDEX CONCURRENTLY waits for older transactions with an index that is not valid yet."""
    await ill.sql("CREATE TABLE t (a int)")
    holder = await asyncpg.connect(ill.dsn)
    builder = await asyncpg.connect(ill.dsn)
    try:
        await holder.execute("BEGIN; INSERT INTO t VALUES (1)")
        building = asyncio.create_task(builder.execute("CREATE INDEX CONCURRENTLY t_a ON t (a)"))
        await ill.until("SELECT EXISTS (SELECT 1 FROM pg_index WHERE NOT indisvalid)")
        assert not await ill.findings(InvalidIndex())
        await holder.execute("COMMIT")
        await building
    finally:
        await holder.close()
        await builder.close()
