"""The servers that `streamgauge up` and the tests run on."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
import redis

from streamgauge.embedded import PostgresServer
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
