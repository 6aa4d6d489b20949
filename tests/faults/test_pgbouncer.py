"""PgBouncer in transaction mode between the services and PostgreSQL: commits and scrapes work through it.

What needs a session (the schedule's locks, load-test runs with a schema of their own) keeps the direct address.
"""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamgauge import processes
from tests import postgres_pair
from tests.loading import COMMITTED, FAST, Load, assert_exact, fetch
from tests.pipeline import Pipeline
from tests.postgres_pair import DATABASE, USER, Server, until
from tests.served import Served

PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin")
pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(300),
    pytest.mark.skipif(PROGRAM is None, reason="needs the package pgbouncer"),
]

EVENTS = 24_000
RATE = 8_000
POOLED = "FROM pg_stat_activity WHERE application_name IN ('streamgauge-aggregator', 'streamgauge exporter')"
LOCKS = f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid IN (SELECT pid {POOLED})"
SERVER_CONNECTIONS = 3
"""Fewer than the services have connections: whoever begins a transaction gets one that somebody else had."""


class Bouncer:
    """PgBouncer in transaction mode before one server."""

    def __init__(self, server: Server) -> None:
        self.port = processes.free_port()
        self._server = server
        self._home = server.home.with_name("bouncer")
        self._log = self._home / "log"

    def open(self) -> None:
        """Write its files and start it."""
        self._server.give(self._home)
        (self._home / "users").write_text(f'"{USER}" ""\n')
        (self._home / "ini").write_text(
            f"[databases]\n{DATABASE} = host=127.0.0.1 port={self._server.port}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {self._home / 'users'}\npool_mode = transaction\n"
            f"default_pool_size = {SERVER_CONNECTIONS}\nmax_client_conn = 200\n"
        )
        assert PROGRAM is not None
        started = self._server.start([PROGRAM, str(self._home / "ini")], self._log)
        self.process = started
        processes.wait_ready(started, lambda: processes.port_is_taken(self.port), "PgBouncer", self._log, 30)

    def close(self) -> None:
        """End it."""
        processes.stop(self.process, signal.SIGTERM, 10)

    @property
    def dsn(self) -> str:
        """The database through it."""
        return self._server.dsn(at=f"127.0.0.1:{self.port}")


@pytest.fixture
def server() -> Iterator[Server]:
    with postgres_pair.home() as home:
        made = Server(home / "a")
        try:
            made.open()
            made.make_database()
            yield made
        finally:
            made.close()


@pytest.fixture
def bouncer(server: Server) -> Iterator[Bouncer]:
    made = Bouncer(server)
    made.open()
    yield made
    made.close()


def test_commits_and_scrapes_go_through_it(tmp_path: Path, server: Server, bouncer: Bouncer, redis_url: str) -> None:
    server.sql(f"ALTER ROLE {USER} SET search_path = streamgauge")
    settings = FAST | {"POSTGRES_POOLED_DSN": bouncer.dsn}
    with Pipeline(tmp_path, server.dsn(), redis_url, **settings) as pipeline:
        pipeline.aggregator("aggregator-1")
        pipeline.aggregator("aggregator-2")
        pipeline.exporter()
        with Served(pipeline.port) as served:
            load = Load(pipeline, server.dsn(), events=EVENTS, rate=RATE)
            until(lambda: fetch(server.dsn(), COMMITTED) > 0, "the load is on its way")
            assert server.sql(f"SELECT count(*) {POOLED}") <= SERVER_CONNECTIONS, "somebody goes round it"
            assert_exact(pipeline, load, server.dsn())
        served.check(least=5)
        until(lambda: server.sql(LOCKS) == 0, "no lock of a session is left with a connection of the pooler")
        said = "".join(pipeline.log(name).read_text() for name in ("aggregator-1", "aggregator-2", "exporter"))
        assert "prepared statement" not in said and "step_failed" not in said and "refresh_failed" not in said, said


@pytest.mark.parametrize(
    ("command", "name", "expected"),
    [("aggregate", "POSTGRES_DSN", "a pooler answers"), ("export", "POSTGRES_POOLED_DSN", "SET search_path")],
)
def test_what_cannot_work_through_it_is_refused_by_name(
    command: str, name: str, expected: str, tmp_path: Path, server: Server, bouncer: Bouncer, redis_url: str
) -> None:
    """A direct address that is none, and a role whose names resolve elsewhere: exit code 2 and what to do."""
    server.sql(f"ALTER ROLE {USER} SET search_path = public")
    done = subprocess.run(
        [sys.executable, "-m", "streamgauge", command],
        env=Pipeline(tmp_path, server.dsn(), redis_url).env | {name: bouncer.dsn},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr and "POSTGRES_POOLED_DSN" in done.stderr
