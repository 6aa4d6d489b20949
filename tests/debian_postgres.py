"""PostgreSQL 15 as Debian ships it, private and on a unix socket: the oldest version and the one with HypoPG.

In: a base directory. Out: a running server with pg_stat_statements loaded; `dsn(database)`.
Promise: `close` leaves no process and no file.
"""

import os
import pwd
import signal
import subprocess
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote

BINARIES: Final = Path("/usr/lib/postgresql/15/bin")
SUPERUSER: Final = "streamgauge"
DEADLINE_S: Final = 60.0
SETTINGS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0777",
    "shared_preload_libraries": "pg_stat_statements",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "fsync": "off",
    "full_page_writes": "off",
    "track_io_timing": "on",
    "autovacuum": "off",
    "wal_level": "logical",
    "max_prepared_transactions": "10",
}


def is_installed() -> bool:
    """Whether the package postgresql-15 is there."""
    return (BINARIES / "postgres").exists()


class DebianPostgres:
    """One server; PostgreSQL refuses to run as root, so root starts it as `postgres`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.data = home / "data"
        self.log = home / "postgres.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._user = "postgres" if os.geteuid() == 0 else None

    def dsn(self, database: str = "postgres") -> str:
        """Return the address of a database."""
        return f"postgresql://{SUPERUSER}@/{database}?host={quote(str(self.home), safe='')}"

    def open(self) -> None:
        """Make the data directory if there is none, start, and wait until it accepts connections."""
        if not self.data.exists():
            self._make_home()
            options = ["--username", SUPERUSER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8"]
            self._run("initdb", "--no-sync", "-D", str(self.data), *options)
        settings = {**SETTINGS, "unix_socket_directories": str(self.home)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(BINARIES / "postgres"), "-D", str(self.data), *options],
                stdout=log,
                stderr=log,
                user=self._user,
                group=self._user,
                extra_groups=None if self._user is None else [],
            )
        self._wait_ready()

    def standby(self, home: Path) -> "DebianPostgres":
        """Return a running standby that streams from this server."""
        made = DebianPostgres(home)
        made._make_home()
        source = ["-h", str(self.home), "-U", SUPERUSER, "--checkpoint", "fast", "--wal-method", "stream"]
        self._run("pg_basebackup", *source, "--no-sync", "--write-recovery-conf", "-D", str(made.data))
        made.open()
        return made

    def _make_home(self) -> None:
        self.home.mkdir(mode=0o711, parents=True, exist_ok=True)
        if os.geteuid() == 0:
            postgres = pwd.getpwnam("postgres")
            os.chown(self.home, postgres.pw_uid, postgres.pw_gid)

    def close(self) -> None:
        """Stop at once; clients are not waited for."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End as a crash would: SIGQUIT, so that its backends end too."""
        self._end(signal.SIGQUIT)

    def create_database(self, name: str) -> None:
        """CREATE DATABASE."""
        self._run("createdb", "-h", str(self.home), "-U", SUPERUSER, "--maintenance-db", "postgres", name)

    def drop_database(self, name: str) -> None:
        """DROP DATABASE, closing its connections."""
        self._run("dropdb", "-h", str(self.home), "-U", SUPERUSER, "--maintenance-db", "postgres", "--force", name)

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(DEADLINE_S)
            self.process = None

    def _wait_ready(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + DEADLINE_S
        pid_file = self.data / "postmaster.pid"
        while True:
            assert self.process.poll() is None, f"PostgreSQL 15 did not start:\n{self.log.read_text()}"
            lines = pid_file.read_text().splitlines() if pid_file.exists() else []
            if len(lines) >= 8 and lines[7].strip() == "ready" and lines[0].strip() == str(self.process.pid):
                return
            assert time.monotonic() < deadline, f"PostgreSQL 15 is not ready:\n{self.log.read_text()}"
            time.sleep(0.05)

    def _run(self, tool: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(BINARIES / tool), *arguments],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            user=self._user,
            group=self._user,
            extra_groups=None if self._user is None else [],
        )
        assert done.returncode == 0, f"{tool}: {done.stderr}"
