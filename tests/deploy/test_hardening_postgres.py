"""The live rules of `scripts/validate-hardening` on PostgreSQL from our files: each fault is told, and mended again."""

import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from streamgauge.hardening.rule import Status
from tests.debian_postgres import BINARIES, is_installed
from tests.judging import comes_out, is_told, postgres
from tests.postgres_node import Node, primary

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(not is_installed(), reason="needs Debian's postgresql-15: the embedded one has no TLS"),
]

HOST: Final = "127.0.0.31"


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with primary(BINARIES, HOST) as made:
        yield made


SETTINGS: Final = [
    ("P1", "password_encryption", "'md5'", "password_encryption = md5"),
    ("P3", "ssl_min_protocol_version", "'TLSv1'", "ssl_min_protocol_version = TLSv1"),
    ("P3", "ssl", "off", "ssl = off"),
    ("P7", "log_connections", "off", "log_connections is off"),
    ("P7", "log_lock_waits", "off", "log_lock_waits is off"),
    ("P7", "log_line_prefix", "'%m [%p] '", "log_line_prefix lacks %u"),
    ("P7", "log_min_duration_statement", "-1", "slow statements are not logged"),
    ("P9", "fsync", "off", "fsync is off"),
    ("P9", "full_page_writes", "off", "full_page_writes is off"),
    ("P11", "max_slot_wal_keep_size", "-1", "max_slot_wal_keep_size is -1"),
]


@pytest.mark.parametrize(("rule", "name", "value", "evidence"), SETTINGS)
def test_a_careless_setting_of_postgresql_is_told(rule: str, name: str, value: str, evidence: str, node: Node) -> None:
    for change, status in ((f"SET {name} = {value}", Status.FAIL), (f"RESET {name}", Status.PASS)):
        node.sql(f"ALTER SYSTEM {change}")
        node.sql("SELECT pg_reload_conf()")
        found = comes_out(rule, postgres(node), status)
        assert status is Status.PASS or (evidence in found.evidence and found.fix)


EXPORTER: Final = "ALTER ROLE streamgauge_exporter"
AGGREGATOR: Final = "ALTER ROLE streamgauge_aggregator"
OLD: Final = f"CREATE ROLE old PASSWORD 'md5{'0' * 32}'"
RASH: Final = "CREATE FUNCTION rash() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'"
WILD: Final = "CREATE LANGUAGE wild HANDLER plpgsql_call_handler"
CREATE: Final = "CREATE ON SCHEMA public"
STATEMENTS: Final = [
    ("P1", OLD, "DROP ROLE old", "old has a password that is not SCRAM"),
    ("P4", f"{EXPORTER} SUPERUSER", f"{EXPORTER} NOSUPERUSER", "streamgauge_exporter is a superuser"),
    ("P4", f"{AGGREGATOR} CREATEROLE", f"{AGGREGATOR} NOCREATEROLE", "streamgauge_aggregator may create roles"),
    ("P4", f"{AGGREGATOR} CREATEDB", f"{AGGREGATOR} NOCREATEDB", "streamgauge_aggregator may create databases"),
    ("P4", f"{EXPORTER} BYPASSRLS", f"{EXPORTER} NOBYPASSRLS", "streamgauge_exporter bypasses row security"),
    ("P5", f"GRANT {CREATE} TO PUBLIC", f"REVOKE {CREATE} FROM PUBLIC", "PUBLIC may create in schema public"),
    ("P6", RASH, "DROP FUNCTION rash()", "rash() is SECURITY DEFINER without a search_path"),
    (
        "P8",
        f"{EXPORTER} RESET statement_timeout",
        f"{EXPORTER} SET statement_timeout = '30s'",
        "streamgauge_exporter has no statement_timeout",
    ),
    ("P12", "CREATE EXTENSION dblink", "DROP EXTENSION dblink", "extension dblink is not on the list"),
    ("P12", WILD, "DROP LANGUAGE wild", "language wild is untrusted"),
]


@pytest.mark.parametrize(("rule", "breaks", "mends", "evidence"), STATEMENTS)
def test_too_wide_a_right_in_postgresql_is_told(rule: str, breaks: str, mends: str, evidence: str, node: Node) -> None:
    node.sql(breaks)
    is_told(rule, postgres(node), evidence)
    node.sql(mends)
    comes_out(rule, postgres(node), Status.PASS)


LINES: Final = {
    "local all somebody trust": "lets in by trust",
    "hostssl all somebody samenet password": "lets in by password",
    "host streamgauge somebody samenet scram-sha-256": "allows connections without TLS",
    "hostnossl streamgauge somebody samenet scram-sha-256": "allows connections without TLS",
    "hostssl replication somebody 0.0.0.0/0 scram-sha-256": "lets replicas in from anywhere",
    "hostssl streamgauge": "end-of-line before",
}


@contextmanager
def with_first_line(node: Node, line: str) -> Generator[None]:
    """Put a line before all others of pg_hba.conf."""
    file = node.home / "pg_hba.conf"
    shipped = file.read_text()
    file.write_text(f"{line}\n{shipped}")
    node.sql("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        file.write_text(shipped)
        node.sql("SELECT pg_reload_conf()")


@pytest.mark.parametrize("line", LINES)
def test_a_line_that_lets_in_too_much_is_told(line: str, node: Node) -> None:
    with with_first_line(node, line):
        is_told("P2", postgres(node), f"line 1: {LINES[line]}")
    comes_out("P2", postgres(node), Status.PASS)


def test_who_is_connected_without_tls_is_told(node: Node) -> None:
    line = "hostnossl streamgauge streamgauge_exporter samenet scram-sha-256"
    with with_first_line(node, line):
        comes_out("P2", postgres(node), Status.FAIL)
        address = node.cluster.address("exporter", HOST)
        command = ["psql", address, "-c", "SELECT pg_sleep(60)"]
        client = subprocess.Popen(command, env={"PGSSLMODE": "disable", "PATH": "/usr/bin:/bin"})
        try:
            is_told("P3", postgres(node), "streamgauge_exporter is connected from 127.0.0.1 without TLS")
        finally:
            client.kill()
            client.wait(10)
    node.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'streamgauge_exporter'")
    comes_out("P3", postgres(node), Status.PASS)


def test_a_data_directory_that_a_group_may_read_is_told(node: Node) -> None:
    for mode, status in ((0o750, Status.FAIL), (0o700, Status.PASS)):
        node.stop()
        node.data.chmod(mode)
        node.start(node.command())
        assert comes_out("P10", postgres(node), status).evidence.endswith(("mode 0750", "is private"))


def test_pages_without_checksums_are_told(node: Node) -> None:
    for switch, status in (("--disable", Status.FAIL), ("--enable", Status.PASS)):
        node.stop()
        node.ask(["pg_checksums", switch, "-D", str(node.data)])
        node.start(node.command())
        assert "checksums" in comes_out("P9", postgres(node), status).evidence
