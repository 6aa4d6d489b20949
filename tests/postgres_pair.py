"""PostgreSQL over TCP, of either version at hand, with a standby that streams: what a test of failover needs.

In: a version and a folder. Out: running servers on ports of the loopback network, without TLS and without passwords.
Promise: `close` leaves no process; a killed server can be opened again with its data.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from database.migrate import migrate
from streamgauge import processes
from streamgauge.embedded import (
    _unprivileged as unprivileged,  # pyright: ignore[reportPrivateUsage]
)
from streamgauge.embedded import postgres_bin
from tests import debian_postgres
from tests.loading import ask

USER: Final = "streamgauge"
DATABASE: Final = "sg"
DEADLINE_S: Final = 60.0
VERSIONS: Final = ("18", "15") if debian_postgres.is_installed() else ("18",)
SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "fsync": "off",
    "full_page_writes": "off",
    "max_wal_senders": "4",
    "wal_keep_size": "256MB",
    # Seconds, so that a cut link is noticed within a test.
    "wal_retrieve_retry_interval": "200ms",
}


class Server:
    """One server. `more` are settings beside SETTINGS."""

    def __init__(self, home: Path, version: str = "18", **more: str) -> None:
        self.home = home
        self.version = version
        self.data = home / "data"
        self.log = home / "log"
        self.port = processes.free_port()
        self.settings = SETTINGS | more
        self.process: subprocess.Popen[bytes] | None = None
        self._programs = postgres_bin() if version == "18" else debian_postgres.BINARIES
        self._user, self._prefix = unprivileged([home.parent, self._programs])

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def dsn(self, database: str = DATABASE, at: str | None = None) -> str:
        """Return the address of a database; `at` names other hosts than this server's own."""
        return f"postgresql://{USER}@{at or self.address}/{database}"

    def open(self, *, wal: Path | None = None) -> None:
        """Make the data directory if there is none, start, and wait until connections are accepted."""
        self.give(self.home)
        if not self.data.exists():
            options = [] if wal is None else ["--waldir", str(wal), "--wal-segsize", "1"]
            self._run("initdb", "--no-sync", "-D", str(self.data), "--username", USER, "--auth", "trust", *options)
        settings = self.settings | {"port": str(self.port), "unix_socket_directories": str(self.home)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [str(self._programs / "postgres"), "-D", str(self.data), *options]
        until(lambda: self._starts(command), f"PostgreSQL {self.version} is up")

    def open_again(self) -> None:
        """Start a server that may have ended, as its supervisor would."""
        assert self.process is not None
        if self.process.poll() is not None:
            self.open()

    def make_database(self, *, tablespace: Path | None = None) -> None:
        """Make the database with the current schema, anew if there is one."""
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "--maintenance-db", "postgres"]
        self._run("dropdb", *where, "--force", "--if-exists", DATABASE)
        options = []
        if tablespace is not None:
            self._run("psql", "-X", self.dsn("postgres"), "-c", f"CREATE TABLESPACE small LOCATION '{tablespace}'")
            options = ["--tablespace", "small"]
        self._run("createdb", *where, *options, DATABASE)
        run_alone(migrate(self.dsn()))

    def standby(self, home: Path, through: int, *, port: int | None = None, **more: str) -> "Server":
        """Return a running standby that streams from this server through a port; `port` is its own, if it matters."""
        made = Server(home, self.version, **more)
        made.port = port or made.port
        made.give(home)
        source = f"host=127.0.0.1 port={through} user={USER} application_name=standby"
        self._run("pg_basebackup", "-d", source, "-c", "fast", "-X", "stream", "--no-sync", "-R", "-D", str(made.data))
        made.open()
        return made

    def kill(self) -> None:
        """Kill -9 of the postmaster; its backends notice and end, and only then does this return."""
        children = [str(p) for p in self.backends()]
        self.end(signal.SIGKILL)
        until(lambda: not any(Path("/proc", pid).exists() for pid in children), "backends ended")

    def end(self, how: signal.Signals) -> None:
        """Signal the postmaster and wait until it is gone."""
        if self.process is not None:
            processes.stop(self.process, how, DEADLINE_S)
            self.process = None

    def close(self) -> None:
        """Stop at once."""
        self.end(signal.SIGQUIT)

    def backends(self) -> list[int]:
        """Return the pids of the postmaster's children."""
        assert self.process is not None
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in pids.split()]

    def sql(self, query: str, database: str = DATABASE) -> Any:
        """Return the first value of a query; None while the server is away."""
        return ask(self.dsn(database), query)

    def psql(self, text: str) -> subprocess.Popen[bytes]:
        """Begin statements, in one transaction, as a client of their own."""
        command = [str(self._programs / "psql"), "-Xq", "-v", "ON_ERROR_STOP=1", self.dsn(), "-c", text]
        return subprocess.Popen([*self._prefix, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a process as the server's user."""
        user = None if self._prefix else self._user
        return processes.start([*self._prefix, *command], log, user=user, death_signal=signal.SIGQUIT)

    def _starts(self, command: list[str]) -> bool:
        """Start, unless backends of a killed predecessor are still attached: False then."""
        said = self.log.stat().st_size if self.log.exists() else 0
        started = self.process = self.start(command, self.log)
        until(lambda: started.poll() is not None or self._is_ready(), "PostgreSQL starts or ends")
        if started.poll() is None:
            return True
        with self.log.open("rb") as log:
            log.seek(said)
            text = log.read().decode()
        assert "shared memory" in text, text
        return False

    def _is_ready(self) -> bool:
        file = self.data / "postmaster.pid"
        lines = file.read_text().splitlines() if file.exists() else []
        return (
            self.process is not None
            and len(lines) >= 8
            and lines[7].strip() in ("ready", "standby")
            and lines[0].strip() == str(self.process.pid)
        )

    def give(self, path: Path) -> None:
        """Make a folder, if it is not there, and give it to the server's user."""
        path.mkdir(mode=0o711, parents=True, exist_ok=True)
        if self._user is not None:
            os.chown(path, *self._user)

    def _run(self, tool: str, *arguments: str) -> None:
        done = subprocess.run(
            [*self._prefix, str(self._programs / tool), *arguments],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            cwd="/",
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
            user=None if self._prefix or self._user is None else self._user[0],
            group=None if self._prefix or self._user is None else self._user[1],
        )
        assert done.returncode == 0, f"{tool}: {done.stderr}"


def run_alone(work: Coroutine[Any, Any, object]) -> None:
    """Run a coroutine to its end, in a loop of its own even where another one runs."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result(DEADLINE_S)


def until(holds: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> float:
    """Wait for a condition; returns how long it took (seconds)."""
    began = time.monotonic()
    assert processes.wait_until(holds, deadline_s), f"waited {deadline_s:.0f} s: {what}"
    return time.monotonic() - began


@contextmanager
def home() -> Generator[Path, None, None]:
    """A short folder that servers of other users may pass through; removed at the end."""
    made = Path(f"/tmp/sg-pair-{processes.free_port()}")
    made.mkdir(mode=0o711)
    made.chmod(0o711)
    try:
        yield made
    finally:
        shutil.rmtree(made)
