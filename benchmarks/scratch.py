"""A scratch stack: real PostgreSQL and Redis as `streamgauge up` ships them, in a directory that is removed again.

In: nothing. Out: addresses, fresh databases, and services started as a user starts them.
Promise: fsync and the append-only file are on; no process and no file is left, whatever the benchmark did.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import asyncpg
import redis

from database.migrate import migrate
from streamgauge.embedded import DATABASE, PostgresServer, RedisServer
from streamgauge.processes import free_port, start, stop, wait_ready
from streamgauge.stack import Heartbeat, answers

READY_S: Final = 60.0
POLL_S: Final = 0.01
COMMITTED: Final = "SELECT coalesce(sum(committed_events), 0)::bigint FROM streamgauge.producers"


class Scratch:
    """Servers and services of one benchmark; a context manager."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="sgb-", dir="/tmp"))
        self.home.chmod(0o711)  # PostgreSQL runs as another user when the benchmark runs as root
        self.postgres = PostgresServer(self.home)
        self.redis = RedisServer(self.home)
        self._services: list[subprocess.Popen[bytes]] = []
        self.exporter_port = 0

    def __enter__(self) -> "Scratch":
        self.postgres.open()
        self.redis.open()
        asyncio.run(migrate(self.dsn))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in reversed(self._services):
            stop(process, signal.SIGTERM, 30.0)
        self.redis.close()
        self.postgres.close()
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def dsn(self) -> str:
        """Address of the database."""
        return self.postgres.dsn(DATABASE)

    @property
    def environ(self) -> dict[str, str]:
        """Environment of every service of this stack: nothing of the caller's own settings."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("STREAMGAUGE_", "POSTGRES_", "REDIS_", "PG"))}
        return {
            **kept,
            "REDIS_URL": self.redis.url,
            "POSTGRES_DSN": self.dsn,
            "STREAMGAUGE_HOME": str(self.home / "none"),
            "PYTHONUNBUFFERED": "1",
        }

    def client(self) -> Any:
        """Return a client of the Redis; bytes in, bytes out."""
        return redis.Redis.from_url(self.redis.url, protocol=2, socket_timeout=60)

    def start(
        self, name: str, command: list[str], ready: Callable[[], bool], env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a service and wait until it is ready; it is stopped at the end."""
        log = self.home / "logs" / f"{name}.log"
        process = start(command, log, env={**self.environ, **(env or {})})
        self._services.append(process)
        wait_ready(process, ready, name, log, READY_S)
        return process

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Stop a service now."""
        self._services.remove(process)
        stop(process, signal.SIGTERM, 30.0)

    def aggregator(self, **settings: str) -> subprocess.Popen[bytes]:
        """Start an aggregator; it is ready when its heartbeat is in PostgreSQL."""
        command = [sys.executable, "-m", "streamgauge", "aggregate"]
        return self.start("aggregator", command, Heartbeat(self.dsn), settings)

    def exporter(self, **settings: str) -> subprocess.Popen[bytes]:
        """Start an exporter on a free port."""
        self.exporter_port = free_port()
        env = {"STREAMGAUGE_EXPORTER_PORT": str(self.exporter_port), **settings}
        command = [sys.executable, "-m", "streamgauge", "export"]
        return self.start("exporter", command, answers(self.exporter_port, "/readyz"), env)

    def log(self, name: str) -> str:
        """Return what a service has logged."""
        return (self.home / "logs" / f"{name}.log").read_text(errors="replace")


def cpu_s(pid: int) -> float:
    """Return the processor seconds (user and system) that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def committed(dsn: str) -> int:
    """Return how many events are committed."""

    async def ask() -> int:
        connection = await asyncpg.connect(dsn, timeout=10)
        try:
            return int(await connection.fetchval(COMMITTED))
        finally:
            await connection.close(timeout=10)

    return asyncio.run(ask())


def wait_committed(dsn: str, events: int, deadline_s: float = 120.0) -> None:
    """Wait until exactly `events` are committed in all; TimeoutError after the deadline."""
    asyncio.run(_wait_committed(dsn, events, deadline_s))


async def _wait_committed(dsn: str, events: int, deadline_s: float) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        end = time.monotonic() + deadline_s
        while (committed := await connection.fetchval(COMMITTED)) < events:
            if time.monotonic() > end:
                raise TimeoutError(f"{committed} of {events} events were committed within {deadline_s:g} s")
            await asyncio.sleep(POLL_S)
        assert committed == events, f"BUG: {committed} events were committed, {events} were sent"
    finally:
        await connection.close()


def wait_for(condition: Callable[[], bool], deadline_s: float, what: str, poll_s: float = 0.01) -> None:
    """Poll until `condition` holds; TimeoutError naming `what` after the deadline."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen within {deadline_s:g} s")
        time.sleep(poll_s)
