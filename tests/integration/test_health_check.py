"""scripts/health-check.sh against a live stack, dead ports, ports that never answer, and servers that lie."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from streamgauge.processes import free_port, start, stop, wait_until
from streamgauge.stack import get
from tests.pipeline import Pipeline

SCRIPT = Path(__file__).parents[2] / "scripts" / "health-check.sh"
SHELLS = [shell for shell in ("dash", "bash", "sh") if shutil.which(shell)][:2]
EXIT_CODES = {"ok": 0, "degraded": 1, "down": 2}
MEMBERS = {"name", "status", "severity", "latency_ms", "message", "value"}

Checks = dict[str, dict[str, Any]]


def check(*, shell: str = "sh", **env: str) -> tuple[str, Checks]:
    """Run the script; returns its word for all, and its checks by name. Shape and exit code are held here."""
    mine = ("STREAMGAUGE_", "NGINX_URL", "PROMETHEUS_URL", "ALERTMANAGER_URL", "GRAFANA_URL", "LOKI_URL")
    base = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
    dead = f"http://127.0.0.1:{free_port()}"
    given = {"STREAMGAUGE_EXPORTER_URL": dead, "STREAMGAUGE_API_URLS": dead, "STREAMGAUGE_HEALTH_DISKS": "/dev/shm"}
    env = given | env
    done = subprocess.run(
        (shell, str(SCRIPT), "--format", "json"),
        env=base | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert set(told) == {"status", "timestamp", "duration_ms", "checks"}
    assert all(set(one) == MEMBERS for one in told["checks"])
    assert done.returncode == EXIT_CODES[told["status"]]
    names = [one["name"] for one in told["checks"]]
    assert len(names) == len(set(names))
    return told["status"], {one["name"]: one for one in told["checks"]}


@pytest.fixture
def stack(tmp_path: Path, dsn: str, redis_url: str) -> Iterator[Pipeline]:
    """An aggregator, an exporter with a token, and one replica of the API."""
    with Pipeline(tmp_path, dsn, redis_url, STREAMGAUGE_EXPORTER_TOKEN="t0ken") as pipeline:
        pipeline.aggregator()
        pipeline.exporter()
        port = free_port()
        pipeline.env["API_PORT"] = str(port)
        command = (sys.executable, "-m", "uvicorn", "producers.api:app", "--port", str(port), "--no-access-log")
        pipeline.start("emitter-api", *command)
        assert wait_until(lambda: answers(port), 30)
        yield pipeline


def answers(port: int) -> bool:
    """Whether the API answers."""
    try:
        return get(port, "/healthz")[0] == 200
    except OSError:
        return False


def test_a_live_stack_is_ok_and_what_dies_is_named(stack: Pipeline) -> None:
    api = f"127.0.0.1:{stack.env['API_PORT']}"
    env = {
        "STREAMGAUGE_EXPORTER_URL": f"http://127.0.0.1:{stack.port}",
        "STREAMGAUGE_API_URLS": f"http://{api}",
        "STREAMGAUGE_EXPORTER_TOKEN": "t0ken",
    }
    deadline = time.monotonic() + 60
    while True:
        status, checks = check(**env)
        if status == "ok" and checks["producers"]["value"]:
            break
        assert time.monotonic() < deadline, checks
    ok = {name for name, one in checks.items() if one["status"] == "ok"}
    named = {"exporter live", "exporter ready", "api", f"api {api}", f"api ready {api}", f"websocket {api}", "canary"}
    named |= {"database", "redis", "stream 00", "stream 01", "aggregators", "producers", "schedule", "snapshot"}
    assert ok >= {*named, "thresholds", "watermark", "replication slots", "disk /dev/shm"}
    values = {name: one["value"] for name, one in checks.items()}
    assert (values["api"], values["aggregators"], values["producers"]) == (1, 1, 1)
    assert values["stream 00"] >= 0 and values["stream 01"] >= 0
    assert values["replication slots"] is None, "there is none"
    assert 0 <= values["watermark"] < 60
    assert values["canary"] >= 1, "what the request brought was committed"
    status, checks = check(**env | {"STREAMGAUGE_EXPORTER_TOKEN": "wrong"})
    assert (status, checks["components"]["message"]) == ("degraded", "set STREAMGAUGE_EXPORTER_TOKEN")
    assert checks["canary"]["status"] == "unknown"
    stack.stop("aggregator")
    status, checks = check(**env)
    assert (status, checks["canary"]["status"]) == ("degraded", "down")
    assert checks["canary"]["message"] == "nothing was committed within 5 s of a request"
    stack.stop("emitter-api")
    status, checks = check(**env | {"STREAMGAUGE_API_URLS": f"http://{api}, http://127.0.0.1:{free_port()}"})
    assert status == "down"
    assert checks["api"]["message"] == "none of 2 replicas answers"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_dead_stack_is_told_in_valid_json_without_secrets(shell: str) -> None:
    port = free_port()
    dead = f"http://admin:hunter2@127.0.0.1:{port}"
    others = dict.fromkeys(("PROMETHEUS_URL", "ALERTMANAGER_URL", "GRAFANA_URL", "LOKI_URL"), dead)
    env = {
        "STREAMGAUGE_EXPORTER_URL": dead,
        "STREAMGAUGE_EXPORTER_TOKEN": 't0k"e\\n',
        "STREAMGAUGE_API_URLS": f"{dead} http://no.such.name.invalid:1",
        "NGINX_URL": dead.replace("http", "https"),
    }
    status, checks = check(shell=shell, **env, **others)
    assert status == "down"
    assert checks.pop("disk /dev/shm")["status"] == "ok"
    assert checks.pop("canary")["status"] == "unknown"
    assert {one["status"] for one in checks.values()} == {"down"}
    assert {"nginx", "prometheus", "alertmanager", "grafana", "loki", "certificate nginx"} <= set(checks)
    assert {"prometheus targets", "prometheus rules"} <= set(checks)
    assert checks[f"api 127.0.0.1:{port}"]["message"] == "connection refused"
    assert checks[f"websocket 127.0.0.1:{port}"]["message"] == "no handshake: connection refused"
    told = json.dumps(checks)
    assert "hunter2" not in told
    assert "t0k" not in told


def test_ports_that_never_answer_take_one_deadline_in_all() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        hole = f"http://127.0.0.1:{listener.getsockname()[1]}"
        began = time.monotonic()
        status, checks = check(STREAMGAUGE_EXPORTER_URL=hole, STREAMGAUGE_API_URLS=hole, PROMETHEUS_URL=hole)
        assert time.monotonic() - began < 7
    assert status == "down"
    assert checks["prometheus"]["message"] == "no answer within 5 s"


@contextmanager
def websockets(
    handler: Callable[[ServerConnection], None], context: ssl.SSLContext | None = None, accept: str = ""
) -> Generator[str, None, None]:
    """Serve /ws by a handler and 200 for /healthz; yields host:port."""

    def answer(connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/ws":
            return None
        return connection.respond(HTTPStatus.OK, '{"nonsense": "}{"')

    def lie(_: ServerConnection, __: Request, response: Response) -> None:
        if accept:
            headers = Headers(response.headers)
            del headers["Sec-WebSocket-Accept"]
            headers["Sec-WebSocket-Accept"] = accept
            response.headers = headers

    server: Server = serve(handler, "127.0.0.1", 0, ssl=context, process_request=answer, process_response=lie)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.socket.getsockname()[1]}"
    finally:
        server.shutdown()
        thread.join(10)


def echo(connection: ServerConnection) -> None:
    for message in connection:
        assert message == "hello"
        connection.send(message)


def say_nothing(connection: ServerConnection) -> None:
    for _ in connection:
        pass


def answer_otherwise(connection: ServerConnection) -> None:
    for _ in connection:
        connection.send('{"intent": "greeting"}')


def close_at_once(connection: ServerConnection) -> None:
    connection.close(1011, "no")


@pytest.mark.parametrize(
    ("handler", "accept", "message"),
    [
        (echo, "", ""),
        (say_nothing, "", "shook hands, but did not answer a message"),
        (close_at_once, "", "shook hands, but did not answer a message"),
        (answer_otherwise, "", "answered something else than it was sent"),
        (echo, "AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "Sec-WebSocket-Accept is wrong"),
    ],
)
def test_a_websocket_is_ok_when_it_shakes_hands_and_answers(
    handler: Callable[[ServerConnection], None], accept: str, message: str
) -> None:
    with websockets(handler, accept=accept) as place:
        _, checks = check(STREAMGAUGE_API_URLS=f"http://{place}")
        found = checks[f"websocket {place}"]
        assert (found["message"], found["status"]) == (message, "down" if message else "ok")


def test_an_answer_that_is_not_the_exporters_is_no_answer() -> None:
    with websockets(echo) as place:
        status, checks = check(STREAMGAUGE_EXPORTER_URL=f"http://{place}")
        assert (status, checks["components"]["message"]) == ("down", "the answer is not the exporter's")


@pytest.mark.parametrize(("days", "status"), [(5, "degraded"), (40, "ok")])
def test_the_certificate_tells_its_days_left(tmp_path: Path, days: int, status: str) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost"
    name = ("-addext", "subjectAltName=IP:127.0.0.1", "-days", str(days), "-keyout", str(key), "-out", str(certificate))
    subprocess.run((*command.split(), *name), capture_output=True, timeout=30, check=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with websockets(echo, context) as place:
        _, checks = check(NGINX_URL=f"https://{place}", CURL_CA_BUNDLE=str(certificate))
        assert checks["certificate nginx"]["status"] == status
        assert checks["certificate nginx"]["value"] in (days, days - 1), "one less once midnight has passed"
        assert checks["nginx"]["status"] == "ok"
        assert checks["websocket nginx"]["status"] == "ok", "through TLS"
        _, checks = check(NGINX_URL=f"https://{place}")
        assert checks["certificate nginx"]["message"] == "the certificate is not trusted"
        assert checks["nginx"]["message"] == "TLS failed"


def test_text_is_for_people() -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    env = {**os.environ, "STREAMGAUGE_EXPORTER_URL": dead, "STREAMGAUGE_API_URLS": dead}
    env["STREAMGAUGE_HEALTH_DISKS"] = "/dev/shm"
    done = subprocess.run(("sh", str(SCRIPT)), env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    first, *rest = done.stdout.splitlines()
    assert first.startswith("down (")
    assert sorted(line.split()[0] for line in rest) == ["down"] * 7 + ["ok", "unknown"]


@pytest.mark.parametrize(
    ("told", "status", "value"),
    [("84%", "ok", 84), ("85%", "degraded", 85), ("100%", "degraded", 100), ("-", "unknown", None)],
)
def test_a_disk_is_as_full_as_df_says(tmp_path: Path, told: str, status: str, value: int | None) -> None:
    df = tmp_path / "df"
    df.write_text(
        f"#!/bin/sh\necho 'Filesystem 1024-blocks Used Available Capacity Mounted on'\necho '/d 1 1 1 {told} /'\n"
    )
    df.chmod(0o755)
    _, checks = check(PATH=f"{tmp_path}:{os.environ['PATH']}", STREAMGAUGE_HEALTH_DISKS="/ /data")
    assert {checks[name]["status"] for name in ("disk /", "disk /data")} == {status}
    assert checks["disk /"]["value"] == value


MANY = "vector(1) * on () (vector(1) or label_replace(vector(1), 'a', 'b', '', ''))"
"""Two series where one is wanted: it can be loaded, and never evaluated."""
RULES = """
groups:
  - name: mine
    interval: 1s
    rules: [{{alert: Fine, expr: vector(0) > 1}}, {{alert: Other, expr: "{expression}"}}]
"""


@contextmanager
def prometheus(folder: Path, targets: list[str], rules: str) -> Generator[str, None, None]:
    """Run a Prometheus; yields its address once it has asked its targets."""
    found = shutil.which("prometheus")
    assert found, "prometheus is not installed: apt-get install prometheus"
    folder.mkdir()
    port = free_port()
    (folder / "rules.yml").write_text(rules)
    known = json.dumps([target.format(port=port) for target in targets])
    scrape = f"scrape_configs: [{{job_name: mine, scrape_interval: 1s, static_configs: [{{targets: {known}}}]}}]"
    (folder / "p.yml").write_text(f"rule_files: [rules.yml]\n{scrape}\n")
    options = (f"--config.file={folder / 'p.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}")
    process = start((found, *options, f"--web.listen-address=127.0.0.1:{port}"), folder / "log")
    try:

        def has_asked() -> bool:
            answers = [get(port, f"/api/v1/{what}") for what in ("targets", "rules")]
            asked = b"".join(body for _, body in answers)
            is_there = all(status == 200 for status, _ in answers)
            return is_there and asked.count(b'"scrapeUrl"') == len(targets) and b'"health":"unknown"' not in asked

        assert wait_until(has_asked, 30), (folder / "log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process, signal.SIGTERM, 30)


def test_prometheus_tells_its_targets_and_rules(tmp_path: Path) -> None:
    itself, dead = "127.0.0.1:{port}", f"127.0.0.1:{free_port()}"
    names = ("prometheus", "prometheus targets", "prometheus rules")
    with prometheus(tmp_path / "well", [itself], RULES.format(expression="vector(0) > 2")) as url:
        _, checks = check(PROMETHEUS_URL=url)
        assert [(checks[name]["status"], checks[name]["value"]) for name in names] == [
            ("ok", 200),
            ("ok", 1),
            ("ok", 2),
        ]
    with prometheus(tmp_path / "ill", [itself, dead], RULES.format(expression=MANY)) as url:
        _, checks = check(PROMETHEUS_URL=url)
        assert checks["prometheus targets"]["message"] == "1 of 2 targets do not answer"
        assert checks["prometheus rules"]["message"] == "1 of 2 rules cannot be evaluated"
        assert {checks[name]["status"] for name in names[1:]} == {"degraded"}
    with prometheus(tmp_path / "empty", [], "groups: []") as url:
        _, checks = check(PROMETHEUS_URL=url)
        assert [checks[name]["message"] for name in names[1:]] == ["Prometheus asks nobody", "no rules are loaded"]


@pytest.mark.parametrize("arguments", [["--format", "xml"], ["--format"], ["--nonsense"]])
def test_wrong_use_is_told(arguments: list[str]) -> None:
    done = subprocess.run(("sh", str(SCRIPT), *arguments), capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage:")


def test_without_curl_the_answer_is_still_json(tmp_path: Path) -> None:
    tools = ("date", "mktemp", "rm", "cat", "grep", "sed", "tr", "awk")
    for tool in tools:
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    shell = str(shutil.which("sh"))
    done = subprocess.run(
        (shell, str(SCRIPT), "--format=json"), env={"PATH": str(tmp_path)}, capture_output=True, timeout=10, check=False
    )
    assert done.returncode == 2
    assert json.loads(done.stdout)["checks"][0]["message"] == "curl is not installed"


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="SHELLCHECK IS NOT INSTALLED: the scripts are unchecked")
def test_the_script_is_clean_for_shellcheck() -> None:
    done = subprocess.run(("shellcheck", "--shell=sh", str(SCRIPT)), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
