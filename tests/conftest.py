"""Fixtures that every layer shares: real servers, fresh databases, and the check that nothing is left running."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest
import redis

from streamgauge.embedded import PostgresServer, RedisServer
from tests.servers import Servers, redis_binaries

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

UNIT = Path(__file__).parent / "unit"
FUNDAMENTALS = Path(__file__).parent / "fundamentals"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The fundamentals hold on every Redis that is supported and at hand."""
    if "redis_server" in metafunc.fixturenames and metafunc.definition.path.is_relative_to(FUNDAMENTALS):
        versions = list(redis_binaries())
        metafunc.parametrize("redis_server", versions, indirect=True, ids=[f"redis{v}" for v in versions])


@pytest.fixture(autouse=True)
def no_network_in_the_unit_layer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In tests/unit nothing answers but a unix socket."""
    if not request.path.is_relative_to(UNIT):
        return
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            raise ConnectionRefusedError(f"a unit test connects to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """All servers of this test process; at the end no child process may be left."""
    found = Servers()
    yield found
    found.close()
    left = [child.cmdline() for child in psutil.Process().children(recursive=True)]
    assert not left, f"processes left running: {left}"


@pytest.fixture
def redis_server(servers: Servers, request: pytest.FixtureRequest) -> RedisServer:
    """A real Redis: `.url`, `.restart()`, `.kill()` then `.open()`. Shared: take `redis_url` for an empty one."""
    version: str | None = getattr(request, "param", None)
    return servers.redis(version)


@pytest.fixture
def postgres_server(servers: Servers) -> PostgresServer:
    """A real PostgreSQL: `.dsn(database)`, `.restart()`, `.kill()` then `.open()`."""
    return servers.postgres()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """Address of a Redis that is empty now."""
    with redis.Redis.from_url(redis_server.url, protocol=2, socket_timeout=10) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def dsn(servers: Servers) -> Iterator[str]:
    """Address of a fresh database with the current schema; removed afterwards."""
    name = servers.new_database()
    yield servers.postgres().dsn(name)
    servers.drop_database(name)
