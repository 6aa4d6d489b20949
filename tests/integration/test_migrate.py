"""Migrations on a real PostgreSQL: forward, once, in any number of processes; a changed file is refused."""

import asyncio

import asyncpg
import pytest

from database import migrate as migrations
from database.connect import SCHEMA, open_pool
from database.load_runs import ensure_run, migrate_runs
from database.migrate import Migration, SchemaError, check, migrate
from database.settings import PostgresSettings
from tests.servers import Servers


@pytest.fixture
def empty_dsn(servers: Servers) -> str:
    """Address of a database without a schema."""
    name = f"empty_{id(servers)}_{len(servers.home.name)}"
    servers.postgres().drop_database(name)
    servers.postgres().create_database(name)
    return servers.postgres().dsn(name)


async def connect(dsn: str) -> "asyncpg.Connection[asyncpg.Record]":
    """Connect as a service does."""
    return await asyncpg.connect(dsn, server_settings={"search_path": SCHEMA}, timeout=10)


async def test_many_processes_migrate_an_empty_database_once(empty_dsn: str) -> None:
    connection = await connect(empty_dsn)
    with pytest.raises(SchemaError, match="run `streamgauge migrate`"):
        await check(connection)
    applied = await asyncio.gather(*(migrate(empty_dsn) for _ in range(3)))
    everything = [f"{m.version:04d}_{m.name}" for m in migrations.migrations()]
    assert sorted(applied) == [[], [], everything]
    await check(connection)
    await connection.close()


async def test_a_schema_that_lacks_a_migration_is_named(dsn: str) -> None:
    connection = await connect(dsn)
    newest = migrations.migrations()[-1]
    await connection.execute("DELETE FROM schema_migrations WHERE version = $1", newest.version)
    with pytest.raises(SchemaError, match=f"lacks migration {newest.version:04d}_{newest.name}"):
        await check(connection)
    await connection.close()


async def test_a_file_changed_after_it_was_applied_is_refused(dsn: str) -> None:
    connection = await connect(dsn)
    await connection.execute("UPDATE schema_migrations SET checksum = 'x' WHERE version = 2")
    with pytest.raises(SchemaError, match=r"0002_apply was changed"):
        await check(connection)
    with pytest.raises(SchemaError, match=r"0002_apply was changed"):
        await migrate(dsn)
    await connection.close()


async def test_a_failed_migration_leaves_nothing(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = migrations.migrations()
    bad = Migration(9999, "bad", "CREATE TABLE half (a int); SELECT 1 / 0", "x")
    monkeypatch.setattr(migrations, "migrations", lambda: [*known, bad])
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(dsn)
    connection = await connect(dsn)
    assert await connection.fetchval("SELECT to_regclass('half')") is None
    await connection.close()


async def test_load_test_runs_are_migrated_too(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = await open_pool(PostgresSettings.model_validate({"postgres_dsn": dsn}))
    schema = await ensure_run(pool, "trial", 1, 1)
    known = migrations.migrations()
    new = Migration(9999, "new", "CREATE TABLE added (a int)", "x")
    monkeypatch.setattr(migrations, "migrations", lambda: [*known, new])
    assert await migrate_runs(pool) == ["trial: 9999_new"]
    assert await pool.fetchval("SELECT to_regclass($1)", f"{schema}.added") is not None
    await pool.close()
