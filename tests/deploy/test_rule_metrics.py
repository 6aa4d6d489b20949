"""Every metric that an alert rule or a dashboard reads is seen in a scrape of the real thing, or listed and why.

Real: aggregator, exporter, reference API with traffic, PostgreSQL, a Redis with replica and Sentinel, and Debian's
exporters of them, scraped by Prometheus with our configuration. Another version of an exporter may name things
otherwise: this is what the rules were tried with.
"""

import json
import re
import subprocess
import sys
import urllib.parse
from collections.abc import Iterable
from pathlib import Path

import asyncpg
import pytest
import yaml

from streamgauge.embedded import PostgresServer, RedisServer
from streamgauge.processes import free_port, wait_until
from streamgauge.stack import answers, get
from tests.composed import command, compose, settings
from tests.exporting import writer
from tests.pipeline import Pipeline
from tests.watching import FASTER, MONITORING, binary, make_certificate, start_alertmanager, start_prometheus

UNSEEN = {
    "ALERTS": "Prometheus's own, of alerts that fire",
    "streamgauge_recommendations": "only where one is made",
    "streamgauge_replica_lag_seconds": "needs a PostgreSQL replica: seen in test_monitor",
}
WORDS = """and or unless on by bool offset group_left sum max min count rate increase deriv changes time vector absent
    histogram_quantile avg_over_time max_over_time min_over_time predict_linear label_replace topk"""
"""Of PromQL, as far as our rules use it."""


def metrics_of(expression: str) -> set[str]:
    """Return the names of metrics in an expression."""
    text = re.sub(r'"[^"]*"', "", expression)
    text = re.sub(r"\{[^}]*\}|\b(by|on|group_left)\s*\([^)]*\)|\[[^\]]*\]|\boffset\s+\w+", " ", text)
    return set(re.findall(r"(?<![\w.:])[a-zA-Z_:][\w:]*", text)) - set(WORDS.split())


def expressions() -> set[str]:
    """Return every PromQL expression of the dashboards."""
    found: set[str] = set()
    for path in (MONITORING / "grafana/dashboards").glob("*.json"):
        targets = [target for panel in json.loads(path.read_text())["panels"] for target in panel["targets"]]
        found |= {target["expr"] for target in targets if target["datasource"]["uid"] == "prometheus"}
    return found


def read_by_us() -> set[str]:
    """Return every metric that a rule or a dashboard reads and no rule records."""
    read = {name for expression in expressions() for name in metrics_of(expression)}
    recorded: set[str] = set()
    for path in (MONITORING / "prometheus/rules").glob("*.yml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                read |= metrics_of(rule["expr"])
                recorded |= {rule["record"]} if "record" in rule else set()
    return read - recorded


def test_names_are_found_in_expressions() -> None:
    found = metrics_of('sum by (a_b) (rate(x_total{c="d_e"}[5m])) > on (f) group_left () 0.8 * max(y) offset 1d')
    assert found == {"x_total", "y"}
    assert len(read_by_us()) > 50


def known_to(prometheus: int) -> set[str]:
    """Return the names that Prometheus has seen."""
    status, body = get(prometheus, "/api/v1/label/__name__/values")
    return set(json.loads(body)["data"]) if status == 200 else set()


@pytest.mark.timeout(180)
async def test_every_metric_that_is_read_is_scraped(
    tmp_path: Path, dsn: str, postgres_server: PostgresServer, redis_server: RedisServer
) -> None:
    wanted = read_by_us() - UNSEEN.keys()
    redis_url = f"redis://127.0.0.1:{redis_server.port}"
    async with writer(dsn) as rows:
        await rows.producer("reference", dropped='{"queue_full": 1}')
        await rows.connection.execute(QUARANTINED)
        await rows.connection.execute(PARKED)
        await rows.connection.execute("SELECT pg_create_physical_replication_slot('seen', true)")
    try:
        with Pipeline(tmp_path, dsn, redis_url) as pipeline:
            api = start_services(pipeline)
            targets = start_exporters(pipeline, dsn, redis_server.port) | {"api": api}
            prometheus = free_port()
            start_prometheus(pipeline, prometheus, FASTER | scrapes(pipeline, prometheus, targets))
            seen = wait_until(lambda: wanted <= known_to(prometheus), 60)
            assert seen, sorted(wanted - known_to(prometheus))
            surprising = UNSEEN.keys() & known_to(prometheus) - {"ALERTS"}
            assert not surprising, "listed as unseen, and seen"
    finally:
        connection = await asyncpg.connect(dsn, timeout=10)
        await connection.execute("SELECT pg_drop_replication_slot('seen')")
        await connection.close(timeout=10)


QUARANTINED = "INSERT INTO tallies (name, value) VALUES ('quarantined:checksum', 1)"
PARKED = """INSERT INTO parked (shard, stream_id, reason, version, producer_id, seq, events, payload)
    VALUES (0, '1-0', 'unknown_history', 1, gen_random_uuid(), 1, 1, '')"""


def start_services(pipeline: Pipeline) -> int:
    """Start the pipeline, set as the compose file sets it, with an API replica under traffic (its port); run jobs."""
    services = compose()["services"]
    for name in ("aggregator", "exporter"):
        pipeline.env |= settings(services[name])
    pipeline.env["STREAMGAUGE_EXPORTER_HOST"] = "127.0.0.1"  # without a token it serves nobody else
    pipeline.aggregator()
    pipeline.exporter()
    port = free_port()
    api = (sys.executable, "-m", "uvicorn", "producers.api:app", "--port", str(port))
    pipeline.start("emitter-api", *api, env=settings(services["api-1"]))
    assert wait_until(answers(port, "/healthz"), 30), pipeline.log("emitter-api").read_text()
    url = f"http://127.0.0.1:{port}"
    pipeline.start("emitter-traffic", sys.executable, "-m", "producers.traffic", "--url", url, "--rate", "300")
    for job in ("run_optimization", "recalibrate_thresholds"):
        asked = [sys.executable, "-m", "streamgauge", "jobs", "run", job, "--wait"]
        run = subprocess.run(asked, env=pipeline.env, capture_output=True, text=True, timeout=90)
        assert run.returncode == 0, run.stdout + run.stderr
    return port


def start_exporters(pipeline: Pipeline, dsn: str, redis: int) -> dict[str, int]:
    """Start Debian's exporters, a replica and a Sentinel; return their ports by the names they have in our file."""
    folder, ports = pipeline.folder, {name: free_port() for name in NAMES}
    sentinel = folder / "sentinel.conf"
    sentinel.write_text(f"port {ports['sentinel']}\nbind 127.0.0.1\nsentinel monitor m 127.0.0.1 {redis} 1\n")
    replica = ("--port", str(ports["replica"]), "--save", "", "--dir", str(folder))
    pipeline.start("replica", binary("redis-server"), *replica, "--replicaof", "127.0.0.1", str(redis))
    pipeline.start("sentinel", binary("redis-sentinel"), str(sentinel))
    listen = {name: f"--web.listen-address=127.0.0.1:{port}" for name, port in ports.items()}
    queries = f"--extend.query-path={MONITORING / 'postgres-exporter/queries.yml'}"
    quiet = ("--disable-default-metrics", "--disable-settings-metrics", "--no-collector.bgwriter")
    source = {"DATA_SOURCE_NAME": libpq(dsn)}
    postgres = (binary("prometheus-postgres-exporter"), queries, *quiet, listen["postgres"])
    pipeline.start("postgres", *postgres, env=source)
    options = [word for word in command(compose()["services"]["redis-exporter"]) if "password" not in word]
    pipeline.start("redis", binary("prometheus-redis-exporter"), *options, listen["redis"].replace("--web", "-web"))
    pipeline.start("node", binary("prometheus-node-exporter"), listen["node"])
    start_edge(pipeline, ports, listen["blackbox"])
    secrets = {"/run/secrets": str(folder), "/etc/alertmanager/templates": str(MONITORING / "alertmanager/templates")}
    for name in ("smtp_password", "slack_url", "watchdog_token"):
        (folder / name).write_text("http://127.0.0.1:9/")
    start_alertmanager(pipeline, ports["alertmanager"], secrets)
    return ports | {"master": redis}


NAMES = ("postgres", "redis", "replica", "sentinel", "node", "blackbox", "alertmanager", "edge")

EDGE = """
import http.server, ssl, sys
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)
tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
tls.load_cert_chain(sys.argv[2])
server.socket = tls.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def start_edge(pipeline: Pipeline, ports: dict[str, int], listen: str) -> None:
    """Start a server with TLS in nginx's place and the prober that looks at it."""
    certificate = make_certificate(pipeline.folder)
    pipeline.start("edge", sys.executable, "-c", EDGE, str(ports["edge"]), str(certificate))
    text = (
        (MONITORING / "blackbox/blackbox.yml").read_text().replace("server_name: localhost", "server_name: 127.0.0.1")
    )
    config = pipeline.folder / "blackbox.yml"
    config.write_text(text.replace("/etc/streamgauge/tls/ca.crt", str(certificate)))
    pipeline.start("blackbox", binary("prometheus-blackbox-exporter"), f"--config.file={config}", listen)


def libpq(dsn: str) -> str:
    """Return a DSN as postgres_exporter takes it: a socket's folder stands in the query."""
    parts = urllib.parse.urlsplit(dsn)
    options = urllib.parse.parse_qs(parts.query)
    host = options.get("host", [parts.hostname or ""])[0]
    user = parts.username or options.get("user", ["postgres"])[0]
    port = parts.port or options.get("port", ["5432"])[0]
    access = f"user={user} password={parts.password or 'none'}"
    return f"{access} host={host} port={port} dbname={parts.path[1:]} sslmode=disable"


def scrapes(pipeline: Pipeline, prometheus: int, targets: dict[str, int]) -> dict[str, str]:
    """Return what differs from our file: where things are, and no token."""

    def local(*names: str, scheme: str = "") -> str:
        return ", ".join(f'"{scheme}127.0.0.1:{targets[name]}"' for name in names)

    token = "    authorization: { credentials_file: /run/secrets/exporter_token }\n"
    lookup = "dns_sd_configs: [{ names: [exporter], type: A, port: 9464 }]"
    return {
        "/etc/prometheus/rules": str(MONITORING / "prometheus/rules"),
        token: "",
        lookup: f'static_configs: [{{ targets: ["127.0.0.1:{pipeline.port}"] }}]',
        '"exporter:9464"': f'"127.0.0.1:{pipeline.port}"',
        '"alertmanager:9093"': local("alertmanager"),
        _listed("postgres-exporter-{}:9187", "primary", "replica-1", "replica-2"): local("postgres"),
        _listed("redis://metrics@redis-{}:6379", "1", "2", "3"): local("master", "replica", scheme="redis://"),
        '"redis://metrics@redis-cache:6379"': local("master", scheme="redis://"),
        _listed("redis://metrics@sentinel-{}:26379", "1", "2", "3"): local("sentinel", scheme="redis://"),
        "redis-exporter:9121": f"127.0.0.1:{targets['redis']}",
        "blackbox:9115": f"127.0.0.1:{targets['blackbox']}",
        '"https://nginx:8443/healthz"': local("edge", scheme="https://"),
        '"nginx:8443"': local("edge"),
        _listed("http://api-{}:8000/readyz", "1", "2", "3", "4", "5"): f'"http://127.0.0.1:{targets["api"]}/readyz"',
        '"node-exporter:9100"': local("node"),
        '"localhost:9090"': f'"127.0.0.1:{prometheus}"',
    }


def _listed(text: str, *names: Iterable[str]) -> str:
    return ", ".join(f'"{text.format(name)}"' for name in names)
