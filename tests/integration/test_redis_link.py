"""The services' link to a real Redis, on the event loop that they run on."""

import asyncio
from urllib.parse import urlsplit

import pytest
import uvloop
from redis.exceptions import ConnectionError as RedisConnectionError

from database.redis_link import Link as RedisLink
from database.redis_link import open_link
from database.settings import RedisSettings
from streamgauge.processes import POLL_S
from tests.faults.link import Link


def link_to(url: str) -> RedisLink:
    return open_link(RedisSettings.model_validate({"redis_url": url}))


def test_cancellation_in_the_moment_a_command_was_sent_is_not_lost(redis_url: str) -> None:
    async def ask() -> None:
        link = link_to(redis_url)
        assert await link.ping()
        connection = await link.connection_pool.get_connection()
        await link.connection_pool.release(connection)
        task = asyncio.current_task()
        assert task is not None
        send = connection._send_packed_command

        async def send_and_cancel(command: object) -> None:
            await send(command)
            asyncio.get_running_loop().call_soon(task.cancel)

        connection._send_packed_command = send_and_cancel
        with pytest.raises(asyncio.CancelledError):
            await link.echo("nobody reads this")
        task.uncancel()
        connection._send_packed_command = send
        assert await link.echo("this") == b"this"
        await link.aclose()

    asyncio.run(ask())


def test_idle_connection_that_was_reset_is_an_error_of_the_connection(redis_url: str) -> None:
    """uvloop raises RuntimeError where it is written to: as such it would end the service."""
    with Link("127.0.0.1", urlsplit(redis_url).port or 0) as way:

        async def ask() -> None:
            link = link_to(f"redis://{way.address}/0")
            assert await link.ping()
            connection = await link.connection_pool.get_connection()
            await link.connection_pool.release(connection)
            way.reset()
            while not connection._writer.transport.is_closing():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(POLL_S)
            way.pass_on()
            with pytest.raises(RedisConnectionError):
                await link.ping()
            assert await link.ping()
            await link.aclose()

        uvloop.run(ask())
