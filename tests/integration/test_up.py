"""`streamgauge up` as a person runs it: the whole line, twice, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from streamgauge.live import committed, scrape
from streamgauge.processes import free_port, wait_until
from streamgauge.state import read_state

READY = "stops it."
START_DEADLINE_S = 90.0

pytestmark = pytest.mark.timeout(240)


class Home:
    """A home of its own for `up`, on free ports."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.exporter_port = free_port()
        ours = {"REDIS_URL", "POSTGRES_DSN", "POSTGRES_HOST"}
        self.env = {name: value for name, value in os.environ.items() if name not in ours}
        self.env |= {
            "STREAMGAUGE_HOME": str(path),
            "STREAMGAUGE_API_PORT": str(free_port()),
            "STREAMGAUGE_EXPORTER_PORT": str(self.exporter_port),
            "STREAMGAUGE_REDIS_PORT": str(free_port()),
        }

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "streamgauge", *arguments]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=120, check=False)

    def committed(self) -> float:
        return committed(scrape(self.exporter_port))

    def leftovers(self) -> list[str]:
        """Everything that a stopped stack must not leave."""
        sockets = [str(path) for path in (self.path / "run").glob(".s.PGSQL*")]
        locks = [
            str(path) for path in (self.path / "up.json", self.path / "postgres" / "postmaster.pid") if path.exists()
        ]
        running = [
            f"{process.pid} {process.name()}"
            for process in psutil.process_iter()
            if self._is_ours(process) and process.status() != psutil.STATUS_ZOMBIE
        ]
        return sockets + locks + running

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("STREAMGAUGE_HOME") == str(self.path)
        except psutil.Error:
            return False


@contextmanager
def up(home: Home, *arguments: str) -> Generator[tuple[subprocess.Popen[str], list[str]], None, None]:
    """Run `streamgauge up` until it says that it is ready; yields it and what it said."""
    command = [sys.executable, "-m", "streamgauge", "up", *arguments]
    process = subprocess.Popen(command, env=home.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said: list[str] = []
    try:
        for line in process.stdout or []:
            said.append(line.rstrip("\n"))
            if READY in line:
                break
        assert process.poll() is None, "\n".join(said)
        yield process, said
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        said.extend(line.rstrip("\n") for line in process.stdout or [])
        process.wait(120)
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture
def home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="sg-", dir="/tmp") as path:
        Path(path).chmod(0o711)
        yield Home(Path(path) / "home")


def status(home: Home) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(home.command("status", "--json").stdout)
    return found


YOUNG = {
    "upkeep": "done",
    "audit": "done",
    "run_optimization": "done",
    "collect_metrics": "done",
    "cache_ttl": "insufficient_data",
    "recalibrate_thresholds": "insufficient_data",
}
"""How the first run of each job ends: what is judged by its history has none yet."""


def test_up_shows_live_numbers_ends_cleanly_and_resumes(home: Home) -> None:
    with up(home) as (process, said):
        text = "\n".join(said)
        lines = said[said.index("every job once:") + 1 : -1]
        assert {line.split()[0]: line.split()[1] for line in lines} == YOUNG, text
        unsure = {line.split()[0] for line in lines if "insufficient" in line}
        assert unsure == set(YOUNG) - {"upkeep", "audit"}, text
        assert f"http://127.0.0.1:{home.exporter_port}/metrics" in text
        assert "events committed so far" in text, text
        found = status(home)
        assert found["ready"], found
        assert set(found["processes"]) == {"redis", "postgres", "aggregator", "exporter", "api", "traffic"}
        assert home.command("up").returncode == 1, "a second `up` in one home is refused"
        before = home.committed()
        assert before > 0
    assert process.returncode == 0, "\n".join(said)
    assert home.leftovers() == []
    with up(home, "--no-traffic") as (process, said):
        assert home.committed() >= before, "totals of the first run"
        assert home.command("down").returncode == 0
        assert process.wait(30) == 0
    assert home.leftovers() == []


def test_up_stops_by_itself_after_its_duration(home: Home) -> None:
    done = home.command("up", "--no-traffic", "--duration", "0.5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert home.leftovers() == []


def test_killed_up_takes_everything_with_it_and_the_next_goes_on(home: Home) -> None:
    with up(home) as (process, _):
        before = home.committed()
        process.kill()
        process.wait(10)
    state = read_state(home.path)
    assert state is not None
    assert wait_until(lambda: not any(child.known().is_alive() for child in state.children), 30)
    with up(home, "--no-traffic") as (process, said):
        assert home.committed() >= before
    assert process.returncode == 0, "\n".join(said)
    assert home.leftovers() == []


def test_dead_service_ends_up_with_its_last_words(home: Home) -> None:
    with up(home, "--no-traffic") as (process, said):
        state = read_state(home.path)
        assert state is not None
        os.kill(next(child.pid for child in state.children if child.name == "aggregator"), signal.SIGKILL)
        assert process.wait(60) == 1
    assert any("aggregator ended with code -9" in line for line in said)
    assert home.leftovers() == []
