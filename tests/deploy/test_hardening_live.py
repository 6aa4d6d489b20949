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
from tests.judging import comes_out, is_told, judged, postgres
from tests.pipeline import Pipeline
from tests.postgres_node import Node, primary
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
    with primary(BINARIES, HOST) as made:
        yield made


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
    # Containers are looked at where there are some: by `make compose-test`.
    found = [judged(rule, live) for rule in RULES if rule.live is not None and not rule.id.startswith("D")]
    assert [one for one in found if one.status is not Status.PASS] == []
    assert len(found) == 27


REDIS_FAULTS: Final = [
    ("R1", "ACL SETUSER default on nopass", "the default user is on"),
    ("R1", "ACL SETUSER health nopass", "health needs no password"),
    ("R1", "ACL SETUSER producer ~*", "producer may use every key"),
    ("R1", "ACL SETUSER exporter +@all", "exporter may use every command"),
    ("R1", "ACL DELUSER producer", "there is no user producer"),
    ("R2", "ACL SETUSER producer +flushall", "producer may FLUSHALL"),
    ("R2", "ACL SETUSER exporter +config", "exporter may CONFIG"),
    ("R2", "ACL SETUSER exporter ~* +keys", "exporter may KEYS"),
    ("R2", "ACL SETUSER metrics +config|get", "metrics may CONFIG"),
    ("R2", "ACL SETUSER aggregator +shutdown", "aggregator may SHUTDOWN"),
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
FRAMED: Final = {"add_header X-Frame-Options DENY always;": "", "; frame-ancestors 'none'": ""}
COUNTERS: Final = {
    "|stub_status) {": ") {",
    PROXY: f"        location = /stub_status {{ stub_status; }}\n{PROXY}",
}
EDGE_FAULTS: Final[list[tuple[str, dict[str, str], str]]] = [
    ("N1", OLD_TLS, "TLSv1_1 with"),
    ("N1", {"ssl_ciphers ": "ssl_ciphers ECDHE-ECDSA-AES128-SHA:"}, "TLSv1_2 with ECDHE-ECDSA-AES128-SHA is accepted"),
    ("N1", {"return 301 https://$host$request_uri": "return 404"}, "answers 404 and does not lead to https"),
    ("N2", {PROXY: PROXY.replace("proxy", "add_header X-Mine 1; proxy")}, "comes without strict-transport-security"),
    ("N2", FRAMED, "comes without x-frame-options or frame-ancestors"),
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


@pytest.mark.parametrize(
    ("faults", "setting", "evidence"),
    [
        ({"65536": "10000000"}, "50", "a message of 1048576 bytes is taken"),
        ({}, "1000000", "300 messages at once are all answered"),
    ],
)
def test_a_socket_without_limits_is_told(faults: dict[str, str], setting: str, evidence: str, edge: Edge) -> None:
    for broken, per_s, status in ((faults, setting, Status.FAIL), ({}, "50", Status.PASS)):
        edge.processes.stop("replica-0")
        edge.start_replica(0, broken, REFERENCE_WS_MESSAGES_PER_S=per_s)
        assert wait_until(answers(edge.ports[0], "/readyz"), 30)
        found = comes_out("A3", web(edge), status)
        assert status is Status.PASS or evidence in found.evidence


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
