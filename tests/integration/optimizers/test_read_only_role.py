"""Every check answers for a role that reads statistics and nothing else, and waits for nobody's lock."""

import contextlib
from collections.abc import AsyncGenerator

import asyncpg
import pytest

from optimizers.check import Check, Unsupported
from optimizers.checks import CHECKS
from tests.integration.optimizers.ill import Ill

ROLE = "only_monitor"
OBJECTS = (
    "CREATE TABLE t (id serial PRIMARY KEY, b text)",
    "INSERT INTO t (b) SELECT repeat('x', 100) FROM generate_series(1, 2000)",
    "CREATE INDEX ON t (lower(b))",
    "ALTER TABLE t ADD CONSTRAINT c CHECK (id > 0) NOT VALID",
    "CREATE TABLE m (at timestamptz, v int) PARTITION BY RANGE (at)",
    "CREATE TABLE m1 PARTITION OF m FOR VALUES FROM ('2020-01-01') TO ('2020-01-02')",
    "CREATE TABLE rest PARTITION OF m DEFAULT",
    'CREATE SCHEMA "Quoted name"',
    'CREATE TABLE "Quoted name"."a table" ("a column" int)',
    "ANALYZE",
)


@pytest.fixture
async def restricted(ill: Ill) -> AsyncGenerator[Ill, None]:
    """A database with something in it, looked at by a role that has pg_monitor only."""
    await ill.sql(*OBJECTS, f"CREATE ROLE {ROLE} LOGIN IN ROLE pg_monitor")
    ill.dsn = ill.dsn.replace("streamgauge@", f"{ROLE}@")
    yield ill
    await ill.sql(f"DROP OWNED BY {ROLE}", f"DROP ROLE {ROLE}")


async def test_every_check_answers_for_a_role_with_pg_monitor_only(restricted: Ill) -> None:
    """Neither an error nor, where an extension is needed, anything but saying so; now and an hour later."""
    for kind in CHECKS:
        check: Check = kind()
        try:
            await restricted.look(check)
            restricted.pass_time(hours=1)
            await restricted.look(check)
        except Unsupported as lacking:
            assert "pg_stat_statements" in str(lacking) or "hypopg" in str(lacking), (check.id, lacking)


@pytest.mark.parametrize("ill_dsn", ["18"], indirect=True, ids=["postgres18"])
async def test_no_check_waits_for_a_locked_table(ill: Ill) -> None:
    """An ALTER TABLE that takes its time hides what it changes from a check, and nothing else."""
    name = await ill.connection.fetchval("SELECT current_database()")
    await ill.sql(*OBJECTS, f"ALTER DATABASE {name} SET lock_timeout = '50ms'")
    holder = await asyncpg.connect(ill.dsn)
    try:
        await holder.execute("BEGIN; LOCK TABLE t, m, m1, rest; ALTER SEQUENCE t_id_seq CACHE 2")
        await holder.execute("REINDEX TABLE t")
        for kind in CHECKS:
            with contextlib.suppress(Unsupported):
                await ill.look(kind())
    finally:
        await holder.close()
