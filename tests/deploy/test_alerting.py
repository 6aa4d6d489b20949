"""Prometheus and Alertmanager from our files: routes by amtool, and alerts that are delivered by mail and to Slack.

The exporter, Prometheus and Alertmanager are real; the mail server and the Slack-shaped webhook are local sinks. What
differs from the files is in the `changes` of the test, and nothing else.
"""

import http.client
import json
import shutil
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
from tests.watching import (
    FASTER,
    MONITORING,
    binary,
    make_certificate,
    start_alertmanager,
    start_prometheus,
    substitute,
)

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


Labels = dict[str, str]


def alert(name: str, severity: str, family: str, **more: str) -> Labels:
    """Return the labels of an alert."""
    return {"alertname": name, "severity": severity, "family": family, **more}


def unknown(kind: str) -> Labels:
    return alert("ComponentUnknown", "warning", "components", kind=kind, component=f"one of {kind}")


SNAPSHOT = alert("SnapshotOld", "warning", "exporters")
INHIBITED: dict[str, tuple[Labels, list[Labels], list[Labels]]] = {
    "a warning beside the critical one of its family": (
        alert("ApiErrorBudgetFastBurn", "critical", "api-errors"),
        [alert("ApiErrorBudgetSlowBurn", "warning", "api-errors")],
        [alert("EventLoopLag", "warning", "api-latency"), alert("Other", "critical", "api-errors")],
    ),
    "the same object only": (
        alert("RedisDown", "critical", "redis", instance="redis-1"),
        [alert("RedisMemoryHigh", "warning", "redis", instance="redis-1")],
        [alert("RedisFsyncDelayed", "warning", "redis", instance="redis-2")],
    ),
    "one node of PostgreSQL explains what is said of PostgreSQL": (
        alert("PostgresDown", "critical", "postgres-node", instance="postgres-exporter-replica-1:9187"),
        [unknown("replicas"), unknown("database")],
        [unknown("streams"), SNAPSHOT],
    ),
    "without a primary nobody knows anything": (
        alert("PostgresNotOnePrimary", "critical", "postgres-primary"),
        [unknown("streams"), SNAPSHOT],
        [alert("ComponentDown", "critical", "components")],
    ),
    "without an aggregator nothing is committed": (
        alert("AggregatorsMissing", "critical", "aggregators"),
        [alert("CommitsStalled", "critical", "commits"), alert("StreamBacklogGrows", "warning", "backlog")],
        [alert("EventsLost", "critical", "loss")],
    ),
}
"""What fires; what it explains, so that nobody is told of it; what is told all the same."""


@pytest.mark.parametrize("why", INHIBITED)
def test_an_alert_that_another_explains_is_inhibited_and_no_other(why: str, tmp_path: Path) -> None:
    source, explained, told = INHIBITED[why]
    port = free_port()
    with Pipeline(tmp_path, "postgresql://nobody@127.0.0.1:1/none", "redis://127.0.0.1:1") as pipeline:
        for name in ("smtp_password", "slack_url", "watchdog_token"):
            (tmp_path / name).write_text("http://127.0.0.1:9/")
        templates = str(MONITORING / "alertmanager/templates")
        changes = {"/run/secrets": str(tmp_path), "/etc/alertmanager/templates": templates}
        start_alertmanager(pipeline, port, changes)
        post_alerts(port, [source, *explained, *told])
        wanted = [one["alertname"] + one.get("kind", "") for one in explained]
        assert wait_until(lambda: inhibited(port) >= set(wanted), 20), inhibited(port)
        assert inhibited(port) == set(wanted)


def inhibited(port: int) -> set[str]:
    """Return which alerts are told to nobody, by name and kind."""
    _, body = get(port, "/api/v2/alerts")
    silent = [one["labels"] for one in json.loads(body) if one["status"]["inhibitedBy"]]
    return {labels["alertname"] + labels.get("kind", "") for labels in silent}


def post_alerts(port: int, alerts: list[Labels]) -> None:
    """Tell Alertmanager of alerts, as Prometheus would."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    body = json.dumps([{"labels": labels} for labels in alerts])
    connection.request("POST", "/api/v2/alerts", body, {"Content-Type": "application/json"})
    assert connection.getresponse().status == 200
    connection.close()


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
async def test_loss_is_told_by_mail_and_to_slack_and_escalated(tmp_path: Path, dsn: str, redis_url: str) -> None:
    """Events that a producer dropped: PostgreSQL, exporter, rule, route, mail and Slack; the watchdog beside it.

    What nobody ends is told to the second address: after 30 minutes, which are made 2 seconds here.
    """
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
            rules = tmp_path / "rules"
            shutil.copytree(MONITORING / "prometheus/rules", rules)
            substitute(rules / "meta.yml", rules, {f"for: 30m{ESCALATES}": f"for: 2s{ESCALATES}"})
            changes = FASTER | {
                "/etc/prometheus/rules": str(rules),
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
            lead = "on-call-lead@example.org"
            assert wait_until(lambda: any(lead in to for to, _ in mail.letters), 60), mail.letters
            assert wait_until(lambda: {"/slack", "/watchdog"} <= {path for path, _, _ in posts}, 30), posts
    letter = next(text for to, text in mail.letters if "on-call@example.org" in to)
    assert "Subject: [FIRING" in letter
    assert "reference dropped" in letter
    assert "docs/runbooks/pipeline.md#eventsdropped" in letter
    escalated = next(text for to, text in mail.letters if lead in to)
    assert "Subject: ESCALATION: [FIRING" in escalated
    assert "EventsDropped fires for 30 minutes and nobody has ended it" in escalated
    told = next(body for path, _, body in posts if path == "/slack" and "EventsDropped" in json.dumps(body))
    assert told["channel"] == "#streamgauge"
    assert ("/watchdog", "Bearer a-watchdog-token") in {(path, access) for path, access, _ in posts}


ESCALATES = '\n        labels: { severity: critical, escalation: "2" }'
DROP_MORE = """UPDATE producers SET dropped = '{"queue_full": 40}' WHERE producer_no = $1"""


def dropped_at(port: int) -> float:
    """Return what Prometheus knows of dropped events."""
    _, body = get(port, "/api/v1/query?query=sum(streamgauge_dropped_events_total)")
    found = json.loads(body or b"{}").get("data", {}).get("result", [])
    return float(found[0]["value"][1]) if found else 0.0
