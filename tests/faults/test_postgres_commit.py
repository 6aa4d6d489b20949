"""A COMMIT whose outcome nobody was told: nothing is acknowledged until it is durable, and nothing counts twice.

Cancelled while it waits for a standby, given up at our deadline, or cut off by a server that froze and died.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import pytest

from database import connect, ledger
from tests import postgres_pair
from tests.batches import make_batch
from tests.consuming import Consumer, consumer
from tests.exporting import watched
from tests.postgres_pair import DEADLINE_S, Server

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

KEY = b"orders_total"
WAITS = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'streamgauge-aggregator'"
GIVEN_UP = (connect.NotCommitted, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres_pair.home() as home:
        made = Server(home / "a")
        try:
            made.open()
            yield made
        finally:
            made.close()


@pytest.fixture
async def sql(server: Server) -> AsyncIterator[Callable[[str], Awaitable[Any]]]:
    """Ask as an administrator, whatever the server does to others."""
    server.make_database()

    async def ask(query: str) -> Any:
        connection = await asyncpg.connect(server.dsn("postgres"), timeout=10)
        try:
            await connection.execute("SET synchronous_commit = off")
            return await connection.fetchval(query, timeout=10)
        finally:
            await connection.close(timeout=10)

    yield ask
    await ask("ALTER SYSTEM RESET synchronous_standby_names")
    await ask("SELECT pg_reload_conf()")


async def wait_for(sql: Callable[[str], Awaitable[Any]], query: str) -> Any:
    """Return the first answer there is."""
    deadline = time.monotonic() + DEADLINE_S
    while (found := await sql(query)) is None:
        assert time.monotonic() < deadline, query
        await asyncio.sleep(0.02)
    return found


async def require_standby(sql: Callable[[str], Awaitable[Any]], name: str) -> None:
    """Let commits wait for a standby of this name; for none, if it is empty."""
    await sql(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    await sql("SELECT pg_reload_conf()")
    await wait_for(sql, f"SELECT 1 WHERE current_setting('synchronous_standby_names') = '{name}'")


async def send(c: Consumer, seq: int) -> None:
    window_s = int(time.time()) // 10 * 10
    await c.send(make_batch(bytes(16), seq, counters={KEY: (3, 3.0)}, window_s=window_s, accepted=3 * seq))


async def assert_applied_once(c: Consumer, batches: int) -> None:
    assert await c.pending() == 0
    assert await c.one("SELECT sum(n) FROM totals") == 3 * batches
    assert await c.one("SELECT sum(committed_events) FROM producers") == 3 * batches


async def test_nothing_is_acknowledged_that_no_standby_has(
    server: Server, sql: Callable[[str], Awaitable[Any]], redis_url: str
) -> None:
    """The server says COMMIT, with a warning, when the wait is cancelled; and a retry finds nothing left to write."""
    async with watched(server.dsn(), redis_url), consumer(server.dsn(), redis_url) as c:
        await send(c, 1)
        assert await c.consume() == 1
        await require_standby(sql, "ghost")
        await send(c, 2)
        for _ in ("its own commit", "that of the duplicate"):
            consuming = asyncio.create_task(c.consume())
            pid = await wait_for(sql, WAITS)
            await sql(f"SELECT pg_cancel_backend({pid})")
            with pytest.raises(connect.NotCommitted):
                await consuming
            assert await c.pending() == 1, "not acknowledged"
            c.reader.restart()
        await require_standby(sql, "")
        assert await c.consume() == 1
        await assert_applied_once(c, 2)
        assert await c.one("SELECT sum(duplicates) FROM producers") > 0


@pytest.mark.parametrize("is_durable", [True, False], ids=["committed", "not_committed"])
async def test_a_commit_that_the_server_froze_in_is_settled_by_the_ledger(
    is_durable: bool,
    server: Server,
    sql: Callable[[str], Awaitable[Any]],
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SIGSTOP of the backend at COMMIT, before or after the transaction is on disk; then it is killed."""
    frozen: list[int] = []

    async def commit(connection: connect.Connection) -> None:
        if not frozen and not is_durable:
            frozen.append(connection.get_server_pid())
            os.kill(frozen[0], signal.SIGSTOP)
        await connect.commit(connection)

    async with (
        watched(server.dsn(), redis_url),
        consumer(server.dsn(), redis_url, streamgauge_statement_timeout_s=0.1) as c,
    ):
        await send(c, 1)
        assert await c.consume() == 1
        await send(c, 2)
        if is_durable:
            await require_standby(sql, "ghost")
        monkeypatch.setattr(ledger, "commit", commit)
        consuming = asyncio.create_task(c.consume())
        if is_durable:
            frozen.append(await wait_for(sql, WAITS))
            os.kill(frozen[0], signal.SIGSTOP)
        with pytest.raises(GIVEN_UP):
            await consuming
        assert await c.pending() == 1, "not acknowledged"
        os.kill(frozen[0], signal.SIGKILL)
        await consume_when_up(c, lambda: require_standby(sql, ""))
        await assert_applied_once(c, 2)
        assert (await c.one("SELECT sum(duplicates) FROM producers") > 0) == is_durable


async def consume_when_up(c: Consumer, first: Callable[[], Awaitable[None]]) -> None:
    """Consume what is pending, once the server has recovered."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            await first()
            c.reader.restart()
            assert await c.consume() == 1
            return
        except GIVEN_UP:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
