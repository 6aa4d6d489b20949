"""Redis Cluster as clients see it: which slot a command belongs to, and which node serves a slot.

In: a command's arguments as redis-py assembles them; the reply to `CLUSTER SLOTS`. Out: slots and nodes.
Promise: no I/O; the slot is the one that servers compute (CRC16 of the hash tag, else of the whole key, modulo 16384).
"""

from binascii import crc_hqx
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from contract.streams import SHARD_COUNT_KEY

SLOTS: Final = 16384
KEYLESS: Final = frozenset(("TIME", "PING", "INFO", "CONFIG GET", "ACL WHOAMI", "CLUSTER INFO", "CLUSTER NODES"))
"""Commands of ours without a key: the node that keeps the count of the shards answers, the same one for everybody."""

Node = tuple[str, int]


class Range(NamedTuple):
    """Consecutive slots of one master."""

    first: int
    last: int
    master: Node


def slot_of(key: bytes | str) -> int:
    """Return the slot of a key."""
    name = key.encode() if isinstance(key, str) else key
    start = name.find(b"{")
    end = name.find(b"}", start + 1)
    if start >= 0 and end > start + 1:
        name = name[start + 1 : end]
    return crc_hqx(name, 0) % SLOTS


def slot_of_command(args: Sequence[Any]) -> int:
    """Return the slot that a command belongs to; all of its keys have to be in this one."""
    name = str(args[0]).upper()
    if name in KEYLESS:
        return slot_of(SHARD_COUNT_KEY)
    if name in ("EVAL", "EVALSHA"):
        return slot_of(args[3])
    if name in ("XREAD", "XREADGROUP"):
        return slot_of(args[_at_streams(args) + 1])
    return slot_of(args[1])


def read_slots(reply: Sequence[Any], asked: Node) -> list[Range]:
    """Read a raw reply to `CLUSTER SLOTS`; a node that does not tell its own host is the one that was asked."""
    return [Range(int(first), int(last), node_at(master[0], master[1], asked)) for first, last, master, *_ in reply]


def node_at(host: Any, port: Any, asked: Node) -> Node:
    """Return a node as a reply names it (bytes or str); without a host it is on the host that was asked."""
    text: str | None = host.decode() if isinstance(host, bytes) else host
    return (text if text and text != "?" else asked[0]), int(port)


def master_of(ranges: Sequence[Range], slot: int) -> Node | None:
    """Return the node that serves a slot; None while nobody does."""
    return next((one.master for one in ranges if one.first <= slot <= one.last), None)


def _at_streams(args: Sequence[Any]) -> int:
    return next(i for i, arg in enumerate(args) if arg in (b"STREAMS", "STREAMS"))
