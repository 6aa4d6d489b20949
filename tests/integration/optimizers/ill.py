"""A database to make ill, and the eyes of a check on it.

In: the addresses of the ill database and of a migrated store. Out: `Ill`: run SQL, let time pass, look.
Promise: what is kept between looks goes to the store; the ill database is read only by checks.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import asyncpg

from database.connect import SCHEMA
from database.settings import read_settings
from optimizers.check import Answer, Check, Finding
from optimizers.counters import Counters
from optimizers.settings import OptimizerSettings
from optimizers.target_look import Nodes, TargetLook, read_facts

_numbers = itertools.count(1)

EMPTY = """
DO $$
DECLARE x record;
BEGIN
    CREATE SCHEMA IF NOT EXISTS emptied;
    DROP EXTENSION IF EXISTS pg_stat_statements;
    CREATE EXTENSION pg_stat_statements SCHEMA emptied;
    PERFORM emptied.pg_stat_statements_reset();
    FOR x IN SELECT extname FROM pg_extension WHERE extname <> 'plpgsql' LOOP
        EXECUTE format('DROP EXTENSION %I CASCADE', x.extname);
    END LOOP;
    FOR x IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', x.nspname);
    END LOOP;
    CREATE SCHEMA public;
    GRANT USAGE ON SCHEMA public TO PUBLIC;
END $$;
ALTER DATABASE ill RESET ALL;
SELECT pg_stat_reset();
"""


@dataclass
class Ill:
    """One database; `version` is its server's."""

    connection: "asyncpg.Connection[asyncpg.Record]"
    """Of its owner, to make it ill."""
    dsn: str
    store_dsn: str
    name: str
    """Of the database."""
    target: str
    """What it is called in the store: another one in each test, for the database is the same."""
    version: int
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    stats_age_s: float = 60 * 86_400.0
    """What checks are told: a test cannot wait for statistics to ripen."""

    async def sql(self, *statements: str) -> None:
        """Run statements one by one, each in a transaction of its own, and publish the statistics they made."""
        for statement in statements:
            await self.connection.execute(statement)
            # At once: ANALYZE after an INSERT whose counters still wait would count its rows twice.
            await self.connection.execute("SELECT pg_stat_force_next_flush()")

    async def until(self, query: str) -> None:
        """Wait until a query answers true."""
        async with asyncio.timeout(20):
            while not await self.connection.fetchval(query):  # noqa: ASYNC110 - PostgreSQL tells nobody
                await asyncio.sleep(0.01)

    def pass_time(self, **delta: float) -> None:
        """Let `now` be later, as `timedelta` reads it: pass_time(hours=1)."""
        self.now += timedelta(**delta)

    async def look(
        self, check: Check, *, is_monitoring: bool = False, replicas: Sequence[str] = (), **settings: str
    ) -> Answer:
        """Return what a check answers now."""
        read = read_settings(OptimizerSettings, {"POSTGRES_DSN": self.store_dsn} | settings)
        async with _connection(self.store_dsn) as store, _connection(self.dsn) as target:
            await store.execute(f"SET search_path = {SCHEMA}")
            facts = replace(await read_facts(target), stats_age_s=self.stats_age_s)
            counters = Counters(store, self.target, check.id, facts.epoch, self.now, 300.0)
            nodes = Nodes(target, {f"replica {n}": partial(_connection, dsn) for n, dsn in enumerate(replicas, 1)})
            async with target.transaction(readonly=True):
                return await check.look(TargetLook(nodes, read, self.now, is_monitoring, facts, counters))

    async def findings(self, check: Check, **options: Any) -> dict[str, Finding]:
        """Return findings by object; a check that cannot tell fails the test."""
        answer = await self.look(check, **options)
        assert answer.insufficient is None, answer.insufficient
        return {finding.object: finding for finding in answer.findings}

    async def after_an_hour(self, check: Check, *statements: str, **options: Any) -> dict[str, Finding]:
        """Look, run the statements, let an hour pass, and return what the check finds then."""
        await self.look(check, **options)
        await self.sql(*statements)
        self.pass_time(hours=1)
        return await self.findings(check, **options)


async def empty(dsn: str) -> None:
    """Remove all that tests before have left in the database, once their sessions are gone."""
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    async with _connection(dsn) as connection, asyncio.timeout(20):
        # They publish their statistics when they end.
        while await connection.fetchval(f"{others} AND backend_type = 'client backend'"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await connection.execute("SET client_min_messages = error")
        await connection.execute(EMPTY)


@asynccontextmanager
async def opened(dsn: str, store_dsn: str) -> AsyncGenerator[Ill, None]:
    """Open a fresh database as its owner."""
    async with _connection(dsn) as connection:
        name = await connection.fetchval("SELECT current_database()::text")
        yield Ill(connection, dsn, store_dsn, name, f"ill {next(_numbers)}", connection.get_server_version().major)


@asynccontextmanager
async def _connection(dsn: str) -> AsyncGenerator["asyncpg.Connection[asyncpg.Record]", None]:
    connection = await asyncpg.connect(dsn, timeout=10, command_timeout=60)
    try:
        yield connection
    finally:
        await connection.close(timeout=10)
