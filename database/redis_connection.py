"""A connection to Redis that was closed while it was idle, under uvloop: an error of the connection, not a bug of ours.

In: a client of redis-py. Out: the same, whose connections say so. redis-py knows OSError; a transport of uvloop that is
closed raises RuntimeError when it is written to, which would end the service.
"""

from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis

if TYPE_CHECKING:
    Client = Any  # redis-py types every reply as bytes or str; here replies are bytes
else:
    Client = Redis


class _Guard:
    """Stands before a connection's own class."""

    async def _send_packed_command(self, command: Any) -> None:
        send: Any = super()
        try:
            await send._send_packed_command(command)
        except RuntimeError as error:
            raise ConnectionResetError(str(error)) from error


def guarded(client: Client) -> Client:
    """Have each connection of a client's pool, TLS or not, of a master or not, tell that it was closed."""
    pool: Any = client.connection_pool
    kind = pool.connection_class
    pool.connection_class = type(f"Guarded{kind.__name__}", (_Guard, kind), {})
    return client
