"""Least privilege: each service does all of its work as its own role, and can do nothing else.

On PostgreSQL 15 with TLS and on 18, which cannot do TLS here; roles, grants and files are those that are shipped.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from database import thresholds
from optimizers import actions
from optimizers.check import Remedy
from optimizers.settings import OptimizerSettings
from streamgauge.embedded import postgres_bin
from streamgauge.processes import wait_until
from streamgauge.stack import get
from tests.debian_postgres import BINARIES, is_installed
from tests.integration.test_backup import commands, run
from tests.pipeline import Pipeline
from tests.postgres_node import USER, Cluster

pytestmark = pytest.mark.timeout(240)

ONE, TWO = "127.0.0.21", "127.0.0.22"
DEADLINE_S = 60.0
WITH_15 = pytest.mark.skipif(not is_installed(), reason="needs Debian's postgresql-15")
TOKEN = "a-token"
FAST = {
    "STREAMGAUGE_UPKEEP_INTERVAL_S": "1",
    "STREAMGAUGE_AUDIT_INTERVAL_S": "1",
    "STREAMGAUGE_RUN_OPTIMIZATION_INTERVAL_S": "2",
    "STREAMGAUGE_COLLECT_METRICS_INTERVAL_S": "2",
    "STREAMGAUGE_RECALIBRATE_THRESHOLDS_INTERVAL_S": "2",
    "STREAMGAUGE_SCHEDULE_JITTER_S": "0.1",
    "STREAMGAUGE_OPTIMIZER_SHORTEST_INTERVAL_S": "1",
    "STREAMGAUGE_EXPORTER_TOKEN": TOKEN,
}

ONLY_THE_OWNER = 'PassedOver: skipping "series" --- only table or database owner can vacuum it'
REFUSED = {
    "owner": {
        "CREATE ROLE mine": "permission denied to create role",
        "SELECT rolpassword FROM pg_authid": "permission denied",
        "COPY (SELECT 1) TO PROGRAM 'true'": "pg_execute_server_program",
        "CREATE TABLE public.mine ()": "permission denied for schema public",
        "ALTER SYSTEM SET fsync = off": "permission denied",
    },
    "aggregator": {
        "DROP TABLE streamgauge.totals": "must be owner",
        "DROP TABLE streamgauge.rollup_1h": "must be owner",
        "TRUNCATE streamgauge.totals": "permission denied",
        "ALTER TABLE streamgauge.totals DISABLE TRIGGER ALL": "must be owner",
        "CREATE TABLE streamgauge.mine ()": "permission denied for schema streamgauge",
        "DROP SCHEMA streamgauge CASCADE": "must be owner",
        "SELECT streamgauge.drop_partition('totals')": "totals is no partition",
        "SELECT streamgauge.drop_partition('rollup_1h')": "rollup_1h is no partition",
        "SELECT streamgauge.make_partition('totals', 'mine', 0, 60)": "totals has no partitions",
        "SELECT rolpassword FROM pg_authid": "permission denied",
        "SELECT pg_read_file('/etc/passwd')": "permission denied",
        "COPY (SELECT 1) TO PROGRAM 'true'": "pg_execute_server_program",
        "CREATE ROLE mine": "permission denied to create role",
        "SET ROLE streamgauge_owner": "permission denied to set role",
    },
    "exporter": {
        "INSERT INTO streamgauge.totals SELECT * FROM streamgauge.totals": "permission denied for table totals",
        "DELETE FROM streamgauge.series": "permission denied for table series",
        "UPDATE streamgauge.runs SET job = 'mine'": "permission denied for table runs",
        "UPDATE streamgauge.thresholds SET metric = 'mine'": "permission denied for table thresholds",
        "SELECT streamgauge.drop_partition('parts_0')": "permission denied for function",
        "UPDATE streamgauge.producers SET accepted = 0": "permission denied for table producers",
        "CREATE SCHEMA mine": "permission denied for database",
        "CREATE TABLE streamgauge.mine ()": "permission denied for schema streamgauge",
        "CREATE TEMPORARY TABLE mine ()": "permission denied to create temporary tables",
        "SELECT rolpassword FROM pg_authid": "permission denied",
        "SELECT pg_read_file('/etc/passwd')": "permission denied",
    },
    "optimizer": {
        "SELECT * FROM streamgauge.totals": "permission denied for table totals",
        "SELECT * FROM streamgauge.quarantine": "permission denied for table quarantine",
        "BEGIN READ WRITE; DELETE FROM streamgauge.series": "permission denied for table series",
        "BEGIN READ WRITE; UPDATE streamgauge.heartbeats SET at = now()": "permission denied for table heartbeats",
        "CREATE SCHEMA mine": "cannot execute CREATE SCHEMA in a read-only transaction",
        "SELECT rolpassword FROM pg_authid": "permission denied",
    },
    "api": {
        "SELECT * FROM streamgauge.totals": "permission denied for schema streamgauge",
        "CREATE SCHEMA mine": "permission denied for database",
        "CREATE TABLE public.mine ()": "permission denied for schema public",
        "SELECT rolpassword FROM pg_authid": "permission denied",
    },
    "metrics": {
        "SELECT * FROM streamgauge.totals": "permission denied for schema streamgauge",
        "SELECT rolpassword FROM pg_authid": "permission denied",
    },
}


@pytest.fixture(scope="module", params=[pytest.param("15", marks=WITH_15), "18"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A primary and a replica, migrated by the owner, who was given the replica's address first."""
    is_15 = request.param == "15"
    made = Cluster(BINARIES if is_15 else postgres_bin(), tls=is_15)
    try:
        if made.tls:
            made.make_certificates(ONE, TWO)
        made.node(ONE).open_primary()
        made.node(TWO).open_replica(ONE)
        for _ in range(2):
            assert streamgauge(made, "owner", "migrate") == 0
        yield made
    finally:
        made.close()


def environment(cluster: Cluster, role: str) -> dict[str, str]:
    """Return how a service is told where PostgreSQL is."""
    return cluster.client() | {
        "POSTGRES_HOST": f"{TWO},{ONE}",
        "POSTGRES_PORT": str(cluster.port),
        "POSTGRES_USER": f"streamgauge_{role}",
        "POSTGRES_PASSWORD_FILE": str(cluster.secrets / f"postgres_{role}_password"),
    }


def streamgauge(cluster: Cluster, role: str, *arguments: str, **more: str) -> int:
    """Run the command line as a role."""
    env = {"PATH": "/usr/bin:/bin", "STREAMGAUGE_HOME": str(cluster.home), **environment(cluster, role), **more}
    done = subprocess.run(
        [sys.executable, "-m", "streamgauge", *arguments], env=env, capture_output=True, text=True, timeout=DEADLINE_S
    )
    sys.stdout.write(done.stdout + done.stderr)
    return done.returncode


def ask(cluster: Cluster, role: str, sql: str) -> str:
    """Run a statement as a role over the network."""
    done = cluster.nodes[ONE].try_to(["psql", "-XAt", cluster.address(role, ONE), "-c", sql])
    return (done.stdout + done.stderr).strip()


@pytest.mark.parametrize("role", REFUSED)
def test_a_role_is_refused_what_is_not_its_work(cluster: Cluster, role: str) -> None:
    said = {sql: ask(cluster, role, sql) for sql in REFUSED[role]}
    assert {sql: text for sql, text in said.items() if REFUSED[role][sql] not in text} == {}


def test_no_service_has_more_than_its_own_rights(cluster: Cluster) -> None:
    sql = """SELECT count(*) FROM pg_roles WHERE rolname LIKE 'streamgauge_%' AND (rolsuper OR rolcreatedb OR
             rolcreaterole OR rolreplication OR rolbypassrls OR rolconnlimit < 1 OR NOT coalesce(array_to_string(
             rolconfig, ' ') LIKE '%statement_timeout=%idle_in_transaction_session_timeout=%', false))"""
    assert cluster.nodes[ONE].sql(sql) == "0"
    assert cluster.nodes[ONE].sql("SELECT count(*) FROM pg_roles WHERE rolsuper AND rolcanlogin") == "1"
    loose = "SELECT proname FROM pg_proc WHERE prosecdef AND coalesce(proconfig::text, '') NOT LIKE '%search_path=%'"
    assert cluster.nodes[ONE].sql(loose) == ""


def test_statistics_are_seen_where_rows_are_not(cluster: Cluster) -> None:
    for role in ("aggregator", "optimizer", "metrics"):
        seen = ask(cluster, role, "SELECT count(*) FROM pg_stat_activity WHERE query = '<insufficient privilege>'")
        assert (role, seen) == (role, "0")
        assert "t" in ask(cluster, role, "SELECT count(*) > 0 FROM pg_stat_statements WHERE query LIKE '%'")


def test_the_automatic_tier_needs_no_ownership_from_17_on(cluster: Cluster) -> None:
    """Before 17 VACUUM and ANALYZE are the owner's alone: passed over with a warning, which is no success."""
    finding = {"target": "monitoring", "check_id": "V1", "fingerprint": "f", "tier": "automatic", "rollback": None}
    finding |= {"remedy": Remedy.SQL, "sql": "VACUUM (ANALYZE) streamgauge.series", "object": "streamgauge.series"}

    async def change() -> str | None:
        async with connected(cluster, "aggregator") as connection:
            return await actions.change(connection, connection, OptimizerSettings(), finding)

    error = asyncio.run(change())
    assert error == (ONLY_THE_OWNER if cluster.tls else None)


@asynccontextmanager
async def connected(cluster: Cluster, role: str) -> AsyncGenerator["asyncpg.Connection[asyncpg.Record]"]:
    """Connect as a role of the primary."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.client().items():
            patch.setenv(name, value)
        connection = await asyncpg.connect(
            cluster.address(role, ONE), server_settings={"search_path": "streamgauge"}, timeout=10
        )
    try:
        yield connection
    finally:
        await connection.close(timeout=10)


def test_limits_are_pinned_and_given_back_by_the_exporters_role(cluster: Cluster) -> None:
    # Other tests recalibrate meanwhile: a metric that nobody calibrates.
    row = "INSERT INTO streamgauge.thresholds (metric, route, side, source) VALUES ('mine', '', 'high', '{}')"
    number = int(ask(cluster, "aggregator", f"{row} RETURNING threshold_id").splitlines()[0])

    async def pin() -> int:
        async with connected(cluster, "exporter") as connection:
            await thresholds.pin(connection, number, 1.0, 2.0, "test")
            await thresholds.pin(connection, number, 2.0, 3.0, "test")
            return await thresholds.revert(connection, number, "test")

    assert asyncio.run(pin()) == thresholds.BUCKETS


FIVE_MINUTES_LATER = """
SET search_path = streamgauge;
DO $$
DECLARE
    minutes bigint[] := ARRAY(SELECT DISTINCT extract(epoch FROM date_trunc('minute', arrived))::bigint - 300
                                FROM parts WHERE arrived > now() - interval '4 minutes');
    at bigint;
BEGIN
    FOREACH at IN ARRAY minutes LOOP
        PERFORM make_partition('parts', 'parts_' || lpad(at::text, 10, '0'), at, at + 60);
    END LOOP;
END $$;
UPDATE parts SET arrived = arrived - interval '5 minutes', window_start = window_start - interval '6 minutes'
 WHERE arrived > now() - interval '4 minutes';
SELECT EXISTS (SELECT FROM rollup_10s) AND NOT EXISTS (SELECT FROM parts);
"""
"""Instead of waiting until the minute in which the load arrived is over; its windows end before that minute does."""


def failures(cluster: Cluster) -> str:
    """Return what any service was refused."""
    runs = "SELECT job, detail FROM streamgauge.runs WHERE detail ~* 'privilege|permission|denied|owner|skipping'"
    kinds = "('permission', 'unreachable')"
    checks = f"SELECT check_id, error_kind, detail FROM streamgauge.check_results WHERE error_kind IN {kinds}"
    return cluster.nodes[ONE].sql(f"{runs}; {checks}")


def test_the_pipeline_does_all_of_its_work_as_its_roles(cluster: Cluster, tmp_path: Path, redis_url: str) -> None:
    primary = cluster.nodes[ONE]
    with Pipeline(tmp_path, "", redis_url, **FAST, **cluster.client()) as pipeline:
        del pipeline.env["POSTGRES_DSN"]
        pipeline.env |= environment(cluster, "aggregator")
        pipeline.env["STREAMGAUGE_OPTIMIZER_REPLICAS"] = f"monitoring={cluster.address('optimizer', TWO)}"
        pipeline.aggregator()
        pipeline.env |= environment(cluster, "exporter")
        pipeline.env["STREAMGAUGE_POSTGRES_REPLICAS"] = cluster.address("exporter", TWO)
        pipeline.exporter()

        load = ["loadtest", "--events", "3000", "--series", "20", "--producers", "1", "--deadline", "60", "--json"]
        for run in (["--real"], ["--run-id", "trial"]):
            assert streamgauge(cluster, "aggregator", *load, *run, REDIS_URL=redis_url) == 0

        bearer = {"Authorization": f"Bearer {TOKEN}"}
        status, body = get(pipeline.port, "/openapi.json", bearer)
        assert status == 200
        pages = [path for path, methods in json.loads(body)["paths"].items() if "get" in methods and "{" not in path]
        assert len(pages) > 10
        answers = {path: get(pipeline.port, path, bearer) for path in ["/metrics", *pages]}
        assert {path: answer for path, answer in answers.items() if answer[0] >= 500} == {}

        ran = "SELECT count(DISTINCT job) FROM streamgauge.runs WHERE outcome IN ('done', 'insufficient_data')"
        assert wait_until(lambda: int(primary.sql(ran)) >= 5, DEADLINE_S), primary.sql("TABLE streamgauge.runs")
        states = "SELECT name FROM streamgauge.component_states WHERE status = 'ok'"
        assert {"database", f"replica {TWO}:{cluster.port}"} <= set(primary.sql(states).splitlines())
        # Asked again and again: the end of a minute may carry rows on to the next one just before they are moved.
        # What moves them takes tables in another order than compaction does: a deadlock is asked again, too.
        ask = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", USER, "-d", "streamgauge", "-c", FIVE_MINUTES_LATER]

        def is_compacted() -> bool:
            asked = primary.try_to(ask)
            assert asked.returncode == 0 or "deadlock detected" in asked.stderr, asked.stderr
            return asked.stdout.endswith("t\n")

        compacted = wait_until(is_compacted, DEADLINE_S)
        assert compacted, pipeline.log("aggregator").read_text()

        assert streamgauge(cluster, "aggregator", "audit", REDIS_URL=redis_url) == 0
        assert streamgauge(cluster, "owner", "migrate") == 0
        assert streamgauge(cluster, "aggregator", "purge", "--run-id", "trial", REDIS_URL=redis_url) == 0
        assert failures(cluster) == ""
        lag = "SELECT status, detail FROM streamgauge.check_results WHERE check_id = 'R1'"
        assert primary.sql(lag) == "ok|", "the replica's heartbeat is read by the role that is for it"
        for service in ("aggregator", "exporter"):
            assert "InsufficientPrivilege" not in pipeline.log(service).read_text()
            assert "permission denied" not in pipeline.log(service).read_text()


def test_a_backup_brings_back_what_each_role_may_do(cluster: Cluster, tmp_path: Path, redis_url: str) -> None:
    """Made and restored by the owner of the schema, with the runbook's own commands."""
    tables = "SELECT relname, relacl FROM pg_class WHERE relnamespace = 'streamgauge'::regnamespace ORDER BY 1"
    rights = f"{tables}; SELECT defaclrole::regrole, defaclobjtype, defaclacl FROM pg_default_acl ORDER BY 1, 2"
    before = cluster.nodes[ONE].sql(rights)
    assert "streamgauge_exporter=r/streamgauge_owner" in before
    make, put, _ = commands()
    bin_folder = BINARIES if cluster.tls else postgres_bin()
    for block in (make, put):
        run(block, cluster.address("owner", ONE), tmp_path, tools=bin_folder, **cluster.client())
    assert cluster.nodes[ONE].sql(rights) == before
    assert streamgauge(cluster, "aggregator", "audit", REDIS_URL=redis_url) == 0
    assert ask(cluster, "exporter", "SELECT count(*) >= 0 FROM streamgauge.totals") == "t"
    said = {sql: ask(cluster, role, sql) for role in REFUSED for sql in REFUSED[role] if "streamgauge." in sql}
    assert {sql for sql, text in said.items() if "ERROR" not in text} == set()
