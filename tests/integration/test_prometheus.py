"""The real Prometheus scrapes the exporter while the pipeline works and its services restart."""

import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from streamgauge.processes import free_port, wait_until
from streamgauge.stack import answers, get
from tests.pipeline import Pipeline

pytestmark = pytest.mark.timeout(240)

EMITTER = """
import time, producers
from streamgauge import Counter, Gauge, Histogram
requests = Counter("shop_requests_total", "Requests.", ["route"]).labels("/cart")
latency = Histogram("shop_latency_seconds", "Latency.", ["route"], buckets=(0.1, 0.5, 1.0)).labels("/cart")
waiting = Gauge("shop_waiting", "Waiting.", merge="sum")
n = 0
while True:
    n += 1
    requests.inc(); latency.observe(n % 13 / 10); waiting.set(n % 7)
    time.sleep(0.002)
"""

CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: streamgauge
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def binary(name: str) -> str:
    """Find a program of Debian's prometheus package; CI installs it, so that its absence is a failure."""
    found = shutil.which(name)
    assert found, f"{name} is not installed: apt-get install prometheus"
    return found


class Prometheus:
    """The server's HTTP API."""

    def __init__(self, port: int) -> None:
        self.port = port

    def query(self, expression: str) -> list[dict[str, Any]]:
        status, body = get(self.port, "/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        return json.loads(body)["data"]["result"] if status == 200 else []

    def value(self, expression: str) -> float | None:
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None


def start_prometheus(pipeline: Pipeline, folder: Path) -> Prometheus:
    config, port = folder / "prometheus.yml", free_port()
    config.write_text(CONFIG.format(port=pipeline.port))
    command = (
        binary("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    pipeline.start("prometheus", *command)
    assert wait_until(answers(port, "/-/ready"), 30), pipeline.log("prometheus").read_text()
    return Prometheus(port)


def eventually(condition: Callable[[], bool], what: str) -> None:
    assert wait_until(condition, 30), what


def test_prometheus_sees_no_counter_fall_over_restarts(tmp_path: Path, dsn: str, redis_url: str) -> None:
    """30 s of scrapes, exporter killed, aggregator restarted: `up` tells and comes back; no reset, no negative rate."""
    with Pipeline(tmp_path, dsn, redis_url) as pipeline:
        pipeline.aggregator()
        pipeline.exporter()
        pipeline.emitter(EMITTER)
        server = start_prometheus(pipeline, tmp_path)
        began = time.monotonic()
        eventually(lambda: (server.value("shop_requests_total") or 0) > 0, "the counter is scraped")
        for restart in (lambda: kill_exporter(pipeline, server), lambda: restart_aggregator(pipeline)):
            restart()
            before = server.value("shop_requests_total") or 0
            eventually(lambda: server.value('up{job="streamgauge"}') == 1, "up is 1 after a restart")
            eventually(lambda b=before: (server.value("shop_requests_total") or 0) > b, "the counter goes on")
        assert wait_until(lambda: time.monotonic() - began > 30, 40)
        assert server.value("sum(resets(shop_requests_total[1m]))") == 0
        assert server.value('sum(resets(shop_latency_seconds_bucket{le="+Inf"}[1m]))') == 0
        assert (server.value("min(rate(shop_requests_total[20s]))") or -1) > 0
        assert (server.value("min(min_over_time(rate(shop_latency_seconds_count[5s])[20s:1s]))") or 0) >= 0
        check_metrics(pipeline)


def kill_exporter(pipeline: Pipeline, server: Prometheus) -> None:
    pipeline.stop("exporter", signal.SIGKILL)
    eventually(lambda: server.value('up{job="streamgauge"}') == 0, "that it is gone is told")
    pipeline.exporter()


def restart_aggregator(pipeline: Pipeline) -> None:
    assert pipeline.stop("aggregator") == 0, pipeline.log("aggregator").read_text()
    pipeline.aggregator()


FIXED_NAMES = ("cache_serialization_time_ms", "database_query_time_ms", "ml_scoring_inference_time_ms")
"""Names that users of the reference application have on their dashboards; all others follow the conventions."""


def test_reference_application_is_seen_and_lint_finds_only_the_fixed_names(
    tmp_path: Path, dsn: str, redis_url: str
) -> None:
    """Real requests through the whole line: each measure is on /metrics, the derived ratios too."""
    derived = files("producers").joinpath("reference/derived.toml")
    with Pipeline(tmp_path, dsn, redis_url, STREAMGAUGE_DERIVED_FILE=str(derived)) as pipeline:
        pipeline.aggregator()
        pipeline.exporter()
        port = str(free_port())
        pipeline.start("emitter-api", sys.executable, "-m", "uvicorn", "producers.api:app", "--port", port)
        eventually(answers(int(port), "/healthz"), "the API answers")
        pipeline.start(
            "emitter-traffic", sys.executable, "-m", "producers.traffic", "--url", f"http://127.0.0.1:{port}"
        )
        watched = ('event_loop_lag_seconds_count{service="', 'process_cpu_seconds_total{service="')
        seen = (*FIXED_NAMES, *watched, "jorge_seller_bot_qualification_rate", "intent_decoder_accuracy")
        eventually(lambda: all(f"\n{name}" in pipeline.scrape() for name in seen), f"{seen} are served")
        allowed = {f"{name} metric names should not contain abbreviated units" for name in FIXED_NAMES}
        assert set(lint(pipeline).splitlines()) == allowed


def check_metrics(pipeline: Pipeline) -> None:
    """`promtool check metrics` finds nothing in what the exporter serves."""
    assert lint(pipeline) == ""


def lint(pipeline: Pipeline) -> str:
    """Return what `promtool check metrics` says of /metrics."""
    text = ""

    def scraped() -> bool:
        nonlocal text
        text = pipeline.scrape()
        return bool(text)

    eventually(scraped, "/metrics answers")
    command = [binary("promtool"), "check", "metrics"]
    found = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30, check=False)
    assert found.returncode in (0, 3), found.stdout + found.stderr  # 3: it has something to say
    return found.stdout + found.stderr
