"""A Redis Cluster for tests: three masters, a replica of each, as real processes on 127.0.0.1.

In: a folder. Out: a RedisCluster whose nodes can be killed and whose slots can be moved.
Promise: `close` ends the processes that it started, by their handles, whatever the tests did to them.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from contract.cluster import SLOTS, Range, read_slots
from streamgauge import processes

MASTERS = 3
NODE_TIMEOUT_MS = 1000
READY_S = 30.0
PASSWORD = "of-all-users"


class Node(NamedTuple):
    """One server of the cluster."""

    port: int
    process: subprocess.Popen[bytes]
    client: Any


class RedisCluster:
    """Six servers. Nodes are told apart by their ports."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.nodes: dict[int, Node] = {}

    @property
    def url(self) -> str:
        """The address that clients are given: two of the masters, which name the rest."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in list(self.nodes)[:2])

    def url_of(self, user: str) -> str:
        """The address as a user of `add_users`."""
        return self.url.replace("://", f"://{user}:{PASSWORD}@")

    def add_users(self, file: Path) -> None:
        """Make the users of a file on every node, with one password; the default user stays, for the tests."""
        # Redis 7.0 does not know CLIENT SETINFO; redis/start.sh leaves it out too.
        for line in file.read_text().replace(" +client|setinfo", "").splitlines():
            user = re.fullmatch(r"user (\w+) on \{\w+\} (.*)", line)
            for port in self.nodes if user else ():
                assert user is not None
                rules = re.findall(r"\([^)]*\)|\S+", user[2])
                self.ask(port, "ACL", "SETUSER", user[1], "reset", "on", f">{PASSWORD}", *rules)

    def open(self) -> None:
        """Start the servers and make them one cluster."""
        bus_of = dict(self._start() for _ in range(2 * MASTERS))
        masters, replicas = self._split()
        for number, port in enumerate(masters):
            first, last = number * SLOTS // MASTERS, (number + 1) * SLOTS // MASTERS - 1
            self.ask(port, "CLUSTER", "ADDSLOTSRANGE", first, last)
        for number, port in enumerate(self.nodes):
            self.ask(port, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if port != masters[0]:
                self.ask(masters[0], "CLUSTER", "MEET", "127.0.0.1", port, bus_of[port])
        until(lambda: all(len(self._known(port)) == 2 * MASTERS for port in self.nodes), "all nodes know each other")
        for master, replica in zip(masters, replicas, strict=True):
            self.ask(replica, "CLUSTER", "REPLICATE", self.id_of(master))
        until(self.is_whole, "all slots are served and all replicas follow")

    def close(self) -> None:
        """End what still runs."""
        for node in self.nodes.values():
            node.client.close()
            if node.process.poll() is None:
                node.process.kill()
            node.process.wait(10)

    def kill(self, port: int) -> None:
        """End a node as a power cut would."""
        self.nodes[port].process.kill()
        self.nodes[port].process.wait(10)

    def ask(self, port: int, *command: Any) -> Any:
        """Send a command to one node, raw."""
        return self.nodes[port].client.execute_command(*command)

    def id_of(self, port: int) -> str:
        """Return the name that the cluster has for a node."""
        return _text(self.ask(port, "CLUSTER", "MYID"))

    def slots(self) -> list[Range]:
        """Return who serves what, as the first node that lives says."""
        port = next(self._living())
        return read_slots(self.ask(port, "CLUSTER", "SLOTS"), ("127.0.0.1", port))

    def master_of(self, slot: int) -> int:
        """Return the port of the master of a slot."""
        return next(one.master[1] for one in self.slots() if one.first <= slot <= one.last)

    def is_whole(self) -> bool:
        """Whether every node that lives sees all slots served, and each replica has its master's data."""
        for port in self._living():
            said = _text(self.ask(port, "CLUSTER", "INFO"))
            if "cluster_state:ok" not in said:
                return False
            if self.ask(port, "ROLE")[0] == b"slave" and self.ask(port, "ROLE")[3] != b"connected":
                return False
        return sum(one.last - one.first + 1 for one in self.slots()) == SLOTS

    def begin_move(self, slot: int) -> tuple[int, int]:
        """Declare that a slot moves to another master; returns the two ports."""
        source = self.master_of(slot)
        target = next(one.master[1] for one in self.slots() if one.master[1] != source)
        self.ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        self.ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))
        return source, target

    def carry(self, slot: int, source: int, target: int) -> None:
        """Move the slot's keys."""
        while keys := self.ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 10):
            self.ask(source, "MIGRATE", "127.0.0.1", target, "", 0, 5000, "KEYS", *keys)

    def end_move(self, slot: int, source: int, target: int) -> None:
        """Give the slot to its new master."""
        for port in (target, source):
            self.ask(port, "CLUSTER", "SETSLOT", slot, "NODE", self.id_of(target))

    def _living(self) -> Iterator[int]:
        return (port for port, node in self.nodes.items() if node.process.poll() is None)

    def _split(self) -> tuple[list[int], list[int]]:
        ports = list(self.nodes)
        return ports[:MASTERS], ports[MASTERS:]

    def _known(self, port: int) -> list[str]:
        return [line for line in _text(self.ask(port, "CLUSTER", "NODES")).splitlines() if "handshake" not in line]

    def _start(self) -> tuple[int, int]:
        port, bus = processes.free_port(), processes.free_port()
        home = self._folder / str(port)
        home.mkdir()
        settings = {
            "port": port,
            "cluster-port": bus,
            "bind": "127.0.0.1",
            "dir": home,
            "save": "",
            "appendonly": "yes",
            "cluster-enabled": "yes",
            "cluster-node-timeout": NODE_TIMEOUT_MS,
            "cluster-require-full-coverage": "no",
            "repl-diskless-sync-delay": 0,
        }
        command = [shutil.which("redis-server") or "redis-server"]
        for name, value in settings.items():
            command += [f"--{name}", str(value)]
        process = processes.start(command, self._folder / f"{port}.log", env=dict(os.environ))
        client = redis.Redis(port=port, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=10)
        self.nodes[port] = Node(port, process, client)
        until(lambda: _answers(client), f"node {port} answers")
        return port, bus


def until(holds: Callable[[], Any], what: str, deadline_s: float = READY_S) -> None:
    """Wait until something holds; nodes that are away or disagree meanwhile are asked again."""
    end = time.monotonic() + deadline_s
    last: Exception | None = None
    while time.monotonic() < end:
        try:
            if holds():
                return
        except (redis.RedisError, StopIteration) as error:
            last = error
        time.sleep(0.05)
    raise AssertionError(f"not within {deadline_s:g} s: {what} ({last!r})")


def _answers(client: Any) -> bool:
    return bool(client.ping())


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
