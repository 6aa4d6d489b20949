"""A full disk under PostgreSQL (its data, its WAL) and under Redis (its append-only file): nothing is lost.

Once there is room again everything goes on; where PostgreSQL has ended, once it is started as its supervisor would.
"""

import os
import resource
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from streamgauge.embedded import RedisServer
from tests import postgres_pair
from tests.loading import COMMITTED, DEADLINE_S, FAST, STALLED_S, Load, assert_exact, fetch, since_last_commit
from tests.pipeline import Pipeline
from tests.postgres_pair import Server, until
from tests.served import Served

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

EVENTS = 16_000
RATE = 4_000
GROW = "CREATE TABLE grown AS SELECT i, md5(i::text) AS t FROM generate_series(1, 100000) AS i"
"""More than what is left of a WAL file, or of a page."""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can mount a small disk; run it as root")


class Disk:
    """A small disk; `fill` leaves no room on it, `free` gives that back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                while True:
                    try:
                        file.write(bytes(size))
                    except OSError:
                        break

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(server: Server, name: str, size: str) -> Generator[Disk, None, None]:
    """Mount a disk beside a server's data, for as long as the block lasts."""
    path = server.home.with_name(name)
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        pytest.skip(f"NOT TESTED: a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        server.give(path)
        yield Disk(path)
    finally:
        server.close()
        subprocess.run(["umount", str(path)], check=True, timeout=30)


@contextmanager
def loading(pipeline: Pipeline, dsn: str) -> Generator[tuple[Load, Served], None, None]:
    """An aggregator, an exporter, and a load test that is on its way."""
    pipeline.aggregator("aggregator-1")
    pipeline.exporter()
    load = Load(pipeline, dsn, events=EVENTS, rate=RATE)
    try:
        until(lambda: fetch(dsn, COMMITTED) > EVENTS // 8, "the load is on its way")
        with Served(pipeline.port) as served:
            yield load, served
        served.check()
    finally:
        load.process.kill()
        load.process.communicate()


def fill_under_load(pipeline: Pipeline, server: Server, disk: Disk) -> None:
    """Fill the disk under load until the server says so, free it, and find everything committed once."""
    with loading(pipeline, server.dsn()) as (load, served):
        disk.fill()
        server.psql(GROW).wait(DEADLINE_S)
        until(lambda: "No space left on device" in server.log.read_text(), "the server tells")
        served.told("streamgauge_stream_oldest_wait_seconds", 2)
        disk.free()
        server.open_again()
        assert_exact(pipeline, load, server.dsn())


@as_root
def test_no_room_for_postgresql_s_data(tmp_path: Path, redis_url: str) -> None:
    """A table cannot grow (53100): commits are tried again for ever, and none counts against its batch."""
    with postgres_pair.home() as home:
        server = Server(home / "a", autovacuum="off")
        with small_disk(server, "data", "64m") as disk:
            server.open()
            server.make_database(tablespace=disk.path)
            with Pipeline(tmp_path, server.dsn(), redis_url, **FAST) as pipeline:
                fill_under_load(pipeline, server, disk)


@as_root
def test_no_room_for_postgresql_s_wal(tmp_path: Path, redis_url: str) -> None:
    """PostgreSQL ends itself (PANIC); started again it recovers, and commits in doubt are settled by the ledger."""
    with postgres_pair.home() as home:
        server = Server(home / "a", max_wal_size="32MB", min_wal_size="2MB", wal_recycle="off", wal_keep_size="0")
        with small_disk(server, "wal", "64m") as disk:
            server.open(wal=disk.path / "wal")
            server.make_database()
            with Pipeline(tmp_path, server.dsn(), redis_url, **FAST) as pipeline:
                fill_under_load(pipeline, server, disk)


class LimitedRedis(RedisServer):
    """A Redis that gets an error, not a signal, where its file may not grow."""

    def _command(self) -> list[str]:
        return ["sh", "-c", 'trap "" XFSZ; exec "$@"', "redis", *super()._command()]

    def limit(self, size: int) -> None:
        """Let no file grow beyond a size (bytes)."""
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_no_room_for_redis_s_file(tmp_path: Path, dsn: str) -> None:
    """Every command is refused (MISCONF): producers keep what they have, and all goes on by itself."""
    server = LimitedRedis(tmp_path / "redis")
    server.open()
    try:
        with Pipeline(tmp_path, dsn, server.url, **FAST) as pipeline, loading(pipeline, dsn) as (load, _):
            server.limit(max(file.stat().st_size for file in server.data.rglob("*.aof")))
            until(lambda: refuses(server), "MISCONF")
            until(lambda: since_last_commit(pipeline) > STALLED_S, "that nothing is committed is told")
            server.limit(resource.RLIM_INFINITY)
            until(lambda: not refuses(server), "accepts again", DEADLINE_S)
            assert_exact(pipeline, load, dsn)
    finally:
        server.close()


def refuses(server: RedisServer) -> bool:
    """Whether a write is refused."""
    with redis.Redis(port=server.port, protocol=2, socket_timeout=5) as client:
        try:
            client.set("probe", "1")
        except redis.RedisError as error:
            return "MISCONF" in str(error)
    return False
