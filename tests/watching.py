"""Prometheus and Alertmanager from our files, for tests: a copy with visible substitutions, started on loopback.

Promise: each text that is replaced occurs in our file; what is not replaced is ours.
"""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from streamgauge.processes import wait_until
from streamgauge.stack import answers
from tests.pipeline import Pipeline

ROOT = Path(__file__).parents[1]
MONITORING = ROOT / "monitoring"

FASTER = {
    "scrape_interval: 15s": "scrape_interval: 1s",
    "scrape_timeout: 10s": "scrape_timeout: 1s",
    "evaluation_interval: 15s": "evaluation_interval: 1s",
}


def substitute(path: Path, folder: Path, changes: Mapping[str, str]) -> Path:
    """Write a copy of one of our files with what a test must change; each text must occur."""
    text = path.read_text()
    for ours, theirs in changes.items():
        assert ours in text, f"{path.name} has no {ours!r} any more"
        text = text.replace(ours, theirs)
    found = folder / path.name
    found.write_text(text)
    return found


def binary(name: str) -> str:
    """Find a program of Debian's; CI installs it, so that its absence is a failure."""
    found = shutil.which(name)
    assert found, f"{name} is not installed"
    return found


def make_certificate(folder: Path) -> Path:
    """Make a certificate of 127.0.0.1 that signs itself; the file holds certificate and key."""
    key, certificate = folder / "own.key", folder / "own.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -keyout {key} -out {certificate}"
    options = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command.split(), *options], check=True, capture_output=True, timeout=30)
    certificate.write_text(certificate.read_text() + key.read_text())
    return certificate


def start_alertmanager(pipeline: Pipeline, port: int, changes: Mapping[str, str]) -> None:
    """Start it with its file changed so."""
    folder = pipeline.folder
    config = substitute(MONITORING / "alertmanager/alertmanager.yml", folder, changes)
    options = (f"--config.file={config}", f"--storage.path={folder / 'alerts'}", "--cluster.listen-address=")
    pipeline.start(
        "alertmanager", binary("prometheus-alertmanager"), *options, f"--web.listen-address=127.0.0.1:{port}"
    )
    assert wait_until(answers(port, "/-/ready"), 30), pipeline.log("alertmanager").read_text()


def start_prometheus(pipeline: Pipeline, port: int, changes: Mapping[str, str]) -> None:
    """Start it with its file changed so."""
    folder = pipeline.folder
    config = substitute(MONITORING / "prometheus/prometheus.yml", folder, changes)
    # What fires before Alertmanager is discovered is sent again after this time (1 min unless told).
    options = (f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}", "--rules.alert.resend-delay=2s")
    pipeline.start("prometheus", binary("prometheus"), *options, f"--web.listen-address=127.0.0.1:{port}")
    assert wait_until(answers(port, "/-/ready"), 30), pipeline.log("prometheus").read_text()
