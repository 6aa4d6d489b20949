"""`streamgauge optimize`: what it prints and returns, and what --apply does and refuses."""

import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from database.connect import Pool, open_pool
from database.optimization_status import read_status
from database.settings import SettingsError, read_settings
from optimizers.applying import Applied, Refused, apply
from optimizers.checks.i5_duplicate_index import DuplicateIndex
from optimizers.checks.k2_idle_in_transaction import IdleInTransaction
from optimizers.database_optimizer import DatabaseOptimizer
from optimizers.settings import OptimizerSettings

TWINS = (
    "CREATE TABLE public.t (a int, b int); CREATE INDEX i1 ON public.t (a); CREATE INDEX i2 ON public.t (a);"
    "CREATE INDEX wide ON public.t (b, a); CREATE INDEX narrow ON public.t (b)"
)


@dataclass
class Rig:
    """A monitoring database, and another one."""

    pool: Pool
    settings: Mapping[str, str]

    def optimizer(self, **settings: str) -> DatabaseOptimizer:
        """Return an optimizer that looks for duplicates."""
        read = read_settings(OptimizerSettings, dict(self.settings) | settings)
        return DatabaseOptimizer(self.pool, read, [DuplicateIndex])

    async def fingerprint(self, name: str, target: str = "monitoring") -> str:
        """Return that of the finding of an index."""
        query = "SELECT fingerprint FROM findings WHERE object = $1 AND target = $2"
        return await self.pool.fetchval(query, name, target)

    async def apply(self, name: str, target: str = "monitoring", **settings: str) -> Applied:
        """Apply the finding of an index."""
        return await apply(self.optimizer(**settings), await self.fingerprint(name, target))


@pytest.fixture
async def rig(dsn: str) -> AsyncGenerator[Rig, None]:
    """A store with twins in it."""
    settings = {"POSTGRES_DSN": dsn}
    pool = await open_pool(read_settings(OptimizerSettings, settings), size=2)
    try:
        await pool.execute(TWINS)
        yield Rig(pool, settings)
    finally:
        await pool.close()


async def indexes(pool: Pool) -> set[str]:
    rows = await pool.fetch("SELECT indexname FROM pg_indexes WHERE tablename = 't'")
    return {row["indexname"] for row in rows}


async def test_opt_in_finding_is_applied_with_what_undoes_it(rig: Rig) -> None:
    """The change, its record, and the way back."""
    await rig.optimizer().run()
    done = await rig.apply("public.i2")
    assert (done.sql, done.error, done.is_still_found) == ("DROP INDEX CONCURRENTLY public.i2", None, False)
    assert await indexes(rig.pool) == {"i1", "wide", "narrow"}
    record = await rig.pool.fetchrow("SELECT tier, sql, before, after, rollback, error FROM applied_actions")
    assert record is not None
    assert (record["tier"], record["error"]) == ("opt_in", None)
    assert json.loads(record["before"])["size_bytes"] == 8192
    assert json.loads(record["after"]) == {}
    await rig.pool.execute(record["rollback"])
    assert "i2" in await indexes(rig.pool)
    runs = await rig.pool.fetch(
        "SELECT status, statement_s, connections FROM optimizer_runs ORDER BY run_id DESC LIMIT 1"
    )
    assert [(row["status"], row["statement_s"] > 0, row["connections"]) for row in runs] == [("applied", True, 2)]
    last = (await read_status(rig.pool))["last_run"]
    assert last is not None and last["status"] == "done", "what a person applied is no run"


async def test_session_idle_in_transaction_is_terminated_only_when_that_is_set(rig: Rig, tmp_path: Path) -> None:
    """By `--apply`, on record, with nothing to undo it."""
    checks = tmp_path / "checks.toml"
    checks.write_text("K2.terminate_after_s = 0.000001")
    other = await asyncpg.connect(rig.settings["POSTGRES_DSN"], timeout=10)
    try:
        await other.execute("BEGIN; SELECT 1")
        read = read_settings(OptimizerSettings, dict(rig.settings))
        await DatabaseOptimizer(rig.pool, read, [IdleInTransaction]).run()
        object_name = f"session {other.get_server_pid()}"
        assert await rig.fingerprint(object_name) is None
        set_so = read_settings(OptimizerSettings, dict(rig.settings) | {"STREAMGAUGE_CHECKS_FILE": str(checks)})
        optimizer = DatabaseOptimizer(rig.pool, set_so, [IdleInTransaction])
        await optimizer.run()
        assert not other.is_closed()
        done = await apply(optimizer, await rig.fingerprint(object_name))
        assert (done.error, done.rollback, done.is_still_found) == (None, None, False)
        record = await rig.pool.fetchrow("SELECT tier, sql, rollback, error FROM applied_actions")
        assert record is not None
        assert tuple(record) == ("opt_in", done.sql, None, None)
        assert "pg_terminate_backend" in done.sql
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await other.execute("SELECT 1")
    finally:
        other.terminate()


async def test_finding_for_a_person_is_refused(rig: Rig) -> None:
    """A prefix may be missed."""
    await rig.optimizer().run()
    with pytest.raises(Refused, match="for a person"):
        await rig.apply("public.narrow")


async def test_finding_that_is_gone_is_refused(rig: Rig) -> None:
    """Somebody else was faster."""
    await rig.optimizer().run()
    await rig.pool.execute("DROP INDEX public.i1")
    with pytest.raises(Refused, match="does not find it any more"):
        await rig.apply("public.i2")
    assert "i2" in await indexes(rig.pool)


async def test_statement_that_was_not_shown_is_refused(rig: Rig) -> None:
    """What runs is what somebody has read."""
    await rig.optimizer().run()
    await rig.pool.execute("UPDATE findings SET sql = 'DROP TABLE public.t' WHERE object = 'public.i2'")
    with pytest.raises(Refused, match="its statement has changed"):
        await rig.apply("public.i2")


@pytest.mark.parametrize(("fingerprint", "why"), [("", "no finding"), ("zzz", "no finding")])
async def test_unknown_fingerprint_is_refused(rig: Rig, fingerprint: str, why: str) -> None:
    """And an empty one means none, not any."""
    await rig.optimizer().run()
    with pytest.raises(Refused, match=why):
        await apply(rig.optimizer(), fingerprint)


async def test_other_database_is_changed_only_by_an_address_for_it(rig: Rig, dsn: str) -> None:
    """Looking does not give the right to change."""
    shop = {"STREAMGAUGE_OPTIMIZER_TARGETS": f"shop={dsn}"}
    await rig.optimizer(**shop).run()
    with pytest.raises(Refused, match="STREAMGAUGE_OPTIMIZER_APPLY_TARGETS has no address"):
        await rig.apply("public.i2", "shop", **shop)
    done = await rig.apply("public.i2", "shop", **shop, STREAMGAUGE_OPTIMIZER_APPLY_TARGETS=f"shop={dsn}")
    assert (done.target, done.error) == ("shop", None)


async def test_change_that_fails_is_on_record(rig: Rig) -> None:
    """A lock is waited for a second, not for ever."""
    await rig.optimizer().run()
    async with rig.pool.acquire() as holder, holder.transaction():
        await holder.execute("LOCK TABLE public.t IN ACCESS SHARE MODE; LOCK TABLE public.t IN SHARE MODE")
        done = await rig.apply("public.i2")
    assert done.error is not None
    assert "LockNotAvailable" in done.error
    assert done.is_still_found
    assert "LockNotAvailable" in await rig.pool.fetchval("SELECT error FROM applied_actions")


async def test_one_change_at_a_time(rig: Rig, dsn: str) -> None:
    """While a run or another change is under way nothing is applied."""
    await rig.optimizer().run()
    other = await asyncpg.connect(dsn)
    try:
        await other.fetchval("SELECT pg_advisory_lock($1, 1)", 0x5347_4F50)
        with pytest.raises(Refused, match="another run is under way"):
            await rig.apply("public.i2")
    finally:
        await other.close()


async def test_unknown_target_is_named(rig: Rig) -> None:
    """Exit code 2 at the command line."""
    with pytest.raises(SettingsError, match="no target is called shop"):
        await rig.optimizer().run(only="shop")


def command(dsn: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {"POSTGRES_DSN": dsn, "PATH": "/usr/bin:/bin", "STREAMGAUGE_HOME": "/nonexistent"}
    line = [sys.executable, "-m", "streamgauge", "optimize", *arguments]
    return subprocess.run(line, env=environ, capture_output=True, text=True, timeout=60, check=False)


async def test_command_shows_findings_and_applies_one(rig: Rig, dsn: str) -> None:
    """All checks on a real monitoring database: none fails, and the exit code follows what is open."""
    first = command(dsn, "--json")
    said: dict[str, Any] = json.loads(first.stdout)
    assert first.returncode == 0, first.stderr
    assert {row["state"] for row in said["findings"]} == {"pending"}
    errors = {row["id"]: row["error"] for row in said["checks"] if row["status"] == "error"}
    assert set(errors.values()) <= {"unsupported"}, said["checks"]
    assert said["last_run"]["connections"] <= 5
    second = command(dsn)
    assert second.returncode == 1
    assert "CRITICAL I5 public.i2" in second.stdout
    applied = command(dsn, "--apply", (await rig.fingerprint("public.i2"))[:8])
    assert (applied.returncode, applied.stderr) == (0, "")
    assert "to undo: CREATE INDEX i2 ON public.t USING btree (a)" in applied.stdout
    again = command(dsn, "--apply", (await rig.fingerprint("public.i2"))[:8])
    assert (again.returncode, again.stderr) == (1, "streamgauge: not applied: its check does not find it any more\n")
