"""A whole pipeline for tests: aggregators, an exporter and emitters as real processes on given servers.

Promise: `close` ends every process; logs stay beside each other in one folder for a failing test to show.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from streamgauge import processes
from streamgauge.stack import answers, get

START_DEADLINE_S = 60.0


class Pipeline:
    """Processes of one pipeline, by name."""

    def __init__(self, folder: Path, dsn: str, redis_url: str, **settings: str) -> None:
        self.folder = folder
        self.port = processes.free_port()
        mine = ("STREAMGAUGE_", "POSTGRES_", "REDIS_URL")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
        self.env |= {
            "REDIS_URL": redis_url,
            "POSTGRES_DSN": dsn,
            "STREAMGAUGE_EXPORTER_PORT": str(self.port),
        } | settings
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start(self, name: str, *command: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a process of this pipeline; its output goes to `<name>.log`."""
        process = processes.start(command, self.log(name), env={**self.env, **(env or {})})
        self.processes[name] = process
        return process

    def aggregator(self, name: str = "aggregator", **settings: str) -> subprocess.Popen[bytes]:
        """Start an aggregator and wait until it reads its shards."""
        process = self.start(name, sys.executable, "-m", "streamgauge", "aggregate", env=settings)
        said = self.log(name)
        self._wait(process, lambda: "shard_started" in said.read_text() or bool(settings), name)
        return process

    def exporter(self) -> subprocess.Popen[bytes]:
        """Start the exporter and wait until it can serve."""
        process = self.start("exporter", sys.executable, "-m", "streamgauge", "export")
        self._wait(process, answers(self.port, "/readyz"), "exporter")
        return process

    def emitter(self, source: str, name: str = "emitter", **settings: str) -> subprocess.Popen[bytes]:
        """Run Python source in a process of its own."""
        return self.start(name, sys.executable, "-c", source, env=settings)

    def scrape(self) -> str:
        """Return /metrics, or nothing when it is not served now."""
        status, body = get(self.port, "/metrics")
        return body.decode() if status == 200 else ""

    def log(self, name: str) -> Path:
        """Return where a process logs."""
        return self.folder / f"{name}.log"

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM, deadline_s: float = 30.0) -> int:
        """End a process and return its exit code."""
        return processes.stop(self.processes.pop(name), number, deadline_s)

    def close(self) -> None:
        """End everything, emitters first."""
        for name in sorted(self.processes, key=lambda n: ("emitter" not in n, "aggregator" not in n)):
            self.stop(name)

    def _wait(self, process: subprocess.Popen[bytes], ready: Callable[[], bool], name: str) -> None:
        processes.wait_ready(process, ready, name, self.log(name), START_DEADLINE_S)
