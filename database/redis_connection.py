"""What redis-py's connections do not tell by themselves: that they were closed while idle, and that they are cancelled.

In: a client of redis-py. Out: the same, whose connections tell.
redis-py knows OSError; a transport of uvloop that is closed raises RuntimeError when it is written to, which would end
the service. On Python 3.11 redis-py's `asyncio.wait_for` loses a cancellation that comes in the moment in which a
command was sent, and with it deadlines, task groups and stops.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

if TYPE_CHECKING:
    Client = Any  # redis-py types every reply as bytes or str; here replies are bytes
else:
    Client = Redis


class _Guard:
    """Stands before a connection's own class."""

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        connection: Any = super()
        task = asyncio.current_task()
        asked_to_end = task.cancelling() if task is not None else 0
        try:
            await connection.send_packed_command(command, check_health)
        finally:
            if task is not None and task.cancelling() > asked_to_end:
                # Nobody reads the reply, and an error would be tried again.
                await connection.disconnect(nowait=True)
                raise asyncio.CancelledError

    async def _send_packed_command(self, command: Any) -> None:
        connection: Any = super()
        try:
            await connection._send_packed_command(command)
        except RuntimeError as error:
            raise ConnectionResetError(str(error)) from error


def guarded(client: Client) -> Client:
    """Have each connection of a client's pool, TLS or not, of a master or not, tell."""
    pool: Any = client.connection_pool
    kind = pool.connection_class
    pool.connection_class = type(f"Guarded{kind.__name__}", (_Guard, kind), {})
    return client
