"""Redis: the node that takes writes, the replicas that it names, and the Sentinels when the address is theirs.

In: `INFO replication` of the node, `SENTINEL` of each Sentinel. Out: one component a node.
Promise: each node that is asked has a deadline of its own: one that hangs does not hide the others.
"""

from collections.abc import Mapping
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from contract.redis_url import Address, parse_redis_url
from database.cluster_link import ClusterLink
from database.redis_connection import guarded
from database.redis_link import Link, link_options
from exporter.components import cluster_nodes
from exporter.components.component import Component, Probe, Severity, Sources, Status
from exporter.streams import COUNT_DEADLINE_S

KIND: Final = "redis"
REPLICA_LAG_S: Final = 10
"""Seconds since a replica last acknowledged; as `min-replicas-max-lag` is usually set."""


def probes(sources: Sources) -> list[Probe]:
    """Return a probe of the node, and one of each Sentinel; of a cluster, one of all its nodes."""
    if isinstance(sources.link, ClusterLink):
        return cluster_nodes.probes(sources, sources.link)
    address = parse_redis_url(sources.settings.redis_url.get_secret_value())

    async def node() -> list[Component]:
        return judge_node(await sources.link.info("replication"))

    found = [Probe("redis", KIND, Severity.WARNING, node, Status.DOWN)]
    for host, port in address.sentinels:

        async def sentinel(host: str = host, port: int = port) -> list[Component]:
            return [await _sentinel(sources, address, host, port)]

        found.append(Probe(f"sentinel {host}:{port}", "sentinels", Severity.WARNING, sentinel, Status.DOWN))
    return found


def judge_node(info: Mapping[str, Any]) -> list[Component]:
    """Return the node and the replicas that it names."""
    role = str(info.get("role", "unknown"))
    replicas: list[Mapping[str, Any]] = [value for key, value in sorted(info.items()) if _is_replica(key)]
    facts = {"role": role, "replicas": len(replicas)}
    if role == "master":
        node = Component("redis", Status.OK, "", facts)
    elif role == "slave":
        facts |= {"role": "replica", "master_link": str(info.get("master_link_status", "unknown"))}
        node = Component("redis", Status.DOWN, "is a replica: it takes no writes", facts)
    else:
        node = Component("redis", Status.UNKNOWN, "does not tell its role", facts)
    return [node, *(_judge_replica(one) for one in replicas)]


def _is_replica(key: str) -> bool:
    return key.startswith("slave") and key[5:].isdigit()


def _judge_replica(one: Mapping[str, Any]) -> Component:
    name = f"redis replica {one.get('ip', '?')}:{one.get('port', '?')}"
    state, lag_s = str(one.get("state", "unknown")), one.get("lag")
    facts = {"role": "replica", "state": state, "lag_s": lag_s, "is_lag_known": lag_s is not None}
    if state != "online":
        return Component(name, Status.DEGRADED, f"is {state}, not online", facts)
    if lag_s is None:
        return Component(name, Status.UNKNOWN, "its lag is not told", facts)
    if lag_s > REPLICA_LAG_S:
        return Component(name, Status.DEGRADED, f"last answered its master {lag_s} s ago", facts)
    return Component(name, Status.OK, "", facts)


async def _sentinel(sources: Sources, address: Address, host: str, port: int) -> Component:
    options: dict[str, Any] = link_options(sources.settings, at_most_s=COUNT_DEADLINE_S)
    options |= address.sentinel_access
    link: Link = guarded(Redis(host=host, port=port, **options))
    name = f"sentinel {host}:{port}"
    facts = {"role": "sentinel", "master": address.master}
    try:
        told = _pairs(await link.execute_command("SENTINEL", "MASTER", address.master))
        await link.execute_command("SENTINEL", "CKQUORUM", address.master)
    except ResponseError as error:
        if "NOQUORUM" in str(error):
            return Component(name, Status.DEGRADED, "no quorum: a failover could not be agreed on", facts)
        return Component(name, Status.DEGRADED, "does not know the master", facts)
    finally:
        await link.aclose()
    facts |= {"address": f"{told.get('ip')}:{told.get('port')}"}
    if "down" in told.get("flags", ""):
        return Component(name, Status.DEGRADED, f"takes the master for {told['flags']}", facts)
    return Component(name, Status.OK, "", facts)


def _pairs(reply: Any) -> dict[str, str]:
    """Read a reply that redis-py has made a dict of, or left as it came."""
    if isinstance(reply, dict):
        return {_text(key): _text(value) for key, value in cast("dict[Any, Any]", reply).items()}
    return {_text(key): _text(value) for key, value in zip(reply[::2], reply[1::2], strict=False)}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
