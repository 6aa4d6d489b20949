"""G1 and W1: settings against the host's memory, and checkpoints that WAL forces."""

import pytest

from database.queries import load
from optimizers.check import Finding, Severity, Tier
from optimizers.checks.g1_settings import UNKNOWN, Settings
from optimizers.checks.w1_forced_checkpoints import ForcedCheckpoints
from optimizers.meter import Meter
from optimizers.targets import Address, connected
from optimizers.wording import GB, MB
from tests.integration.optimizers.ill import Ill

USER = "streamgauge"
"""Who looks in these tests."""
TUNED = {
    "shared_buffers": 4 * GB,
    "effective_cache_size": 12 * GB,
    "maintenance_work_mem": GB,
    "autovacuum_work_mem": 256 * MB,
    "work_mem": 38 * MB,
    "wal_buffers": 16 * MB,
    "max_connections": 100.0,
    "max_worker_processes": 8.0,
    "autovacuum_max_workers": 3.0,
}
"""pgtune's web profile for 16 GB."""


def by_name(found: list[Finding]) -> dict[str, Finding]:
    """Findings by setting."""
    return {finding.object: finding for finding in found}


def test_g1_tuned_server_is_silent() -> None:
    """What pgtune gives is not far from what pgtune gives."""
    assert not Settings().of_memory(TUNED, 16 * GB)


@pytest.mark.parametrize(
    ("name", "value", "severity"),
    [
        ("shared_buffers", 128 * MB, Severity.INFO),
        ("shared_buffers", 2 * GB, None),
        ("shared_buffers", 9 * GB, Severity.WARN),
        ("effective_cache_size", 4 * GB, Severity.INFO),
        ("effective_cache_size", 25 * GB, Severity.WARN),
        ("work_mem", 4 * MB, Severity.INFO),
        ("work_mem", 100 * MB, None),
        ("work_mem", 160 * MB, Severity.WARN),
        ("maintenance_work_mem", 64 * MB, Severity.INFO),
        ("wal_buffers", 4 * MB, Severity.INFO),
    ],
)
def test_g1_setting_far_from_its_formula_is_found(name: str, value: float, severity: Severity | None) -> None:
    """Half and double by default; work_mem may be four times larger."""
    found = by_name(Settings().of_memory(TUNED | {name: value}, 16 * GB))
    assert (found[name].severity if name in found else None) is severity


def test_g1_maintenance_memory_counts_every_worker() -> None:
    """An eighth of memory is a warning, a quarter is critical; without a setting of its own the general one counts."""
    settings = TUNED | {"autovacuum_work_mem": -1024.0, "maintenance_work_mem": 700 * MB}
    assert by_name(Settings().of_memory(settings, 16 * GB))["autovacuum_work_mem"].severity is Severity.WARN
    settings |= {"autovacuum_work_mem": 1.5 * GB}
    found = by_name(Settings().of_memory(settings, 16 * GB))["autovacuum_work_mem"]
    assert found.severity is Severity.CRITICAL
    assert found.sql == "ALTER SYSTEM SET autovacuum_work_mem = '683MB'"
    assert found.rollback == "ALTER SYSTEM SET autovacuum_work_mem = '1536MB'"


async def test_g1_reads_the_limit_of_a_server_on_this_machine(ill: Ill) -> None:
    """Over a unix socket its process is one that this machine shows; a given size of memory wins."""
    local = await ill.findings(Settings())
    assert local["shared_buffers"].evidence["memory_bytes"] > 64 * MB
    given = await ill.findings(Settings(memory_bytes=300 * MB))
    assert "shared_buffers" not in given, "64 MB of 300 MB are right"
    assert given["effective_cache_size"].severity is Severity.WARN
    assert all(finding.tier is Tier.NEVER for finding in given.values())


async def test_g1_memory_of_another_host_is_unknown_and_the_rest_is_judged(
    ill: Ill, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process id that means nothing here is not taken for another's."""

    def nothing(pid: int) -> None:
        assert pid > 0

    monkeypatch.setattr("optimizers.checks.g1_settings.memory_limit", nothing)
    answer = await ill.look(Settings())
    assert answer.insufficient == UNKNOWN
    found = by_name(list(answer.findings))
    assert "shared_buffers" not in found
    assert found["random_page_cost"].sql == "ALTER SYSTEM SET random_page_cost = '1.1'"
    assert ("effective_io_concurrency" in found) == (ill.version < 18)


async def test_g1_role_without_time_outs_is_found_until_it_has_them(ill: Ill) -> None:
    """Set for the role, or for everybody in this database; an explicit 0 of the role is none, whatever others have."""
    name = f"app_{ill.version}_timeouts"
    database = await ill.connection.fetchval("SELECT current_database()")
    await ill.sql(f"CREATE ROLE {name} LOGIN", f"ALTER ROLE {name} SET statement_timeout = '0s'")
    try:
        found = await ill.findings(Settings())
        assert found[f"{name}.statement_timeout"].severity is Severity.INFO
        idle = found[f"{name}.idle_in_transaction_session_timeout"]
        assert idle.severity is Severity.WARN
        assert idle.sql is not None
        assert found[f"{name}.statement_timeout"].rollback == f"ALTER ROLE {name} SET statement_timeout = '0s'"
        await ill.sql(idle.sql, f"ALTER DATABASE {database} SET statement_timeout = '5s'")
        assert [each for each in await ill.findings(Settings()) if each.startswith(name)] == [
            f"{name}.statement_timeout"
        ]
        await ill.sql(f"ALTER ROLE {name} RESET statement_timeout")
        assert not [each for each in await ill.findings(Settings()) if each.startswith(name)]
    finally:
        await ill.sql(f"DROP ROLE {name}")


@pytest.mark.parametrize(
    ("value", "proposed"),
    [("5s", None), ("500", None), ("500ms", None), ("5001ms", "5000ms"), ("2min", "5000ms"), ("0.1s", "500ms")],
)
@pytest.mark.parametrize("ill_dsn", ["18"], indirect=True)
async def test_g1_statements_of_an_application_end_after_half_a_second_to_five(
    ill: Ill, value: str, proposed: str | None
) -> None:
    """Roles that are named may take longer; the way back is what the role had."""
    await ill.sql("CREATE ROLE app LOGIN", f"ALTER ROLE app SET statement_timeout = '{value}'")
    try:
        found = (await ill.findings(Settings())).get("app.statement_timeout")
        assert (found and found.sql) == (proposed and f"ALTER ROLE app SET statement_timeout = '{proposed}'")
        if found is not None:
            assert (found.severity, found.tier) == (Severity.INFO, Tier.NEVER)
            assert found.rollback == f"ALTER ROLE app SET statement_timeout = '{value}'"
        assert "app.statement_timeout" not in await ill.findings(Settings(long_statement_roles="app"))
    finally:
        await ill.sql("DROP ROLE app")


async def test_g1_time_out_in_the_servers_file_counts_where_it_can_be_seen(ill: Ill) -> None:
    """A role that has one of its own sees that one: it says so instead of calling the server's none."""
    name, idle = f"app_{ill.version}_file", "idle_in_transaction_session_timeout"
    await ill.sql(f"CREATE ROLE {name} LOGIN", f"ALTER SYSTEM SET {idle} = '60s'", "SELECT pg_reload_conf()")
    try:
        await ill.until(f"SELECT current_setting('{idle}') = '1min'")
        async with connected(Address({"dsn": ill.dsn}), Meter(1.0), 5.0) as connection:
            rows = await connection.fetch(load("check_g1_timeouts"))
        assert {row["value"] for row in rows if (row["name"], row["setting"]) == (name, idle)} == {"60000"}
        assert f"{name}.{idle}" not in await ill.findings(Settings())
        await ill.sql(f"ALTER ROLE {USER} SET {idle} = '90s'")
        hidden = (await ill.findings(Settings()))[f"{name}.{idle}"]
        assert "cannot be seen by a role that has its own" in hidden.recommendation
    finally:
        await ill.sql(f"ALTER ROLE {USER} RESET {idle}", f"ALTER SYSTEM RESET {idle}", "SELECT pg_reload_conf()")
        await ill.sql(f"DROP ROLE {name}")


def test_g1_an_autovacuum_worker_gets_no_more_than_two_gigabytes() -> None:
    """What maintenance_work_mem may be for an index is too much for each of them."""
    big = TUNED | {name: value * 16 for name, value in TUNED.items() if name.endswith(("buffers", "cache_size"))}
    big |= {
        "autovacuum_work_mem": -1024.0,
        "maintenance_work_mem": 8 * GB,
        "work_mem": 600 * MB,
        "wal_buffers": 16 * MB,
    }
    found = by_name(Settings().of_memory(big, 256 * GB))
    assert list(found) == ["autovacuum_work_mem"]
    assert (found["autovacuum_work_mem"].severity, found["autovacuum_work_mem"].sql) == (
        Severity.INFO,
        "ALTER SYSTEM SET autovacuum_work_mem = '2GB'",
    )
    assert not Settings().of_memory(big | {"autovacuum_work_mem": 2 * GB}, 256 * GB)
    asked = by_name(Settings().of_memory(big | {"autovacuum_work_mem": 20 * GB}, 256 * GB))["autovacuum_work_mem"]
    assert (asked.severity, asked.evidence["proposed"]) == (Severity.WARN, "2GB")


@pytest.mark.parametrize("ill_dsn", ["15"], indirect=True)
async def test_g1_choices_and_wal_sizes_are_found_and_right_ones_silent(ill: Ill) -> None:
    """jit, wal_compression and the sizes of WAL, which are too small by default."""
    names = ("jit", "wal_compression", "max_wal_size", "min_wal_size")
    found = await ill.findings(Settings())
    assert {name: found[name].evidence["proposed"] for name in names} == {
        "jit": "off",
        "wal_compression": "lz4",
        "max_wal_size": "4GB",
        "min_wal_size": "1GB",
    }
    assert {found[name].severity for name in names} == {Severity.INFO}
    database = await ill.connection.fetchval("SELECT current_database()")
    right = {"jit": "off", "wal_compression": "lz4", "max_wal_size": "4GB", "min_wal_size": "1GB"}
    await ill.sql(f"ALTER DATABASE {database} SET jit = off", f"ALTER DATABASE {database} SET wal_compression = lz4")
    await ill.sql(*[f"ALTER SYSTEM SET {name} = '{right[name]}'" for name in names[2:]], "SELECT pg_reload_conf()")
    try:
        await ill.until("SELECT current_setting('min_wal_size') = '1GB'")
        assert not set(names) & (await ill.findings(Settings())).keys()
    finally:
        await ill.sql(*[f"ALTER SYSTEM RESET {name}" for name in names[2:]], "SELECT pg_reload_conf()")


async def test_w1_forced_checkpoints_are_found_with_a_size_that_prevents_them(ill: Ill) -> None:
    """CHECKPOINT asks for one as a full WAL does."""
    found = (await ill.after_an_hour(ForcedCheckpoints(), "CREATE TABLE t (a int)", *["CHECKPOINT"] * 4))[
        "max_wal_size"
    ]
    assert (found.severity, found.tier) == (Severity.WARN, Tier.NEVER)
    assert found.evidence["requested"] >= 4
    assert found.evidence["proposed_max_wal_bytes"] >= 2 * found.evidence["max_wal_bytes"]
    assert found.sql is not None and found.sql.startswith("ALTER SYSTEM SET max_wal_size = '")


async def test_w1_few_requests_are_silent(ill: Ill) -> None:
    """A backup asks for a checkpoint, too."""
    assert not await ill.after_an_hour(ForcedCheckpoints(min_requested=1000), "CHECKPOINT")
