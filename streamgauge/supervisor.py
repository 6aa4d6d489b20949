"""`streamgauge up`: starts the whole stack in order, watches it, and stops it in order.

In: the environment (which servers to use or to start, ports, home). Out: a running stack and what it prints.
Promise: whatever ends it (Ctrl-C, SIGTERM, a duration, the death of a child) leaves no process, socket or lock
file, and nothing that was committed is forgotten by the next `up`.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final, Protocol

import asyncpg

from database.connect import SCHEMA
from database.migrate import migrate
from database.queries import load
from streamgauge.embedded import DATABASE, PostgresServer, RedisServer
from streamgauge.processes import Known, StartError, last_lines, start, stop, wait_ready
from streamgauge.stack import (
    LOAD,
    READY_DEADLINE_S,
    STOP_ORDER,
    Ports,
    Service,
    names_any,
    port_setting,
    postgres_address,
    services,
)
from streamgauge.state import Child, StateFile, UpState

WATCH_S: Final = 0.2
HURRY_S: Final = 1.0
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """The user asked to stop while the stack was starting."""


class ChildDied(StartError):
    """A part of the stack ended by itself; the text holds its last log lines."""


class Server(Protocol):
    """What the embedded servers have in common."""

    log: Path
    process: subprocess.Popen[bytes] | None

    def open(self) -> None: ...
    def close(self) -> None: ...


class Supervisor:
    """One run of `up`. `say` gets each line meant for the user."""

    def __init__(self, home: Path, environ: dict[str, str], say: Callable[[str], None]) -> None:
        self.home = home
        self.environ = {"PYTHONUNBUFFERED": "1", **environ}
        self.say = say
        self.state = StateFile(home)
        self.servers: dict[str, Server] = {}
        self.children: dict[str, tuple[Service, subprocess.Popen[bytes]]] = {}
        self.addresses: dict[str, str] = {}
        self.exporter_port = 0
        self.dsn = ""
        self._asked = threading.Event()
        self._asked_again = threading.Event()

    def run(
        self,
        duration_s: float | None,
        when_ready: Callable[["Supervisor"], None],
        *,
        with_traffic: bool = True,
        with_demo: bool = False,
    ) -> None:
        """Start, call `when_ready`, watch until asked to stop, stop."""
        left = self.state.acquire()
        before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        try:
            if left is not None:
                self._end_leftovers(left)
            self._start(with_traffic=with_traffic, with_demo=with_demo)
            when_ready(self)
            self._watch(duration_s)
        except Stopped:
            self.say("stopping before everything was ready")
        finally:
            self._stop()
            self.state.release()
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raise Stopped when asked to stop, ChildDied when a part of the stack is gone."""
        if self._asked.is_set():
            raise Stopped
        for name, (_, process) in self.children.items():
            if process.poll() is not None:
                raise ChildDied(f"{name} ended with code {process.returncode}:\n{last_lines(self._log(name))}")
        for name, server in self.servers.items():
            if server.process is not None and server.process.poll() is not None:
                code = server.process.returncode
                raise ChildDied(f"{name} ended with code {code}:\n{last_lines(server.log)}")

    def wait(self, seconds: float) -> None:
        """Sleep while watching; ends early by Stopped or ChildDied."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            self._asked.wait(min(WATCH_S, left))
        self.check()

    def _watch(self, duration_s: float | None) -> None:
        with contextlib.suppress(Stopped):
            self.wait(duration_s if duration_s is not None else float("inf"))

    def _start(self, *, with_traffic: bool, with_demo: bool) -> None:
        ports = Ports.read(self.environ)
        self.exporter_port = ports.exporter
        self.dsn = self._start_servers()
        self._migrate(self.dsn, with_demo=with_demo)
        traffic, rest = split(services(self.environ, ports, self.dsn, with_traffic=with_traffic, with_demo=with_demo))
        # At once, since most of their start is loading code; the traffic only when all can take it.
        for group in (rest, traffic):
            for service in group:
                self._spawn(service)
            for service in group:
                self._await_ready(service)
        self.addresses |= {
            "page": f"http://127.0.0.1:{ports.exporter}/",
            "metrics": f"http://127.0.0.1:{ports.exporter}/metrics",
            "health": f"http://127.0.0.1:{ports.exporter}/metrics/health",
            "api": f"http://127.0.0.1:{ports.api}/docs",
            "logs": str(self.home / "logs"),
        }
        self._write()

    def _start_servers(self) -> str:
        """Start the servers that the environment does not name; returns PostgreSQL's address."""
        if not names_any(self.environ, "REDIS_URL"):
            redis = RedisServer(self.home, port_setting(self.environ, "STREAMGAUGE_REDIS_PORT", 6390))
            if not redis.is_real:
                self.say("WARNING: no Redis server found; a stand-in is used that forgets everything when it ends.")
                self.say("         For trying out only: install redis-server (6.2 or newer) to keep anything.")
            self._open("redis", redis)
            self.environ["REDIS_URL"] = self.addresses["redis"] = redis.url
        if not names_any(self.environ, "POSTGRES_DSN", "POSTGRES_HOST"):
            postgres = PostgresServer(self.home)
            self._open("postgres", postgres)
            self.environ["POSTGRES_DSN"] = self.addresses["postgres"] = postgres.dsn(DATABASE)
        return postgres_address(self.environ)

    def _open(self, name: str, server: Server) -> None:
        self.check()
        self.servers[name] = server
        server.open()
        self._write()

    def _migrate(self, dsn: str, *, with_demo: bool) -> None:
        self.check()
        for name in asyncio.run(migrate(dsn)):
            self.say(f"migrated: {name}")
        if "postgres" in self.servers:
            asyncio.run(_create_statements(dsn))
        if not with_demo and asyncio.run(drop_left_demo(dsn)):
            self.say("dropped the schema streamgauge_demo, which a demo that was killed had left")

    def _spawn(self, service: Service) -> None:
        self.check()
        log = self._log(service.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        # Where `up` itself is killed its servers end too, and a service must not wait for them to come back.
        process = start(service.command, log, env=service.env, death_signal=signal.SIGKILL)
        self.children[service.name] = (service, process)
        self._write()

    def _await_ready(self, service: Service) -> None:
        _, process = self.children[service.name]
        is_ready = self._or_stopped(service.is_ready)
        wait_ready(process, is_ready, service.name, self._log(service.name), READY_DEADLINE_S)

    def _or_stopped(self, is_ready: Callable[[], bool]) -> Callable[[], bool]:
        def asked() -> bool:
            self.check()
            return is_ready()

        return asked

    def _stop(self) -> None:
        for name in STOP_ORDER:
            if name in self.children:
                service, process = self.children.pop(name)
                deadline_s = HURRY_S if self._asked_again.is_set() else service.stop_deadline_s
                if stop(process, signal.SIGTERM, deadline_s) == -signal.SIGKILL:
                    self.say(f"{name} did not end within {deadline_s:g} s and was killed")
        for name in list(self.servers):
            self.servers.pop(name).close()

    def _end_leftovers(self, left: UpState) -> None:
        """End what an `up` that was killed left running (its children normally die with it)."""
        for child in left.children:
            if child.known().is_alive():
                self.say(f"ending {child.name} (pid {child.pid}) of an earlier run")
                number = signal.SIGINT if child.name == "postgres" else signal.SIGTERM
                child.known().stop(number, 30.0)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # A second signal while stopping means "hurry".
        (self._asked_again if self._asked.is_set() else self._asked).set()

    def _log(self, name: str) -> Path:
        return self.home / "logs" / f"{name}.log"

    def _write(self) -> None:
        processes = {name: server.process for name, server in self.servers.items()}
        processes |= {name: process for name, (_, process) in self.children.items()}
        children = [child_of(name, process.pid) for name, process in processes.items() if process is not None]
        self.state.write(UpState(child_of("up", os.getpid()), self.addresses, children))


async def _create_statements(dsn: str) -> None:
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(dsn, timeout=10, command_timeout=30)
    try:
        await connection.execute(load("create_statements"))
    finally:
        await connection.close(timeout=10)


async def drop_left_demo(dsn: str) -> bool:
    """Drop what a killed demo left and resolve what was found in it; False when there is nothing, or a demo runs."""
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
        dsn, timeout=10, command_timeout=30, server_settings={"search_path": SCHEMA}
    )
    try:
        is_left: bool = await connection.fetchval(load("demo_is_left"))
        if is_left:
            async with connection.transaction():
                await connection.execute(load("demo_drop"))
                await connection.execute(load("demo_resolve"))
        return is_left
    finally:
        await connection.close(timeout=10)


def split(found: list[Service]) -> tuple[list[Service], list[Service]]:
    """Return what makes load, and the services that must be ready before it."""
    return [s for s in found if s.name in LOAD], [s for s in found if s.name not in LOAD]


def child_of(name: str, pid: int) -> Child:
    """Describe a running process for up.json."""
    known = Known.of(pid)
    return Child(name, known.pid, known.started)
