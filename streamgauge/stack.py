"""What `up` runs: the services in the order of their start, each with its environment and its readiness.

In: the environment and the servers' addresses. Out: Service descriptions; nothing is started here.
Promise: a service is ready only when it answers for itself (HTTP, or its heartbeat in PostgreSQL).
"""

import asyncio
import http.client
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final
from urllib.parse import quote

import asyncpg

from database.connect import SCHEMA
from database.hosts import host_names
from database.queries import load
from database.settings import PostgresSettings, SettingsError, read_settings
from streamgauge.processes import StartError, free_port, port_is_taken

HTTP_TIMEOUT_S: Final = 5.0
READY_DEADLINE_S: Final = 60.0
HOST: Final = "127.0.0.1"


DEMO_SETTINGS: Final = {
    "STREAMGAUGE_OPTIMIZER_OPEN_AFTER_RUNS": "1",
    "STREAMGAUGE_OPTIMIZER_SHORTEST_INTERVAL_S": "30",
    "STREAMGAUGE_RUN_OPTIMIZATION_INTERVAL_S": "60",
    "STREAMGAUGE_COLLECT_METRICS_INTERVAL_S": "60",
    "STREAMGAUGE_RECALIBRATE_THRESHOLDS_INTERVAL_S": "300",
    "STREAMGAUGE_CACHE_TTL_INTERVAL_S": "300",
    "STREAMGAUGE_THRESHOLDS_FILE": str(Path(__file__).with_name("demo_thresholds.toml")),
}
"""A demo shows within minutes what takes hours otherwise; its thresholds are the shipped ones and the demo's own."""


@dataclass(frozen=True)
class Service:
    """One process of the stack; `stop_deadline_s` is how long it may take to end by itself."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    is_ready: Callable[[], bool]
    stop_deadline_s: float


@dataclass(frozen=True)
class Ports:
    """TCP ports of the services, on the loopback interface."""

    api: int
    exporter: int

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Ports":
        """Read the ports; an error names the setting that is no port, or whose port is taken."""
        return cls(
            api=_free(environ, "STREAMGAUGE_API_PORT", 8000),
            exporter=_free(environ, "STREAMGAUGE_EXPORTER_PORT", 9464),
        )


def port_setting(environ: Mapping[str, str], name: str, default: int) -> int:
    """Return a port from the environment; SettingsError names one that is none."""
    text = environ.get(name) or str(default)
    if not text.isdigit() or int(text) > 65535:
        raise SettingsError(f"{name}: {text!r} is not a port")
    return int(text)


def _free(environ: Mapping[str, str], name: str, default: int) -> int:
    port = port_setting(environ, name, default) or free_port()
    if port_is_taken(port):
        raise StartError(f"port {port} is taken: set {name} to another")
    return port


def services(
    environ: Mapping[str, str], ports: Ports, dsn: str, *, with_traffic: bool, with_demo: bool = False
) -> list[Service]:
    """Return what to start, in order; they are stopped in the order api-side first (see `STOP_ORDER`)."""
    python, api_url = sys.executable, f"http://{HOST}:{ports.api}"
    exporter_env = {**environ, "STREAMGAUGE_EXPORTER_PORT": str(ports.exporter)}
    derived = files("producers").joinpath("reference/derived.toml")
    if derived.is_file():
        exporter_env.setdefault("STREAMGAUGE_DERIVED_FILE", str(derived))
    api_env = {"STREAMGAUGE_SERVICE": "reference_app", **environ}
    api_command = (python, "-m", "uvicorn", "producers.api:app", "--host", HOST, "--port", str(ports.api))
    aggregator_env = {**(DEMO_SETTINGS if with_demo else {}), **environ}
    found = [
        Service("aggregator", (python, "-m", "streamgauge", "aggregate"), aggregator_env, Heartbeat(dsn), 30.0),
        Service(
            "exporter", (python, "-m", "streamgauge", "export"), exporter_env, answers(ports.exporter, "/readyz"), 10.0
        ),
        Service("api", (*api_command, "--no-access-log"), api_env, answers(ports.api, "/healthz"), 15.0),
    ]
    if with_traffic:
        command = (python, "-m", "producers.traffic", "--url", api_url)
        found.append(Service("traffic", command, environ, lambda: True, 5.0))
    if with_demo:
        demo_env = {**environ, "STREAMGAUGE_SERVICE": "demo"}
        found.append(Service("demo", (python, "-m", "streamgauge.demo"), demo_env, lambda: True, 15.0))
    return found


def names_any(environ: Mapping[str, str], *names: str) -> bool:
    """Whether the environment names a server, directly or by a file."""
    return any(environ.get(name) or environ.get(f"{name}_FILE") for name in names)


def postgres_address(environ: Mapping[str, str]) -> str:
    """Return one address for PostgreSQL, whether it was named whole or in parts."""
    named = {name: value for name, value in environ.items() if name.startswith("POSTGRES_")}
    settings = read_settings(PostgresSettings, named)
    if settings.postgres_dsn is not None:
        return settings.postgres_dsn.get_secret_value()
    password = settings.postgres_password.get_secret_value() if settings.postgres_password else ""
    user = quote(settings.postgres_user, safe="") + (f":{quote(password, safe='')}" if password else "")
    where = ",".join(f"{host}:{settings.postgres_port}" for host in host_names(settings))
    return f"postgresql://{user}@{where}/{quote(settings.postgres_db, safe='')}"


LOAD: Final = ("traffic", "demo")
STOP_ORDER: Final = (*LOAD, "api", "aggregator", "exporter")
"""Emitters first, so that the aggregator drains their last batches and the exporter may still show them."""


def answers(port: int, path: str) -> Callable[[], bool]:
    """Return a check whether a service answers 200 at a path."""
    return lambda: get(port, path)[0] == 200


def get(port: int, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    """GET from the loopback interface; (0, b"") when nobody answers."""
    connection = http.client.HTTPConnection(HOST, port, timeout=HTTP_TIMEOUT_S)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


class Heartbeat:
    """Whether an aggregator has written its heartbeat since this object was first asked."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.asked_at = time.monotonic()

    def __call__(self) -> bool:
        """Ask PostgreSQL; an age, not a time, so that two clocks need not agree."""
        age_s = asyncio.run(self._age_s())
        return age_s is not None and age_s < time.monotonic() - self.asked_at

    async def _age_s(self) -> float | None:
        try:
            connection = await asyncpg.connect(self.dsn, timeout=5, server_settings={"search_path": SCHEMA})
        except (OSError, asyncpg.PostgresError, TimeoutError):
            return None
        try:
            age_s: float | None = await connection.fetchval(load("heartbeat_age"), timeout=5)
            return age_s
        finally:
            await connection.close(timeout=5)
