"""Migrations: forward only, checksummed, one at a time under an advisory lock.

In: the `.sql` files of database/migrations, in the order of their numbers. Out: a schema at the newest version.
Promise: a file that was applied and changed afterwards is an error; a service can tell an old schema (`check`).
"""

import hashlib
from importlib.resources import files
from typing import Final, NamedTuple

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from database.connect import SCHEMA, Connection, transaction
from database.queries import load

LOCK_KEY: Final = 0x5347_4D49  # "SGMI"


class SchemaError(Exception):
    """The schema is missing, old, newer than this program, or was changed; the text says what to do."""


class Migration(NamedTuple):
    """One numbered SQL file."""

    version: int
    name: str
    sql: str
    checksum: str

    @property
    def is_main_only(self) -> bool:
        """Whether the schema of a load-test run does without it: `-- Main schema only` in its first line."""
        return self.sql.startswith("-- Main schema only")


def migrations() -> list[Migration]:
    """Return all migrations in order."""
    found: list[Migration] = []
    for path in files("database").joinpath("migrations").iterdir():
        if path.name.endswith(".sql"):
            sql = path.read_text()
            number, _, name = path.name.removesuffix(".sql").partition("_")
            found.append(Migration(int(number), name, sql, hashlib.sha256(sql.encode()).hexdigest()))
    return sorted(found)


async def migrate(dsn: str, schema: str = SCHEMA) -> list[str]:
    """Bring `schema` to the newest version; returns the names of what was applied now."""
    connection = await asyncpg.connect(
        dsn, timeout=10, command_timeout=300, target_session_attrs=SessionAttribute.read_write
    )
    try:
        return await migrate_schema(connection, schema)
    finally:
        await connection.close(timeout=10)


async def migrate_schema(connection: Connection, schema: str) -> list[str]:
    """Bring `schema` to the newest version on an open connection, in one transaction."""
    done: list[str] = []
    async with transaction(connection):
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK_KEY)
        await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        if schema != SCHEMA:
            # The aggregator made it, and drops it: what a later migration adds must be its own too.
            await connection.fetchval(load("act_as_owner"), schema)
        await connection.execute(f'SET LOCAL search_path = "{schema}"')
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations (version int PRIMARY KEY, name text NOT NULL, "
            "checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        applied = await _applied(connection)
        for migration in migrations():
            if migration.version in applied:
                _require_unchanged(migration, applied[migration.version])
                continue
            if schema == SCHEMA or not migration.is_main_only:
                await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
                migration.version,
                migration.name,
                migration.checksum,
            )
            done.append(f"{migration.version:04d}_{migration.name}")
        await connection.execute(load("grant_services"))
    return done


async def check(connection: Connection) -> None:
    """Raise SchemaError unless the schema in search_path is exactly at this program's version."""
    exists = await connection.fetchval("SELECT to_regclass('schema_migrations') IS NOT NULL")
    applied = await _applied(connection) if exists else {}
    wanted = migrations()
    missing = [m for m in wanted if m.version not in applied]
    if missing:
        raise SchemaError(
            f"the database schema lacks migration {missing[0].version:04d}_{missing[0].name}: run `streamgauge migrate`"
        )
    for migration in wanted:
        _require_unchanged(migration, applied[migration.version])


async def _applied(connection: Connection) -> dict[int, str]:
    rows = await connection.fetch("SELECT version, checksum FROM schema_migrations")
    return {row["version"]: row["checksum"] for row in rows}


def _require_unchanged(migration: Migration, checksum: str) -> None:
    if checksum != migration.checksum:
        raise SchemaError(
            f"migration {migration.version:04d}_{migration.name} was changed after it was applied: "
            "restore the file, and put the change into a new migration"
        )
