"""The PostgreSQL that is deployed: our files and scripts run for real, on Debian's 15 with TLS.

Promise: what must work works with the shipped files, and what must be refused is refused.
"""

import asyncio
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import asyncpg
import pytest

from database.connect import open_pool
from database.settings import PostgresSettings, read_settings
from tests.debian_postgres import BINARIES, is_installed
from tests.faults.link import Link
from tests.postgres_node import DATABASE, Cluster, Node, until

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(not is_installed(), reason="needs Debian's postgresql-15: the embedded one has no TLS"),
]

ONE, TWO, THREE = "127.0.0.11", "127.0.0.12", "127.0.0.13"
RUNBOOK = Path(__file__).parents[2] / "docs" / "runbooks" / "promote-postgresql.md"
SLOT = "SELECT active FROM pg_replication_slots WHERE slot_name = '{}'"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A primary and a replica; tests leave both as they are."""
    made = Cluster(BINARIES, tls=True)
    try:
        made.make_certificates(ONE, TWO, THREE)
        made.node(ONE).open_primary()
        made.node(TWO).open_replica(ONE)
        made.node(THREE)
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def primary(cluster: Cluster) -> Node:
    return cluster.nodes[ONE]


@pytest.fixture(scope="module")
def replica(cluster: Cluster) -> Node:
    return cluster.nodes[TWO]


def follows(replica: Node, primary: Node, table: str) -> None:
    """Write on the primary and wait until the replica has it."""
    primary.sql(f"CREATE TABLE {table} (n int); INSERT INTO {table} VALUES (7)")
    until(lambda: replica.try_to(["psql", "-XAtd", "streamgauge", "-c", f"TABLE {table}"]).stdout == "7\n", table)


def ask(cluster: Cluster, address: str, **environment: str) -> str:
    """Ask who we are over the network; returns that or the refusal."""
    command = ["psql", "-XAt", address, "-c", "SELECT current_user"]
    done = cluster.nodes[ONE].try_to(command, env={"PGCONNECT_TIMEOUT": "5", **environment})
    return (done.stdout + done.stderr).strip()


def test_rows_reach_the_replica_over_tls_and_through_its_slot(primary: Node, replica: Node) -> None:
    follows(replica, primary, "to_replica")
    sender = "SELECT application_name, state, ssl FROM pg_stat_replication JOIN pg_stat_ssl USING (pid)"
    assert f"{TWO}|streaming|t" in primary.sql(sender).splitlines()
    assert primary.sql(SLOT.format("127_0_0_12")) == "t"
    assert primary.sql("SHOW data_checksums") == "on"


def test_the_files_say_nothing_that_postgresql_does_not_understand(primary: Node) -> None:
    assert primary.sql("SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL") == "0"
    assert primary.sql("SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL") == "0"
    # By method, and nothing that comes over the network without TLS but to be refused.
    assert primary.sql("SELECT DISTINCT auth_method FROM pg_hba_file_rules ORDER BY 1").split() == [
        "peer",
        "reject",
        "scram-sha-256",
    ]
    assert primary.sql("SELECT count(*) FROM pg_authid WHERE rolpassword NOT LIKE 'SCRAM-SHA-256$%'") == "0"


def test_a_role_comes_in_with_its_password_over_tls(cluster: Cluster) -> None:
    for role in ("owner", "aggregator", "exporter", "optimizer", "metrics", "api"):
        assert ask(cluster, cluster.address(role, ONE)) == f"streamgauge_{role}"


def test_nobody_comes_in_without_tls(cluster: Cluster) -> None:
    said = ask(cluster, cluster.address("exporter", ONE), PGSSLMODE="disable")
    assert "pg_hba.conf rejects connection" in said
    assert "no encryption" in said


def test_nobody_comes_in_with_a_wrong_password(cluster: Cluster) -> None:
    said = ask(cluster, f"postgresql://streamgauge_exporter:wrong@{ONE}:{cluster.port}/streamgauge")
    assert "password authentication failed" in said
    assert "streamgauge_exporter" in said


def test_a_certificate_of_another_authority_is_not_believed(cluster: Cluster) -> None:
    other = Cluster(BINARIES, tls=True)
    try:
        other.make_certificates(ONE)
        said = ask(cluster, cluster.address("exporter", ONE), PGSSLROOTCERT=str(other.home / "ca.crt"))
    finally:
        other.close()
    assert "certificate verify failed" in said


def test_a_server_whose_certificate_is_for_another_host_is_not_believed(cluster: Cluster) -> None:
    address = cluster.address("exporter", "other.example")
    said = ask(cluster, f"{address}?hostaddr={ONE}")
    assert 'does not match host name "other.example"' in said


def come_in(address: str, authority: Path, mode: str = "verify-full") -> str:
    """Connect as the services do, with their own client; returns who we are or the refusal."""
    dsn = f"{address}?sslmode={mode}&sslrootcert={quote(str(authority))}"
    settings = read_settings(PostgresSettings, {"POSTGRES_DSN": dsn})

    async def connect() -> str:
        async with await open_pool(settings) as pool:
            return await pool.fetchval("SELECT current_user", timeout=20)

    try:
        return asyncio.run(connect())
    except (OSError, asyncpg.PostgresError) as error:
        return str(error)


def test_the_services_client_believes_only_the_server_that_it_asked_for(cluster: Cluster) -> None:
    authority, address = cluster.home / "ca.crt", cluster.address("exporter", ONE)
    assert come_in(address, authority) == "streamgauge_exporter"
    assert "no encryption" in come_in(address, authority, "disable")
    other = Cluster(BINARIES, tls=True)
    try:
        other.make_certificates(ONE)
        assert "certificate verify failed" in come_in(address, other.home / "ca.crt")
    finally:
        other.close()
    with Link(ONE, cluster.port) as link:
        through = address.replace(f"{ONE}:{cluster.port}", link.address)
        assert "IP address mismatch" in come_in(through, authority), "its certificate does not name this address"


def test_the_services_client_gives_no_password_to_a_server_without_tls(cluster: Cluster, dsn: str) -> None:
    with Link.to_unix(Path(parse_qs(urlsplit(dsn).query)["host"][0]) / ".s.PGSQL.5432") as link:
        address = f"postgresql://streamgauge:secret@{link.address}{urlsplit(dsn).path}"
        assert "rejected SSL upgrade" in come_in(address, cluster.home / "ca.crt")
        assert come_in(address, cluster.home / "ca.crt", "disable") == "streamgauge"


@pytest.mark.parametrize(
    ("user", "database"),
    [("replicator", "streamgauge"), ("streamgauge_exporter", "postgres"), ("postgres", "streamgauge")],
)
def test_a_role_comes_only_where_its_line_says(cluster: Cluster, user: str, database: str) -> None:
    said = ask(cluster, f"postgresql://{user}:x@{ONE}:{cluster.port}/{database}")
    assert "pg_hba.conf rejects connection" in said or "no pg_hba.conf entry" in said


def test_only_the_replication_role_may_copy(cluster: Cluster) -> None:
    address = cluster.address("aggregator", ONE)
    said = ask(cluster, f"{address}?replication=true")
    assert "pg_hba.conf rejects replication connection" in said


def test_no_password_is_in_the_log(cluster: Cluster, primary: Node) -> None:
    primary.sql("CREATE TABLE logged ()")
    assert ask(cluster, cluster.address("exporter", ONE)) == "streamgauge_exporter"
    until(lambda: "streamgauge_exporter" in primary.log.read_text(), "the connection is logged")
    said = primary.log.read_text()
    assert "CREATE TABLE logged" in said
    for password in cluster.passwords.values():
        # Without its end, which a statement would hold in quotes.
        assert password[:16] not in said


def test_other_passwords_hold_when_roles_are_made_again(cluster: Cluster, primary: Node, replica: Node) -> None:
    old = cluster.address("exporter", ONE)
    cluster.renew_passwords()
    primary.ask([str(DATABASE / "init-primary.sh")])
    assert "password authentication failed" in ask(cluster, old)
    assert ask(cluster, cluster.address("exporter", ONE)) == "streamgauge_exporter"
    replica.stop()
    replica.open_replica(ONE)
    follows(replica, primary, "with_another_password")


def test_a_copy_that_was_cut_off_is_begun_again(cluster: Cluster, primary: Node) -> None:
    node = cluster.nodes[THREE]
    partial = node.data.with_name("docker.partial")
    primary.sql("CREATE TABLE big AS SELECT i, repeat(md5(i::text), 30) AS t FROM generate_series(1, 60000) AS i")
    begun = node.begin(node.entrypoint(), primary=ONE)
    until(lambda: (partial / "base").exists() or begun.poll() is not None, "the copy begins")
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait(60)
    assert not node.data.exists(), "a half of a copy must not look like data"
    (partial / "left-over").touch()

    node.open_replica(ONE)
    follows(node, primary, "after_the_cut")
    assert not partial.exists()
    assert not (node.data / "left-over").exists()
    assert primary.sql(SLOT.format("127_0_0_13")) == "t"
    node.stop()
    shutil.rmtree(node.data)
    until(lambda: primary.sql(SLOT.format("127_0_0_13")) == "f", "the slot is free")
    primary.sql("SELECT pg_drop_replication_slot('127_0_0_13')")


def test_data_that_is_there_is_left_alone(cluster: Cluster, replica: Node, primary: Node) -> None:
    before = (replica.data / "PG_VERSION").stat().st_ino
    replica.stop()
    replica.open_replica(ONE)
    assert (replica.data / "PG_VERSION").stat().st_ino == before
    follows(replica, primary, "after_a_restart")


def test_files_that_are_no_database_are_not_removed(cluster: Cluster) -> None:
    node = cluster.nodes[THREE]
    cluster.make(node.data)
    (node.data / "mine").touch()
    done = node.try_to(node.entrypoint(), primary=ONE)
    assert done.returncode == 1
    assert "holds files but no database" in done.stderr
    assert (node.data / "mine").exists()
    shutil.rmtree(node.data)
    cluster.nodes[ONE].sql("SELECT pg_drop_replication_slot('127_0_0_13')")


def test_a_secret_that_is_missing_is_named(cluster: Cluster) -> None:
    node, missing = cluster.nodes[THREE], {"POSTGRES_REPLICATION_PASSWORD_FILE": "/run/secrets/missing"}
    done = node.try_to(node.entrypoint(), primary=ONE, env=missing)
    assert (done.returncode, done.stderr) == (1, "init-replication: cannot read the secret /run/secrets/missing\n")


def blocks(text: str, where: str) -> list[str]:
    """Return the commands that a runbook gives for one place."""
    found = re.findall(r"```sh\n# on ([^\n]*)\n(.*?)```", text, re.DOTALL)
    return [commands for place, commands in found if where in re.split(", ", place)]


def test_a_replica_is_promoted_as_the_runbook_says() -> None:
    text = RUNBOOK.read_text()
    cluster = Cluster(BINARIES, tls=True)
    try:
        cluster.make_certificates(ONE, TWO, THREE)
        old, new, other = (cluster.node(host) for host in (ONE, TWO, THREE))
        old.open_primary()
        new.open_replica(ONE)
        other.open_replica(ONE)
        follows(new, old, "before")
        old.stop(signal.SIGQUIT)

        choose, promote, look = blocks(text, "NODE-2")
        assert blocks(text, "NODE-3") == [choose]
        assert new.ask(["sh", "-ec", choose]).count("/") == 2
        assert new.ask(["sh", "-ec", promote]).split() == ["t", "t", "00000002"]
        new.sql("INSERT INTO before VALUES (8)")

        for node in (new, other):
            node.stop()
            node.open_replica(TWO)
        until(lambda: f"{THREE}|streaming" in new.ask(["sh", "-ec", look]), "the other replica follows the new primary")
        assert "127_0_0_13|t|reserved" in new.ask(["sh", "-ec", look])
        follows(other, new, "after")
        assert other.sql("SELECT count(*) FROM before") == "2"

        refused = old.try_to(old.entrypoint(), primary=TWO)
        assert refused.returncode == 1
        assert "would make two primaries" in refused.stderr
        shutil.rmtree(old.data)
        old.open_replica(TWO)
        follows(old, new, "again")
    finally:
        cluster.close()
