"""G1 and W1: settings against the host's memory, and checkpoints that WAL forces."""

import pytest

from optimizers.check import Finding, Severity, Tier
from optimizers.checks.g1_settings import UNKNOWN, Settings
from optimizers.checks.w1_forced_checkpoints import ForcedCheckpoints
from optimizers.wording import GB, MB
from tests.integration.optimizers.ill import Ill

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
    """Set for the role, or for everybody in this database; an explicit 0 is none."""
    name = f"app_{ill.version}_timeouts"
    database = await ill.connection.fetchval("SELECT current_database()")
    await ill.sql(f"CREATE ROLE {name} LOGIN", f"ALTER ROLE {name} SET statement_timeout = '0s'")
    try:
        found = await ill.findings(Settings())
        assert found[f"{name}.statement_timeout"].severity is Severity.INFO
        idle = found[f"{name}.idle_in_transaction_session_timeout"]
        assert idle.severity is Severity.WARN
        assert idle.sql is not None
        await ill.sql(idle.sql, f"ALTER DATABASE {database} SET statement_timeout = '5s'")
        assert not [each for each in await ill.findings(Settings()) if each.startswith(name)]
    finally:
        await ill.sql(f"DROP ROLE {name}")


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
