"""Cluster: the producers' way to the node that serves a key, and past it while the key's slot moves.

In: some nodes' addresses, a client's options. Out: a plain client of the master that serves a key.
Promise: nothing is sent twice; a command goes to a second node only when the first refused it with ASK, and in one
write with ASKING. MOVED is an error like any other: the sender connects anew and finds the node that serves now.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from redis import Redis
from redis.exceptions import ClusterDownError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from contract.cluster import Node, Range, master_of, node_at, read_slots, slot_of

if TYPE_CHECKING:
    Link = Any  # redis-py types every reply as bytes or str; here replies are bytes
else:
    Link = Redis

ASK_NODE_S: Final = 0.5
"""A node that does not tell the slots within this time is skipped: the next one knows them too."""


def open_node(node: Node, options: dict[str, Any]) -> Link:
    """Return a client of one node, not connected yet."""
    return Redis(host=node[0], port=node[1], **options)


def open_master(nodes: Sequence[Node], options: dict[str, Any], key: str) -> Link:
    """Return a client of the master that serves a key, as the first node says that answers."""
    slot = slot_of(key)
    node = master_of(_learn(nodes, options), slot)
    if node is None:
        raise ClusterDownError(f"no node serves slot {slot}")
    return open_node(node, options)


def ask(error: Any, asked: Link, options: dict[str, Any], command: Sequence[Any]) -> Any:
    """Return the reply to a command that `asked` refused with an AskError, from the node that its slot moves to.

    An error is returned, not raised, as in a pipeline.
    """
    here = asked.connection_pool.connection_kwargs
    access = {name: here[name] for name in ("username", "password")}
    with open_node(node_at(error.host, error.port, (here["host"], here["port"])), options | access) as link:
        pipeline = link.pipeline(transaction=False)
        pipeline.execute_command("ASKING")
        pipeline.execute_command(*command)
        try:
            return pipeline.execute(raise_on_error=False)[1]
        except (RedisError, OSError) as error:
            return error


def _learn(nodes: Sequence[Node], options: dict[str, Any]) -> list[Range]:
    quick = {**options, "socket_timeout": ASK_NODE_S, "socket_connect_timeout": ASK_NODE_S}
    last: Exception | None = None
    # In a random order: a node that was cut off from the others goes on telling what was true before.
    for node in random.sample(nodes, len(nodes)):
        with open_node(node, quick) as link:
            try:
                return read_slots(link.execute_command("CLUSTER SLOTS"), node)
            except (RedisError, OSError) as error:
                last = error
    raise RedisConnectionError(f"no node of the cluster tells who serves what: {last}") from last


class HashReader:
    """Reads fields of a hash for an event loop, from the master that serves it; asks anew who that is after an error.

    Calls must not overlap but for one that its caller gave up.
    """

    def __init__(self, nodes: Sequence[Node], options: dict[str, Any]) -> None:
        self._nodes = nodes
        self._options = options
        self._link: Link | None = None

    async def hmget(self, key: str, fields: Sequence[str]) -> list[bytes | None]:
        """Return the fields' values. Raises RedisError or OSError."""
        return await asyncio.to_thread(self._hmget, key, fields)

    async def aclose(self) -> None:
        """Close the connection."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _hmget(self, key: str, fields: Sequence[str]) -> list[bytes | None]:
        link, self._link = self._link, None
        link = link or open_master(self._nodes, self._options, key)
        try:
            found: list[bytes | None] = link.hmget(key, fields)
        except BaseException:
            link.close()
            raise
        self._link = link
        return found
