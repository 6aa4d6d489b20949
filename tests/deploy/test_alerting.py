"""Prometheus and Alertmanager from our files: routes by amtool, and alerts that are delivered by mail and to Slack.

The exporter, Prometheus and Alertmanager are real; the mail server and the Slack-shaped webhook are local sinks. What
differs from the files is in the `changes` of the test, and nothing else.
"""

import json
import ssl
import subprocess
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope

from streamgauge.processes import free_port, wait_until
from streamgauge.stack import get
from tests.exporting import writer
from tests.pipeline import Pipeline
from tests.watching import FASTER, MONITORING, binary, make_certificate, start_alertmanager, start_prometheus

ROUTES = [
    ({"alertname": "Watchdog", "severity": "none"}, "watchdog"),
    ({"alertname": "EventsLost", "severity": "critical", "family": "loss"}, "critical"),
    ({"alertname": "EventLoopLag", "severity": "warning", "family": "api-latency"}, "slack"),
    ({"alertname": "ThresholdFrozen", "severity": "info"}, "slack"),
    ({"alertname": "CriticalUnresolved30m", "severity": "critical", "escalation": "2"}, "escalation"),
]


@pytest.mark.parametrize(("labels", "receiver"), ROUTES, ids=[labels["alertname"] for labels, _ in ROUTES])
def test_alert_is_routed(labels: Mapping[str, str], receiver: str) -> None:
    config = f"--config.file={MONITORING / 'alertmanager/alertmanager.yml'}"
    pairs = [f"{name}={value}" for name, value in labels.items()]
    command = [binary("amtool"), "config", "routes", "test", config, f"--verify.receivers={receiver}", *pairs]
    run = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert run.returncode == 0, run.stdout + run.stderr


def test_configurations_are_accepted(tmp_path: Path) -> None:
    amtool = [binary("amtool"), "check-config", str(MONITORING / "alertmanager/alertmanager.yml")]
    promtool = [binary("promtool"), "check", "config", "--syntax-only", str(MONITORING / "prometheus/prometheus.yml")]
    blackbox = [binary("prometheus-blackbox-exporter"), "--config.check"]
    blackbox += [f"--config.file={MONITORING / 'blackbox/blackbox.yml'}"]
    for command in (amtool, promtool, blackbox):
        run = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert run.returncode == 0, run.stdout + run.stderr


class Mail:
    """A mail server that keeps what it gets, from senders that know the password."""

    def __init__(self, password: str) -> None:
        self.letters: list[tuple[list[str], str]] = []
        self._password = password.encode()

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802 (aiosmtpd's name)
        content = envelope.content
        assert isinstance(content, bytes)
        self.letters.append(([str(name) for name in envelope.rcpt_tos], content.decode()))
        return "250 kept"

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=data.password == self._password)


@contextmanager
def mail_server(password: str, certificate: Path) -> Generator[tuple[Mail, int], None, None]:
    """Run a mail server that wants TLS; yields it and its port."""
    mail, port = Mail(password), free_port()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    controller = Controller(
        mail,
        "127.0.0.1",
        port,
        authenticator=mail.authenticate,
        auth_required=True,
        auth_exclude_mechanism=["LOGIN"],  # its prompts are not the ones that Alertmanager waits for
        tls_context=tls,
        require_starttls=True,
    )
    controller.start()
    try:
        yield mail, port
    finally:
        controller.stop()


@contextmanager
def web_sink() -> Generator[tuple[list[tuple[str, str, Any]], int], None, None]:
    """Run a web server that keeps (path, Authorization, JSON body) of every POST."""
    kept: list[tuple[str, str, Any]] = []

    class Sink(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            kept.append((self.path, self.headers.get("Authorization", ""), body))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base's name)
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield kept, server.server_address[1]
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


@pytest.mark.timeout(120)
async def test_loss_is_told_by_mail_and_to_slack(tmp_path: Path, dsn: str, redis_url: str) -> None:
    """Events that a producer dropped: PostgreSQL, exporter, rule, route, mail and Slack; the watchdog beside it."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    token = "a-token-of-the-test"
    certificate = make_certificate(tmp_path)
    with mail_server("a-password", certificate) as (mail, smtp), web_sink() as (posts, sink):
        for name, text in {
            "smtp_password": "a-password",
            "slack_url": f"http://127.0.0.1:{sink}/slack",
            "watchdog_token": "a-watchdog-token",
            "exporter_token": token,
        }.items():
            (secrets / name).write_text(text)
        settings = {"STREAMGAUGE_EXPORTER_TOKEN": token, "SSL_CERT_FILE": str(certificate)}
        alertmanager, prometheus = free_port(), free_port()
        changes = {
            "mail:587": f"127.0.0.1:{smtp}",
            "/run/secrets": str(secrets),
            "/etc/alertmanager/templates": str(MONITORING / "alertmanager/templates"),
            "https://watchdog.example.org/streamgauge": f"http://127.0.0.1:{sink}/watchdog",
            "group_wait: 30s": "group_wait: 1s",
            "group_wait: 10s": "group_wait: 1s",
        }
        with Pipeline(tmp_path, dsn, redis_url, **settings) as pipeline:
            start_alertmanager(pipeline, alertmanager, changes)
            changes = FASTER | {
                "/etc/prometheus/rules": str(MONITORING / "prometheus/rules"),
                '"alertmanager:9093"': f'"127.0.0.1:{alertmanager}"',
                '"exporter:9464"': f'"127.0.0.1:{pipeline.port}"',
                "/run/secrets": str(secrets),
            }
            start_prometheus(pipeline, prometheus, changes)
            pipeline.exporter()
            async with writer(dsn) as rows:
                number = await rows.producer("reference", dropped='{"queue_full": 1}')
                assert wait_until(lambda: dropped_at(prometheus) == 1, 30), pipeline.log("prometheus").read_text()
                await rows.connection.execute(DROP_MORE, number)
            assert wait_until(lambda: any("on-call@example.org" in to for to, _ in mail.letters), 60), posts
            assert wait_until(lambda: {"/slack", "/watchdog"} <= {path for path, _, _ in posts}, 30), posts
    letter = next(text for _, text in mail.letters if "EventsDropped" in text)
    assert "Subject: [FIRING" in letter
    assert "reference dropped" in letter
    assert "docs/runbooks/pipeline.md#eventsdropped" in letter
    told = next(body for path, _, body in posts if path == "/slack" and "EventsDropped" in json.dumps(body))
    assert told["channel"] == "#streamgauge"
    assert ("/watchdog", "Bearer a-watchdog-token") in {(path, access) for path, access, _ in posts}


DROP_MORE = """UPDATE producers SET dropped = '{"queue_full": 40}' WHERE producer_no = $1"""


def dropped_at(port: int) -> float:
    """Return what Prometheus knows of dropped events."""
    _, body = get(port, "/api/v1/query?query=sum(streamgauge_dropped_events_total)")
    found = json.loads(body or b"{}").get("data", {}).get("result", [])
    return float(found[0]["value"][1]) if found else 0.0
