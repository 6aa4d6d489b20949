"""Service signals: what aggregators, PostgreSQL and Redis say of themselves, now and since the run before.

In: a connection, and a link to Redis. Out: what signals.writer_batch, .pool, .backlog and .redis_server judge.
Promise: growth is compared within one life of its source only; what a server does not tell is None, never 0.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from redis.exceptions import RedisError, ResponseError

from contract.streams import GROUP, SHARD_COUNT_KEY, stream_key
from database.connect import Connection
from database.jobs import AGGREGATOR_CURRENT_S
from database.performance import SHORTEST_S, Growth, note_counters
from database.queries import load
from optimizers.signals.backlog import Flow
from optimizers.signals.pool import Connections
from optimizers.signals.redis_server import WAITED_FOR, Server
from optimizers.signals.writer_batch import RECENT_S, Commits

STALL_AGE_S: Final = 3600
TOLD: Final = "committed_batches"


async def read_aggregators(connection: Connection) -> dict[str, dict[str, Any]]:
    """Return what each aggregator with a current heartbeat says of itself."""
    rows = await connection.fetch(load("exporter_aggregators"))
    return {row["consumer"]: json.loads(row["facts"]) for row in rows if row["age_s"] <= AGGREGATOR_CURRENT_S}


def commits_of(aggregators: Mapping[str, Mapping[str, Any]]) -> dict[str, Commits]:
    """Return the newest commits of each aggregator that tells of them."""
    return {
        name: _recent(facts)
        for name, facts in aggregators.items()
        if {"commit_s", "commit_batches", "commit_age_s", "commit_max_batches"} <= facts.keys()
    }


def _recent(facts: Mapping[str, Any]) -> Commits:
    # An aggregator of an older version does not tell rows.
    rows = facts.get("commit_rows", [0] * len(facts["commit_s"]))
    told = zip(facts["commit_s"], facts["commit_batches"], rows, facts["commit_age_s"], strict=True)
    recent = [(seconds, batches, rows) for seconds, batches, rows, age_s in told if age_s <= RECENT_S]
    seconds, batches, counts = ([one[i] for one in recent] for i in range(3))
    return Commits(seconds, batches, counts, facts["commit_max_batches"])


async def read_connections(connection: Connection) -> tuple[str, Connections | str]:
    """Return the database's name, and what its connections were doing since the run before or why nobody knows."""
    row = await connection.fetchrow(load("connection_time"))
    assert row is not None, "BUG: this database is in pg_stat_database"
    growth = await note_counters(connection, "connection_time", row["epoch"], {"busy_ms": row["busy_ms"]})
    if growth is None or "busy_ms" not in growth.of:
        return row["database"], "connection time is compared with the run before, and there is none yet"
    if growth.is_short:
        return row["database"], _too_soon(growth)
    busy = growth.of["busy_ms"] / 1000 / growth.seconds
    seen = Connections(busy, row["open"], row["max_connections"], row["reserved"], growth.seconds, row["clients"])
    return row["database"], seen


class Streams(NamedTuple):
    """All shards together."""

    lag: int | None
    """Entries nobody has read; None where one shard does not know."""
    added: Mapping[str, float]
    """Entries ever added, by shard."""
    is_told: bool
    """False where Redis does not tell how many were added: before version 7."""


async def read_streams(link: Any) -> Streams:
    """Return what the streams say; Redis errors are raised."""
    lag: int | None = 0
    added: dict[str, float] = {}
    is_told = True
    for shard in range(int(await link.get(SHARD_COUNT_KEY) or 0)):
        key = stream_key(shard)
        try:
            stream, groups = await link.xinfo_stream(key), await link.xinfo_groups(key)
        except ResponseError:
            continue  # no stream yet
        ours = [one for one in groups if one["name"] in (GROUP, GROUP.encode())]
        waits: int | None = ours[0].get("lag") if ours else stream["length"]
        lag = None if lag is None or waits is None else lag + waits
        if stream.get("entries-added") is None:
            is_told = False
        else:
            added[f"added {shard}"] = float(stream["entries-added"])
    return Streams(lag, added, is_told)


async def read_flow(
    connection: Connection, streams: Streams, epoch: str, aggregators: Mapping[str, Mapping[str, Any]]
) -> Flow | str:
    """Return what went through the streams since the run before, or why nobody knows."""
    # Sums of a process: they are compared only while the same processes tell them.
    done = {name: float(facts[TOLD]) for name, facts in aggregators.items() if TOLD in facts}
    came = await note_counters(connection, "streams", epoch, streams.added)
    went = await note_counters(connection, "commits", " ".join(sorted(done)), done)
    if not streams.is_told:
        return "Redis before version 7 does not tell how many entries came and how many wait"
    if streams.lag is None:
        return "Redis does not know how many entries wait"
    if not aggregators:
        return "no aggregator has a current heartbeat"
    if done.keys() != aggregators.keys():
        return "an aggregator of an older version does not tell how many batches it committed"
    return _compared(streams.lag, came, went, streams.added.keys(), done.keys())


def _compared(
    lag: int, came: Growth | None, went: Growth | None, shards: Collection[str], consumers: Collection[str]
) -> Flow | str:
    if came is None:
        return "rates are compared with the run before, and there is none yet in this life of Redis"
    if went is None:
        return "rates are compared with the run before, and there is none yet of the same aggregators"
    if not shards:
        return "there is no stream yet"
    if set(shards) - came.of.keys() or set(consumers) - went.of.keys():
        return "rates are compared with the run before, which did not know every stream and aggregator"
    if came.is_short or went.is_short:
        return _too_soon(min(came, went, key=lambda growth: growth.seconds))
    return Flow(lag, _rate(came), _rate(went), len(consumers))


def _too_soon(growth: Growth) -> str:
    return f"the run before was {growth.seconds:.0f} s ago, {SHORTEST_S:.0f} needed"


def _rate(growth: Growth) -> float:
    return sum(growth.of.values()) / growth.seconds


async def read_server(connection: Connection, link: Any, info: Mapping[str, Any]) -> Server:
    """Return what Redis says of itself, with what grew since the run before."""
    told = {"evicted": info.get("evicted_keys"), "delayed_fsyncs": info.get("aof_delayed_fsync")}
    told |= {"hits": info.get("keyspace_hits"), "misses": info.get("keyspace_misses")}
    counters = {name: float(value) for name, value in told.items() if value is not None}
    growth = await note_counters(connection, "redis", str(info["run_id"]), counters)
    grown: Mapping[str, float] = growth.of if growth is not None else {}
    return Server(
        used_bytes=int(info["used_memory"]),
        max_bytes=int(info["maxmemory"]),
        policy=str(info["maxmemory_policy"]),
        evicted=None if "evicted" not in grown else int(grown["evicted"]),
        delayed_fsyncs=None if "delayed_fsyncs" not in grown else int(grown["delayed_fsyncs"]),
        worst_ms=await _worst_ms(link),
        buffer_bytes=_buffers(info),
        tells_fsyncs="aof_delayed_fsync" in info,
        lookups=(int(grown["hits"]), int(grown["misses"])) if {"hits", "misses"} <= grown.keys() else None,
        percentiles_ms=await _percentiles_ms(link),
    )


async def _percentiles_ms(link: Any) -> dict[str, dict[str, float]] | None:
    """Return the times of commands; None before Redis 7, and where `latency-tracking` is off."""
    try:
        told = await link.info("latencystats")
    except RedisError:
        return None  # a user may be kept from asking
    found: dict[str, dict[str, float]] = {}
    for command in WAITED_FOR:
        times: Mapping[str, float] | None = told.get(f"latency_percentiles_usec_{command}")
        if times is not None:
            found[command] = {name: float(us) / 1000 for name, us in times.items()}
    return found if told else None


def _buffers(info: Mapping[str, Any]) -> int | None:
    told = [info.get("mem_clients_normal"), info.get("mem_clients_slaves")]
    return None if None in told else sum(int(each) for each in told if each is not None)


async def _worst_ms(link: Any) -> float | None:
    """Return the longest stall that LATENCY noted within the last hour; None when it never noted one.

    Whether it watches is a setting, and who may read one setting may read them all, passwords among them.
    """
    try:
        now_s, _ = await link.time()
        events = await link.execute_command("LATENCY LATEST")
    except RedisError:
        return None  # a user may be kept from asking
    if not events:
        return None
    return max((float(event[2]) for event in events if now_s - int(event[1]) <= STALL_AGE_S), default=0.0)
