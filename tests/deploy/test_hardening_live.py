"""The live rules of `scripts/validate-hardening`, on deployed servers: well made they pass, broken they are told.

PostgreSQL, Redis, Sentinel and nginx run from our files, Prometheus with our flags; Grafana is not in Debian and a stub
answers for it. Each fault is one state that a person could bring about, and is mended again before the next.
"""

import shutil
import signal
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar, Final

import pytest

from streamgauge.hardening.__main__ import RULES
from streamgauge.hardening.live import Live
from streamgauge.hardening.rule import Status
from streamgauge.processes import free_port, wait_until
from streamgauge.stack import answers
from tests.debian_postgres import BINARIES, is_installed
from tests.edge import Edge
from tests.judging import comes_out, is_told, judged
from tests.pipeline import Pipeline
from tests.postgres_node import USER, Cluster, Node
from tests.redis_deployed import FILES, SENTINELS, STREAMS, Deployment
from tests.watching import binary

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(not is_installed(), reason="needs Debian's postgresql-15: the embedded one has no TLS"),
]

HOST: Final = "127.0.0.31"
LONE: Final = "127.0.0.32"


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    cluster = Cluster(BINARIES, tls=True)
    try:
        cluster.make_certificates(HOST)
        made = cluster.node(HOST)
        made.open_primary()
        yield made
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("redis")) as made:
        made.open()
        yield made


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    made = Edge(tmp_path_factory.mktemp("edge"), f"redis://127.0.0.1:{free_port()}", replicas=1)
    with made.processes:
        made.open()
        yield made


class Grafana(BaseHTTPRequestHandler):
    """Answers as Grafana does to who is nobody, and to who has the usual password."""

    is_open: ClassVar = False
    has_usual_password: ClassVar = False

    def do_GET(self) -> None:
        """Let in or refuse."""
        comes_in = self.has_usual_password if "Authorization" in self.headers else self.is_open
        self.send_response(200 if comes_in else 401)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name is the base class's)
        """Say nothing."""


@pytest.fixture(scope="module")
def grafana() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Grafana)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    with Pipeline(tmp_path, "postgresql://nobody@127.0.0.1:1/none", "redis://127.0.0.1:1") as made:
        yield made


def start_prometheus(pipeline: Pipeline, *flags: str) -> str:
    """Start it with no targets: the flags are what is looked at."""
    port, config = free_port(), pipeline.folder / "prometheus.yml"
    config.write_text("global: {}\n")
    paths = (f"--config.file={config}", f"--storage.tsdb.path={pipeline.folder / 'tsdb'}")
    pipeline.start("prometheus", binary("prometheus"), *paths, f"--web.listen-address=127.0.0.1:{port}", *flags)
    assert wait_until(answers(port, "/-/ready"), 30), pipeline.log("prometheus").read_text()
    return f"http://127.0.0.1:{port}"


def postgres(node: Node) -> Live:
    return Live(postgres=f"postgresql://{USER}@/streamgauge?host={node.run}&port={node.cluster.port}")


def redis(deployment: Deployment, sentinel: str = SENTINELS[0]) -> Live:
    password = deployment.passwords["admin"]
    return Live(
        redis=f"redis://admin:{password}@{STREAMS[0]}:{deployment.port}",
        sentinel=f"redis://admin:{password}@{sentinel}:{deployment.sentinel_port}",
    )


def web(edge: Edge) -> Live:
    return Live(
        edge=f"https://localhost:{edge.tls}",
        edge_http=f"http://localhost:{edge.plain}",
        ca_file=str(edge.folder / "ssl/ca.crt"),
    )


def test_well_made_servers_hold_every_live_rule_and_nothing_is_skipped(
    node: Node, deployment: Deployment, edge: Edge, grafana: str, pipeline: Pipeline
) -> None:
    streams, front = redis(deployment), web(edge)
    live = replace(
        postgres(node),
        redis=streams.redis,
        sentinel=streams.sentinel,
        edge=front.edge,
        edge_http=front.edge_http,
        ca_file=front.ca_file,
        grafana=grafana,
        prometheus=start_prometheus(pipeline),
    )
    found = [judged(rule, live) for rule in RULES if rule.live is not None]
    assert [one for one in found if one.status is not Status.PASS] == []
    assert len(found) == 27


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


REDIS_FAULTS: Final = [
    ("R1", "ACL SETUSER default on nopass", "the default user is on"),
    ("R1", "ACL SETUSER health nopass", "health needs no password"),
    ("R1", "ACL SETUSER producer ~*", "producer may use every key"),
    ("R1", "ACL SETUSER exporter +@all", "exporter may use every command"),
    ("R1", "ACL DELUSER producer", "there is no user producer"),
    ("R2", "ACL SETUSER producer +flushall", "producer may FLUSHALL"),
    ("R2", "ACL SETUSER exporter +config", "exporter may CONFIG"),
    ("R2", "ACL SETUSER exporter ~* +keys", "exporter may KEYS"),
    ("R3", "ACL SETUSER default on nopass +ping", "--redis: a stranger may PING"),
    ("R6", "CONFIG SET maxmemory-policy allkeys-lru", "maxmemory-policy allkeys-lru"),
    ("R6", "CONFIG SET maxmemory 0", "maxmemory is not set"),
    ("R6", "CONFIG SET appendonly no", "appendonly is not yes"),
]
SENTINEL_FAULTS: Final = [
    ("R3", "ACL SETUSER default on nopass +ping", "--sentinel: a stranger may PING"),
    ("R7", "SENTINEL SET streams quorum 1", "quorum 1 is no majority"),
    ("R7", "SENTINEL SET streams quorum 9", "NOQUORUM"),
    ("R7", "SENTINEL REMOVE streams", "no master is monitored"),
]
AS_SHIPPED: Final = ("ACL LOAD", "CONFIG SET maxmemory-policy noeviction maxmemory 1gb appendonly yes")


@pytest.mark.parametrize(("rule", "command", "evidence"), REDIS_FAULTS)
def test_what_is_wrong_with_redis_is_told(rule: str, command: str, evidence: str, deployment: Deployment) -> None:
    with deployment.client("admin", STREAMS[0]) as client:
        client.execute_command(*command.split())
        is_told(rule, redis(deployment), evidence)
        for one in AS_SHIPPED:
            client.execute_command(*one.split())
    comes_out(rule, redis(deployment), Status.PASS)


def test_what_is_wrong_with_a_sentinel_is_told(deployment: Deployment) -> None:
    # This one is of no use afterwards; the others know nothing of it.
    spoilt = SENTINELS[2]
    for rule, command, evidence in SENTINEL_FAULTS:
        with deployment.sentinel("admin", spoilt) as client:
            client.execute_command(*command.split())
            is_told(rule, redis(deployment, spoilt), evidence)
            client.execute_command("ACL LOAD")


def test_redis_with_debugging_on_is_told(deployment: Deployment, tmp_path: Path) -> None:
    for name in ("redis.conf", "users.acl"):
        shutil.copy(FILES / name, tmp_path)
    conf = tmp_path / "redis.conf"
    conf.write_text(conf.read_text().replace("enable-debug-command no", "enable-debug-command yes"))
    deployment.start(LONE, "streams", REDIS_CONFIG=str(tmp_path), REDIS_SENTINELS="", REDIS_FIRST_MASTER=LONE)
    try:
        live = replace(
            redis(deployment), redis=f"redis://admin:{deployment.passwords['admin']}@{LONE}:{deployment.port}"
        )
        is_told("R4", live, "enable-debug-command yes")
    finally:
        deployment.kill(LONE)


PROXY: Final = "        location / {\n            proxy_pass"
LIMIT: Final = "        limit_req zone=requests burst"
UPGRADE: Final = "            proxy_set_header Upgrade $http_upgrade;"
WITH_CREDENTIALS: Final = (
    "add_header Access-Control-Allow-Origin $http_origin always;"
    "add_header Access-Control-Allow-Credentials true always;"
)
OLD_TLS: Final = {"ssl_protocols": "ssl_protocols TLSv1.1", "ssl_ciphers ": "ssl_ciphers DEFAULT:@SECLEVEL=0:"}
COUNTERS: Final = {
    "|stub_status) {": ") {",
    PROXY: f"        location = /stub_status {{ stub_status; }}\n{PROXY}",
}
EDGE_FAULTS: Final[list[tuple[str, dict[str, str], str]]] = [
    ("N1", OLD_TLS, "TLSv1_1 with"),
    ("N1", {"ssl_ciphers ": "ssl_ciphers ECDHE-ECDSA-AES128-SHA:"}, "TLSv1_2 with ECDHE-ECDSA-AES128-SHA is accepted"),
    ("N1", {"return 301 https://$host$request_uri": "return 404"}, "answers 404 and does not lead to https"),
    ("N2", {PROXY: PROXY.replace("proxy", "add_header X-Mine 1; proxy")}, "comes without strict-transport-security"),
    ("N3", {"server_tokens off": "server_tokens on"}, "Server: nginx/"),
    ("N3", {"ssl_reject_handshake on;": "return 200;"}, "a request for stranger.invalid is answered 200"),
    ("N6", COUNTERS, "/stub_status answers 200"),
    ("A3", {UPGRADE: f'{UPGRADE}\n proxy_set_header Origin "";'}, "a socket with Origin https://stranger.example"),
    ("A4", {LIMIT: f"{WITH_CREDENTIALS}\n{LIMIT}"}, "Access-Control-Allow-Origin: https://stranger.example with"),
]


@contextmanager
def reloaded(edge: Edge, faults: dict[str, str]) -> Generator[None]:
    """Have nginx take a file with faults, and ours again."""
    nginx = edge.processes.processes["nginx"]
    edge.configure(faults)
    nginx.send_signal(signal.SIGHUP)
    try:
        yield
    finally:
        edge.configure()
        nginx.send_signal(signal.SIGHUP)


@pytest.mark.parametrize(("rule", "faults", "evidence"), EDGE_FAULTS)
def test_what_is_wrong_with_the_edge_is_told(rule: str, faults: dict[str, str], evidence: str, edge: Edge) -> None:
    with reloaded(edge, faults):
        is_told(rule, web(edge), evidence)
    comes_out(rule, web(edge), Status.PASS)


def test_a_certificate_that_ends_soon_or_is_a_strangers_is_told(edge: Edge) -> None:
    key, certificate = edge.folder / "ssl/short.key", edge.folder / "ssl/short.crt"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*make, *names], check=True, capture_output=True, timeout=30)
    with reloaded(edge, {"server.crt": "short.crt", "server.key": "short.key"}):
        is_told("N7", web(edge), "not to be trusted: self-signed certificate")
        is_told("N7", replace(web(edge), ca_file=str(certificate)), "the certificate expires in 2 days")
    comes_out("N7", web(edge), Status.PASS)


def test_a_grafana_that_lets_in_anybody_is_told(grafana: str, monkeypatch: pytest.MonkeyPatch) -> None:
    live = Live(grafana=grafana)
    monkeypatch.setattr(Grafana, "is_open", True)
    is_told("A1", live, "anonymous users get in")
    monkeypatch.setattr(Grafana, "has_usual_password", True)
    is_told("A1", live, "admin gets in with the password admin")


@pytest.mark.parametrize("flag", ["web.enable-admin-api", "web.enable-lifecycle"])
def test_a_prometheus_that_can_be_emptied_or_stopped_is_told(flag: str, pipeline: Pipeline) -> None:
    is_told("A2", Live(prometheus=start_prometheus(pipeline, f"--{flag}")), f"--{flag} is on")
