"""The edge that is deployed: the real nginx from our file over five real replicas.

What differs from the file is in `Edge.configure`: ports, folders, the addresses of the replicas.
"""

import asyncio
import http.client
import json
import re
import signal
import socket as sockets_of
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from streamgauge.processes import free_port, wait_until
from streamgauge.stack import answers, get
from tests.edge import ROOT, UPSTREAMS, Edge
from tests.watching import MONITORING, binary, substitute

pytestmark = pytest.mark.timeout(180)

SOURCES: Final = ("/metrics", "/metrics/self", "/health/detailed", "/api/monitoring/jobs", "/docs", "/openapi.json")
HEADERS: Final = (
    "strict-transport-security",
    "x-content-type-options",
    "x-frame-options",
    "referrer-policy",
    "content-security-policy",
    "x-request-id",
)


async def receive(socket: ClientConnection) -> Any:
    """Return a message, within a deadline."""
    async with asyncio.timeout(20):
        return await socket.recv()


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    # Redis is not needed: what replicas emit waits, and the sockets are what is looked at.
    made = Edge(tmp_path_factory.mktemp("edge"), f"redis://127.0.0.1:{free_port()}")
    with made.processes:
        made.open()
        yield made


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
        assert not [name for name in HEADERS if name not in headers], path
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
    assert edge.get("/intent/decode", "POST", b"x" * 70_000)[0] == 413


async def test_websocket_echo_through_nginx_and_directly(edge: Edge) -> None:
    for port in (None, *edge.ports[:2]):
        async with await edge.socket(port) as socket:
            await socket.send("I want to sell my house")
            assert json.loads(await receive(socket))["intent"]


async def test_a_page_of_another_origin_is_refused_and_ours_is_not(edge: Edge) -> None:
    for port in (None, edge.ports[0]):
        with pytest.raises(InvalidStatus) as refused:
            await edge.socket(port, origin="https://stranger.example")
        assert refused.value.response.status_code == 403
        await (await edge.socket(port, origin="https://ours.example")).close()
    await (await edge.socket(origin=f"https://localhost:{edge.tls}")).close()


async def test_a_client_has_so_many_sockets_and_cannot_choose_its_address(edge: Edge) -> None:
    sockets: list[ClientConnection] = []
    try:
        with pytest.raises(InvalidStatus) as refused:
            for number in range(30):
                forged = {"X-Forwarded-For": f"10.0.0.{number}"}
                sockets.append(await edge.socket(additional_headers=forged))
        assert refused.value.response.status_code == 429
        assert len(sockets) == 20
    finally:
        for socket in sockets:
            await socket.close()


async def test_a_socket_that_sends_too_fast_is_closed(edge: Edge) -> None:
    async with await edge.socket(edge.ports[0]) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(500):
                await socket.send("hello")
            while True:
                await receive(socket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


def test_requests_beyond_the_rate_are_refused(edge: Edge) -> None:
    statuses: list[int] = []

    def ask() -> None:
        connection = http.client.HTTPSConnection("localhost", edge.tls, context=edge.context, timeout=10)
        for _ in range(120):
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(statuses) == {200, 429}
    # What was spent comes back: the next tests are not refused.
    assert wait_until(lambda: edge.get("/healthz")[0] == 200, 10)
    time.sleep(2)


def test_a_killed_replica_costs_no_get(edge: Edge) -> None:
    """40 requests a second for 5 s; a replica dies in the middle and comes back."""
    statuses: list[int] = []
    began = time.monotonic()
    is_killed = False
    while (elapsed_s := time.monotonic() - began) < 5:
        statuses.append(edge.get("/healthz")[0])
        if elapsed_s > 2 and not is_killed:
            is_killed = True
            edge.processes.stop("replica-1", signal.SIGKILL)
        time.sleep(0.02)
    edge.start_replica(1)
    assert wait_until(answers(edge.ports[1], "/healthz"), 60)
    assert len(statuses) > 60
    assert set(statuses) == {200}


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
        statuses = [edge.get("/intent/decode", "POST", b'{"text": "hello"}')[0] for _ in range(10)]
        is_over.set()
        thread.join(30)
    edge.start_replica(0)
    assert wait_until(answers(edge.ports[0], "/healthz"), 60)
    posts = [one for one in taken if one.startswith(b"POST")]
    assert posts, "least_conn asks each replica in turn"
    assert statuses.count(502) == len(posts), (statuses, len(posts))


async def test_a_rolling_restart_closes_every_socket_with_1012(edge: Edge) -> None:
    """Each client is told that the service restarts, and is served again by the replicas that are there."""
    sockets = [await edge.socket(ping_interval=None) for _ in range(10)]
    codes: list[int] = []
    for number in range(UPSTREAMS):
        edge.processes.stop(f"replica-{number}", signal.SIGTERM)
        edge.start_replica(number)
        assert wait_until(answers(edge.ports[number], "/healthz"), 60)
    for socket in sockets:
        with pytest.raises(ConnectionClosed) as closed:
            await receive(socket)
        codes.append(closed.value.rcvd.code if closed.value.rcvd else 0)
    assert codes == [1012] * 10
    async with await edge.socket() as again:
        await again.send("hello")
        assert await receive(again)


def test_the_log_is_json_with_the_client_and_the_request(edge: Edge) -> None:
    edge.get("/healthz", headers={"X-Forwarded-For": "10.9.8.7"})
    assert wait_until(lambda: (edge.folder / "access.log").stat().st_size > 0, 10)
    told = [json.loads(line) for line in (edge.folder / "access.log").read_text().splitlines()]
    assert {one["client"] for one in told} == {"127.0.0.1"}
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


def test_the_health_check_script_works_through_nginx(edge: Edge) -> None:
    env = {
        "PATH": "/usr/bin:/bin",
        "STREAMGAUGE_API_URLS": f"https://localhost:{edge.tls}",
        "CURL_CA_BUNDLE": str(edge.folder / "ssl/ca.crt"),
    }
    command = [ROOT / "scripts/health-check.sh", "--format", "json"]
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    checks = {one["name"]: one["status"] for one in json.loads(run.stdout)["checks"]}
    assert [status for name, status in checks.items() if "websocket" in name.lower()] == ["ok"], checks
