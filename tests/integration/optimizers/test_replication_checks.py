"""R checks: standbys that lag, slots that keep WAL for nobody."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from optimizers.check import Check, Severity, Tier
from optimizers.checks.i4_unused_index import UnusedIndex
from optimizers.checks.i7_low_use_index import LowUseIndex
from optimizers.checks.r1_replica_lag import ReplicaLag
from optimizers.checks.r2_slots import Slots
from tests.debian_postgres import DebianPostgres
from tests.integration.optimizers.ill import Ill
from tests.postgres_pair import home

only_15 = pytest.mark.parametrize("ill_dsn", ["15"], indirect=True, ids=["postgres15"])
only_18 = pytest.mark.parametrize("ill_dsn", ["18"], indirect=True, ids=["postgres18"])
EAGER = ReplicaLag(lag_s_warn=0.2, lag_s_critical=3600)


@pytest.fixture
def standby(postgres_15: DebianPostgres) -> Iterator[DebianPostgres]:
    """A standby of the private PostgreSQL 15."""
    with home() as folder:
        server = postgres_15.standby(folder)
        yield server
        server.close()


@asynccontextmanager
async def connected(dsn: str) -> AsyncGenerator["asyncpg.Connection[asyncpg.Record]", None]:
    """A session on the standby."""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        yield connection
    finally:
        await connection.close(timeout=10)


@only_15
async def test_r1_heartbeat_tells_the_lag_of_a_standby(ill: Ill, standby: DebianPostgres) -> None:
    """A paused standby is behind by the age of the heartbeat it has; the WAL it has still to replay is counted."""
    name: str = await ill.connection.fetchval("SELECT current_database()")
    replicas = [standby.dsn(name)]
    await ill.until("SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming' AND replay_lsn IS NOT NULL")
    assert not await ill.findings(ReplicaLag(), replicas=replicas), "a standby that keeps up"
    await ill.sql("CREATE TABLE heartbeats (id int, at timestamptz)", "INSERT INTO heartbeats VALUES (1, now())")
    async with connected(replicas[0]) as other:
        await ill.until("SELECT bool_and(replay_lsn >= pg_current_wal_flush_lsn()) FROM pg_stat_replication")
        await other.execute("SELECT pg_wal_replay_pause()")
        await ill.sql("SELECT pg_sleep(0.3)", "UPDATE heartbeats SET at = now()")
        await ill.until("SELECT bool_and(flush_lsn >= pg_current_wal_flush_lsn()) FROM pg_stat_replication")
        found = await ill.findings(EAGER, replicas=replicas)
        assert found["standby replica 1"].severity is Severity.WARN
        assert found["standby replica 1"].evidence["heartbeat_age_s"] > 0.3
        behind = await ill.findings(ReplicaLag(behind_bytes_warn=1))
        assert behind["standby walreceiver"].evidence["behind_bytes"] > 0
        assert not await ill.findings(ReplicaLag(), replicas=replicas), "a moment behind is healthy"
        await other.execute("SELECT pg_wal_replay_resume()")


@only_15
async def test_r1_standby_that_receives_nothing_is_critical(ill: Ill, standby: DebianPostgres) -> None:
    """All it received it has replayed: without a heartbeat only its receiver tells."""
    name: str = await ill.connection.fetchval("SELECT current_database()")
    replicas = [standby.dsn(name)]
    async with connected(standby.dsn("postgres")) as other:
        await other.execute("ALTER SYSTEM SET primary_conninfo = ''")
        await other.execute("SELECT pg_reload_conf()")
        await ill.until("SELECT count(*) = 0 FROM pg_stat_replication")
        found = (await ill.findings(ReplicaLag(), replicas=replicas))["standby replica 1"]
    assert found.severity is Severity.CRITICAL
    assert "its receiver is not running" in found.recommendation


@only_15
@pytest.mark.parametrize("check", [UnusedIndex(), LowUseIndex()])
async def test_index_is_not_called_unused_while_a_standby_was_not_asked(
    ill: Ill, standby: DebianPostgres, check: Check
) -> None:
    """Attached to the primary and not configured: its use is counted there alone."""
    await ill.sql("CREATE TABLE t (a int)", "CREATE INDEX t_a ON t (a)")
    await ill.until("SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming' AND replay_lsn IS NOT NULL")
    await ill.until("SELECT bool_and(replay_lsn >= pg_current_wal_flush_lsn()) FROM pg_stat_replication")
    answer = await ill.look(check)
    assert answer.insufficient is not None
    assert answer.insufficient.startswith("1 attached standby was not asked, and may use what others do not")
    assert (await ill.look(check, replicas=[standby.dsn(ill.name)])).insufficient is None


async def test_r1_server_without_standbys_is_silent(ill: Ill) -> None:
    """Nothing lags where nothing follows; an old heartbeat on the primary is no lag."""
    await ill.sql("CREATE TABLE heartbeats (at timestamptz)", "INSERT INTO heartbeats VALUES ('2001-01-01')")
    assert not await ill.findings(ReplicaLag())


async def test_r2_inactive_slot_is_found_by_the_wal_it_keeps(ill: Ill) -> None:
    """A gigabyte is a warning, five are critical; here bytes."""
    slot = f"gone_{ill.version}"
    await ill.sql(f"SELECT pg_create_physical_replication_slot('{slot}', true)", "SELECT pg_switch_wal()")
    await ill.sql("CREATE TABLE t AS SELECT generate_series(1, 100)")
    try:
        found = (await ill.findings(Slots(kept_bytes_warn=1)))[f"replication slot {slot}"]
        assert (found.severity, found.tier) == (Severity.WARN, Tier.NEVER)
        assert found.sql == f"SELECT pg_drop_replication_slot('{slot}')"
        assert found.evidence["kept_bytes"] > 0
        assert "Set max_slot_wal_keep_size" in found.recommendation
        critical = await ill.findings(Slots(kept_bytes_critical=1))
        assert critical[f"replication slot {slot}"].severity is Severity.CRITICAL
    finally:
        await ill.sql(f"SELECT pg_drop_replication_slot('{slot}')")
    assert not await ill.findings(Slots())


@only_18
async def test_r2_slot_that_is_inactive_for_a_moment_is_silent(ill: Ill) -> None:
    """PostgreSQL 17 and newer say since when: a standby that restarts is no finding."""
    await ill.sql("SELECT pg_create_physical_replication_slot('moment', true)")
    try:
        assert not await ill.findings(Slots())
        assert "replication slot moment" in await ill.findings(Slots(inactive_s_warn=0))
    finally:
        await ill.sql("SELECT pg_drop_replication_slot('moment')")


@only_15
async def test_r2_inactive_slot_is_found_where_nobody_says_since_when(ill: Ill) -> None:
    """PostgreSQL 15 knows active or not."""
    await ill.sql("SELECT pg_create_physical_replication_slot('idle', true)")
    try:
        assert (await ill.findings(Slots()))["replication slot idle"].evidence["inactive_s"] is None
    finally:
        await ill.sql("SELECT pg_drop_replication_slot('idle')")
