"""The edge that is deployed: the real nginx from our file over five real replicas.

What differs from the file is in `Edge.configure`: ports, folders, the addresses of the replicas.
"""

import http.client
import itertools
import json
import re
import signal
import socket as sockets_of
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from streamgauge.processes import free_port, wait_until
from streamgauge.stack import answers, get
from tests.edge import ROOT, Edge, lacking
from tests.servers import Servers
from tests.watching import MONITORING, binary, substitute

pytestmark = pytest.mark.timeout(180)

SOURCES: Final = ("/metrics", "/metrics/self", "/health/detailed", "/api/monitoring/jobs", "/docs", "/openapi.json")
FLOODER: Final = "127.0.0.77"


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[Edge]:
    # Redis is not needed: what replicas emit waits, and listings come from PostgreSQL.
    name = servers.new_database()
    dsn = servers.postgres().dsn(name)
    made = Edge(tmp_path_factory.mktemp("edge"), f"redis://127.0.0.1:{free_port()}", dsn=dsn)
    with made.processes:
        made.open()
        yield made
    servers.drop_database(name)


def test_nginx_accepts_the_file_as_it_is(edge: Edge) -> None:
    run = subprocess.run([binary("nginx"), "-t", "-c", edge.configure()], capture_output=True, text=True, timeout=20)
    assert run.returncode == 0, run.stderr
    assert "warn" not in run.stderr


def test_http_leads_to_https_and_old_tls_is_refused(edge: Edge) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", edge.plain, timeout=10)
    connection.request("GET", "/score?x=1", headers={"Host": "localhost"})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Location"]) == (301, "https://localhost/score?x=1")
    connection.close()
    for version, is_spoken in (("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
        command = ["openssl", "s_client", version, "-cipher", "DEFAULT:@SECLEVEL=0", "-servername", "localhost"]
        where = ["-connect", f"127.0.0.1:{edge.tls}"]
        run = subprocess.run([*command, *where], input=b"", capture_output=True, timeout=20)
        assert (run.returncode == 0) is is_spoken, version


def test_a_cipher_that_is_not_listed_is_refused(edge: Edge) -> None:
    where = ["-connect", f"127.0.0.1:{edge.tls}", "-servername", "localhost", "-tls1_2"]
    for cipher, is_spoken in (("ECDHE-ECDSA-AES128-GCM-SHA256", True), ("ECDHE-ECDSA-AES128-SHA", False)):
        command = ["openssl", "s_client", *where, "-cipher", f"{cipher}:@SECLEVEL=0"]
        run = subprocess.run(command, input=b"", capture_output=True, timeout=20)
        assert (run.returncode == 0) is is_spoken, cipher


def test_http2_is_spoken(edge: Edge) -> None:
    context = ssl.create_default_context(cafile=edge.folder / "ssl/ca.crt")
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        sockets_of.create_connection(("127.0.0.1", edge.tls), 10) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as secure,
    ):
        assert secure.selected_alpn_protocol() == "h2"


def test_another_name_gets_no_answer(edge: Edge) -> None:
    with sockets_of.create_connection(("127.0.0.1", edge.tls), 10) as raw, pytest.raises(ssl.SSLError):
        edge.context.wrap_socket(raw, server_hostname="stranger.example")


def test_every_answer_has_the_headers_and_tells_no_version(edge: Edge) -> None:
    for path in ("/healthz", "/no-such-page", "/metrics", "/listing/0"):
        status, headers = edge.get(path)
        assert status in (200, 404, 422), path
        assert not lacking(headers), path
        assert headers["server"] == "nginx"


def test_what_is_not_for_outside_is_closed(edge: Edge) -> None:
    assert {path: edge.get(path)[0] for path in SOURCES} == dict.fromkeys(SOURCES, 404)
    assert get(edge.status, "/metrics")[0] == 404


def test_the_probes_of_blackbox_exporter_succeed_and_can_fail(edge: Edge) -> None:
    config = substitute(
        MONITORING / "blackbox/blackbox.yml",
        edge.folder,
        {"/etc/streamgauge/tls/ca.crt": str(edge.folder / "ssl/ca.crt")},
    )
    port = free_port()
    command = (binary("prometheus-blackbox-exporter"), f"--config.file={config}")
    edge.processes.start("blackbox", *command, f"--web.listen-address=127.0.0.1:{port}")
    assert wait_until(answers(port, "/-/healthy"), 20), edge.processes.log("blackbox").read_text()

    def probe(module: str, target: str) -> float:
        _, body = get(port, f"/probe?module={module}&target={target}")
        return float(re.findall(r"^probe_success (.*)$", body.decode(), re.MULTILINE)[0])

    for module, good, bad in (
        ("https", f"https://localhost:{edge.tls}/healthz", f"https://localhost:{edge.tls}/metrics"),
        ("websocket", f"localhost:{edge.tls}", f"localhost:{edge.plain}"),
        ("ready", f"http://127.0.0.1:{edge.ports[0]}/readyz", f"http://127.0.0.1:{free_port()}/readyz"),
    ):
        assert (module, probe(module, good), probe(module, bad)) == (module, 1, 0)


def test_large_bodies_are_refused(edge: Edge) -> None:
    status, headers = edge.get("/intent/decode", "POST", b"x" * 70_000)
    assert (status, lacking(headers)) == (413, [])


def test_requests_beyond_the_rate_are_refused(edge: Edge) -> None:
    """A client of an address of its own, so that nobody else is refused; it asks until it is, within a deadline."""
    seen: dict[int, list[str]] = {}
    is_over = threading.Event()

    def ask() -> None:
        connection = edge.connect(source=FLOODER)
        while not is_over.is_set():
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            answer.read()
            seen[answer.status] = [name.lower() for name in answer.headers]
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    is_refused = wait_until(lambda: 429 in seen, 60)
    is_over.set()
    for thread in threads:
        thread.join(30)
    assert is_refused
    assert seen.keys() == {200, 429}
    assert not lacking(seen[429])


ROUTES: Final = {"/healthz": 200, "/readyz": 200, "/listing/1": 200, "/listing/7": 200, "/listing/2000": 404}


class Reader:
    """A client that keeps its connection and asks five times a second; an answer other than usual is a failure."""

    def __init__(self, edge: Edge, number: int) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._is_over = threading.Event()
        self._connection = edge.connect()
        self._paths = itertools.islice(itertools.cycle(ROUTES), number, None)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """End after the request under way."""
        self._is_over.set()
        self._thread.join(30)
        self._connection.close()

    def _run(self) -> None:
        for path in self._paths:
            if self._is_over.wait(0.2):
                return
            try:
                self._connection.request("GET", path)
                answer = self._connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{path}: {error!r}")
                self._connection.close()
                continue
            self.answered += 1
            if answer.status != ROUTES[path]:
                self.failures.append(f"{path}: {answer.status}")


def test_a_replica_killed_under_load_costs_no_get(edge: Edge) -> None:
    """Eight clients, 40 requests a second over several routes; a replica dies among them and comes back."""
    assert wait_until(lambda: edge.get("/listing/1")[0] == 200, 30), "the listings are there"
    log = edge.folder / "access.log"
    readers = [Reader(edge, number) for number in range(8)]

    def answered() -> int:
        return sum(reader.answered for reader in readers)

    def retried() -> list[dict[str, Any]]:
        """Return what the log has of requests that went to the dead one first, and to another one then."""
        dead = f"127.0.0.1:{edge.ports[1]}, "
        lines = (json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n"))
        return [line for line in lines if line["upstream"].startswith(dead)]

    try:
        assert wait_until(lambda: answered() > 80, 60)
        edge.processes.stop("replica-1", signal.SIGKILL)
        assert wait_until(lambda: bool(retried()), 60), "a request met the dead replica"
        at = answered()
        assert wait_until(lambda: answered() > at + 200, 60)
        edge.start_replica(1)
        assert wait_until(answers(edge.ports[1], "/healthz"), 60)
        at = answered()
        assert wait_until(lambda: answered() > at + 80, 60)
    finally:
        for reader in readers:
            reader.close()
    assert [failure for reader in readers for failure in reader.failures] == []
    assert {int(line["status"]) for line in retried()} <= set(ROUTES.values())


def test_a_post_is_not_sent_twice(edge: Edge) -> None:
    """A replica that takes a POST and dies with it: the client is told, nobody else gets it."""
    taken: list[bytes] = []
    edge.processes.stop("replica-0", signal.SIGKILL)
    with sockets_of.create_server(("127.0.0.1", edge.ports[0])) as server:
        server.settimeout(0.2)
        is_over = threading.Event()

        def take() -> None:
            while not is_over.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    taken.append(connection.recv(65_536))

        thread = threading.Thread(target=take)
        thread.start()
        found = [edge.get("/intent/decode", "POST", b'{"text": "hello"}') for _ in range(10)]
        is_over.set()
        thread.join(30)
    edge.start_replica(0)
    assert wait_until(answers(edge.ports[0], "/healthz"), 60)
    posts = [one for one in taken if one.startswith(b"POST")]
    assert posts, "least_conn asks each replica in turn"
    statuses = [status for status, _ in found]
    assert statuses.count(502) == len(posts), (statuses, len(posts))
    assert not [lacking(headers) for status, headers in found if status == 502 and lacking(headers)]


def test_the_log_is_json_with_the_client_and_the_request(edge: Edge) -> None:
    edge.get("/healthz", headers={"X-Forwarded-For": "10.9.8.7"})
    assert wait_until(lambda: (edge.folder / "access.log").stat().st_size > 0, 10)
    told = [json.loads(line) for line in (edge.folder / "access.log").read_text().splitlines()]
    assert {one["client"] for one in told} - {FLOODER} == {"127.0.0.1"}
    assert all(len(one["request_id"]) == 32 for one in told)


def test_the_certificate_is_made_once_and_its_key_is_private(tmp_path: Path) -> None:
    maker = ROOT / "nginx/ssl/make-certificate.sh"
    made: list[bytes] = []
    for _ in range(2):
        subprocess.run([maker, tmp_path, "api.example.org"], check=True, capture_output=True, timeout=30)
        made.append((tmp_path / "server.crt").read_bytes())
    assert made[0] == made[1]
    assert (tmp_path / "server.key").stat().st_mode & 0o777 == 0o400
    text = subprocess.run(
        ["openssl", "x509", "-in", tmp_path / "server.crt", "-noout", "-text"],
        capture_output=True,
        text=True,
        timeout=10,
    ).stdout
    assert "DNS:api.example.org" in text
