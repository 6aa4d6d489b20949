"""scripts/optimizer-role.sql: a role that is enough for a run and may do nothing else."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from database.connect import open_pool
from database.settings import read_settings
from optimizers.database_optimizer import DatabaseOptimizer
from optimizers.settings import OptimizerSettings
from tests.debian_postgres import BINARIES
from tests.integration.optimizers.ill import Ill

SCRIPT = Path(__file__).parents[3] / "scripts/optimizer-role.sql"
ROLE = "streamgauge_optimizer"


def psql(dsn: str, *arguments: str, password: str = "") -> subprocess.CompletedProcess[str]:
    environ = {"PATH": "/usr/bin:/bin", "OPTIMIZER_PASSWORD": password}
    command = [str(BINARIES / "psql"), "-X", "-q", *arguments, dsn]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environ)


@pytest.fixture
def role_dsn(ill_dsn: str, postgres_15: object) -> Iterator[str]:
    """Address of an ill database for the script's role; run twice, as a person would."""
    for _ in range(2):
        done = psql(ill_dsn, "-f", str(SCRIPT), password="it's")
        assert (done.returncode, done.stderr) == (0, "")
    yield ill_dsn.replace("streamgauge@", f"{ROLE}@")
    dropped = psql(ill_dsn, "-c", f"DROP OWNED BY {ROLE}", "-c", f"DROP ROLE {ROLE}")
    assert dropped.returncode == 0, dropped.stderr


async def test_role_is_enough_for_every_check(role_dsn: str, ill: Ill, dsn: str) -> None:
    """A whole run: what cannot answer lacks an extension, never a permission."""
    await ill.sql("CREATE EXTENSION pg_stat_statements", "CREATE TABLE t (a serial PRIMARY KEY)", "ANALYZE")
    settings = read_settings(OptimizerSettings, {"POSTGRES_DSN": dsn, "STREAMGAUGE_OPTIMIZER_TARGETS": f"x={role_dsn}"})
    pool = await open_pool(settings, size=2)
    try:
        await DatabaseOptimizer(pool, settings).run(only="x")
        rows = await pool.fetch("SELECT check_id, error_kind, detail FROM check_results WHERE error_kind IS NOT NULL")
        facts = json.loads(await pool.fetchval("SELECT facts FROM optimizer_targets WHERE target = 'x'"))
    finally:
        await pool.close()
    assert {row["check_id"] for row in rows} <= {"I2"}, [tuple(row) for row in rows]
    assert facts["has_pg_stat_statements"] is True


async def test_role_changes_and_reads_nothing(role_dsn: str, ill: Ill) -> None:
    """Not even where it turns read-only off."""
    await ill.sql("CREATE TABLE t (a int)")
    connection = await asyncpg.connect(role_dsn)
    try:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await connection.execute("CREATE TEMPORARY TABLE x AS SELECT 1 AS a; DELETE FROM pg_class")
        await connection.execute("SET default_transaction_read_only = off")
        for statement in ("SELECT a FROM t", "DELETE FROM t", "DROP TABLE t", "CREATE ROLE other"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        assert await connection.fetchval("SHOW lock_timeout") == "1s"
    finally:
        await connection.close()


def test_script_without_a_password_makes_nothing(ill_dsn: str, postgres_15: object) -> None:
    """A role without one would be open where the server trusts."""
    done = psql(ill_dsn, "-f", str(SCRIPT))
    assert done.returncode == 3
    assert "OPTIMIZER_PASSWORD is not set" in done.stderr
    found = psql(ill_dsn, "-At", "-c", f"SELECT count(*) FROM pg_roles WHERE rolname = '{ROLE}'")
    assert found.stdout.strip() == "0"
