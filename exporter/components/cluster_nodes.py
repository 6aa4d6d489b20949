"""Redis Cluster: whether every slot is served, and each master and replica.

In: `CLUSTER NODES` of a node that answers, `INFO replication` of every node. Out: one component for the whole,
one a node.
Promise: each node has a deadline of its own: one that hangs does not hide the others. A node keeps its name when its
role changes.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from contract.cluster import SLOTS, Node, node_at
from database.cluster_link import ClusterLink
from exporter.components.component import Component, Probe, Severity, Sources, Status
from exporter.streams import AWAY

KIND: Final = "redis"
NODE_SHARE: Final = 0.4
"""Of the probe's deadline, for one node: the rest is for asking who the nodes are."""


class Member(NamedTuple):
    """A node as the cluster has it."""

    at: Node
    flags: frozenset[str]
    slots: int

    @property
    def role(self) -> str:
        """What it is now."""
        return "replica" if "slave" in self.flags else "master"

    @property
    def is_failed(self) -> bool:
        """Whether a majority of the masters takes it for dead."""
        return "fail" in self.flags


def probes(sources: Sources, link: ClusterLink) -> list[Probe]:
    """Return one probe: who the nodes are is known only when it is asked."""
    within_s = sources.settings.streamgauge_probe_deadline_s * NODE_SHARE

    async def ask() -> list[Component]:
        asked, reply = await link.ask_any("CLUSTER NODES")
        members = read_members(reply, asked)
        infos = await asyncio.gather(*(_info(link, member.at, within_s) for member in members))
        return [judge_whole(members), *judge_nodes(members, infos)]

    return [Probe("redis", KIND, Severity.WARNING, ask, Status.DOWN)]


def judge_whole(members: Sequence[Member]) -> Component:
    """Say whether every slot is served."""
    masters = [one for one in members if one.role == "master" and one.slots]
    served = sum(one.slots for one in masters if not one.is_failed)
    replicas = sum(one.role == "replica" for one in members)
    facts = {"role": "cluster", "masters": len(masters), "replicas": replicas, "slots": served}
    if served < SLOTS:
        return Component("redis", Status.DOWN, f"{SLOTS - served} of {SLOTS} slots are served by nobody", facts)
    return Component("redis", Status.OK, "", facts)


def judge_nodes(members: Sequence[Member], infos: Sequence[Mapping[str, Any] | None]) -> list[Component]:
    """Say how each node is; None: it did not answer."""
    has_replicas = any(one.role == "replica" for one in members)
    return [_judge(one, info, has_replicas) for one, info in zip(members, infos, strict=True)]


def _judge(member: Member, info: Mapping[str, Any] | None, has_replicas: bool) -> Component:
    name = f"redis node {member.at[0]}:{member.at[1]}"
    facts: dict[str, Any] = {"role": member.role, "slots": member.slots}
    if info is None or member.is_failed:
        said = "does not answer" if info is None else "the others take it for failed"
        return Component(name, Status.DOWN if member.slots else Status.DEGRADED, said, facts)
    if member.role == "replica":
        facts |= {"master_link": str(info.get("master_link_status", "unknown"))}
        if facts["master_link"] != "up":
            return Component(name, Status.DEGRADED, "does not receive what its master has", facts)
        return Component(name, Status.OK, "", facts)
    facts |= {"replicas": int(info.get("connected_slaves", 0))}
    if member.slots and has_replicas and not facts["replicas"]:
        return Component(name, Status.DEGRADED, "no replica would take over its slots", facts)
    return Component(name, Status.OK, "", facts)


async def _info(link: ClusterLink, node: Node, within_s: float) -> Mapping[str, Any] | None:
    try:
        async with asyncio.timeout(within_s):
            return await link.client_of(node).info("replication")
    except AWAY:
        return None


def read_members(nodes: Mapping[str, Mapping[str, Any]], asked: Node) -> list[Member]:
    """Read `CLUSTER NODES` as redis-py does; nodes that are just being met or have no address are left out."""
    found: list[Member] = []
    for address, told in nodes.items():
        host, _, port = address.rpartition(":")
        flags = frozenset(str(told["flags"]).split(","))
        if not flags & {"handshake", "noaddr"}:
            slots = sum(int(one[-1]) - int(one[0]) + 1 for one in told["slots"])
            found.append(Member(node_at(host, port, asked), flags, slots))
    return sorted(found, key=lambda one: one.at)
