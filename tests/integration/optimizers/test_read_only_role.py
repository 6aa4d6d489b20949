"""Every check answers for the role that the documentation tells to make: it reads statistics and nothing else."""

from collections.abc import AsyncGenerator

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
