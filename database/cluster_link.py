"""A link to Redis Cluster: each command goes to the node of its key's slot, on a plain client of that node.

In: some nodes' addresses and a client's options. Out: replies, as of one server.
Promise: a command is sent again only when a node refused it with a redirect (MOVED, ASK), so never when its fate is
unknown; after an error of the connection the nodes are asked anew who serves what; `ASKING` goes in one write with
its command. redis-py's own cluster client has none of the three, which docs/decisions/ tells.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import Redis
from redis.commands import AsyncCoreCommands
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from contract.cluster import Node, Range, master_of, node_at, read_slots, slot_of_command
from contract.errors import error_text
from database.redis_connection import guarded

if TYPE_CHECKING:
    Client = Any  # redis-py types every reply as bytes or str; here replies are bytes
    Commands = object
else:
    Client = Redis
    Commands = AsyncCoreCommands

REDIRECTS: Final = 4
"""More in a row mean that the nodes do not agree: the caller tries again later."""
ASK_NODE_S: Final = 0.5
"""A node that does not answer within this time is skipped: the others know the same."""
LOST: Final = (RedisConnectionError, RedisTimeoutError, ClusterDownError, OSError)


def redirected(error: Any, asked: Node) -> Node:
    """Return the node that a redirect names."""
    return node_at(error.host, error.port, asked)


class ClusterLink(Commands):
    """Commands over keys of one slot each, as methods of redis-py's own client."""

    def __init__(self, nodes: Sequence[Node], options: dict[str, Any]) -> None:
        self._seeds = tuple(nodes)
        self._options = options
        self._clients: dict[Node, Client] = {}
        self._ranges: list[Range] = []
        self._moved: dict[int, Node] = {}
        """Slots that are elsewhere than the ranges say."""
        self._learning = asyncio.Lock()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command to the node of its key, and where that one points; redis-py's methods call this."""
        slot = slot_of_command(args)
        node = await self._node_of(slot)
        for _ in range(REDIRECTS):
            try:
                return await self.client_of(node).execute_command(*args, **options)
            except MovedError as moved:
                node = self._moved[slot] = redirected(moved, node)
            except AskError as ask:
                return await self._ask(redirected(ask, node), args, options)
            except LOST as error:
                raise self._lost(error) from None
        raise self._lost(ClusterDownError(f"slot {slot}: its nodes point at each other"))

    async def ask_any(self, *command: Any) -> tuple[Node, Any]:
        """Send a command that every node can answer to one after the other until one does; returns it and the reply."""
        known = list({*self._seeds, *self._clients})
        last: Exception | None = None
        # In a random order: a node that was cut off from the others goes on telling what was true before.
        for node in random.sample(known, len(known)):
            try:
                async with asyncio.timeout(ASK_NODE_S):
                    return node, await self.client_of(node).execute_command(*command)
            except (RedisError, OSError) as error:
                last = error
        raise RedisConnectionError(f"no node of the cluster answers: {error_text(last) if last else None}") from last

    def client_of(self, node: Node) -> Client:
        """Return the client of one node, for what concerns this node only; it is closed with the link."""
        client = self._clients.get(node)
        if client is None:
            client = self._clients[node] = guarded(Redis(host=node[0], port=node[1], **self._options))
        return client

    async def aclose(self) -> None:
        """Close all connections."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    async def _ask(self, node: Node, args: Sequence[Any], options: dict[str, Any]) -> Any:
        """Send a command to the node that a slot moves to; it takes it only right after ASKING."""
        try:
            async with self.client_of(node).pipeline(transaction=False) as pipe:
                pipe.execute_command("ASKING")
                pipe.execute_command(*args, **options)
                reply = (await pipe.execute(raise_on_error=False))[1]
        except LOST as error:
            raise self._lost(error) from None
        if isinstance(reply, Exception):
            raise self._lost(reply)
        return reply

    async def _node_of(self, slot: int) -> Node:
        if not self._ranges:
            await self._learn()
        node = self._moved.get(slot) or master_of(self._ranges, slot)
        if node is None:
            raise self._lost(ClusterDownError(f"no node serves slot {slot}"))
        return node

    def _lost(self, error: Exception) -> Exception:
        """Return the error to raise; who serves what is forgotten where it may have changed.

        redis-py has CLUSTERDOWN and redirects for answers about the key (ResponseError), but nobody answered for it.
        """
        if isinstance(error, (*LOST, MovedError, AskError)):
            self._ranges = []
            self._moved = {}
        unanswered = isinstance(error, ClusterDownError | MovedError | AskError)
        return RedisConnectionError(str(error)) if unanswered else error

    async def _learn(self) -> None:
        async with self._learning:
            if not self._ranges:
                node, reply = await self.ask_any("CLUSTER SLOTS")
                self._ranges = read_slots(reply, node)
