"""The same code on a Redis Cluster of three masters and three replicas, under load.

Promise: a failover and the move of a shard's slot lose nothing and count nothing twice; what is away is shown as away.
"""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import AskError, NoPermissionError

from contract.cluster import slot_of
from contract.streams import CACHE_TTL_KEY, GROUP, full_key, stream_key
from database.connect import SCHEMA
from database.redis_link import open_link
from database.settings import RedisSettings, read_settings
from producers.cluster import HashReader, ask
from producers.sender import client_options
from producers.sender import open_link as open_sender_link
from producers.settings import Settings as SenderSettings
from streamgauge.loadtest import compare_oracle
from tests.exporting import exporter
from tests.integration.test_check_config import check, verdicts
from tests.integration.test_monitor import components
from tests.pipeline import Pipeline
from tests.redis_cluster import MASTERS, PASSWORD, RedisCluster, until

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs a redis-server of 7.0 or newer"),
]

USERS = Path(__file__).parents[2] / "redis" / "users.acl"
SHARDS = 4
EVENTS = 100_000
RATE = 5_000
PRODUCERS = 4
DEADLINE_S = 90.0
FAST = {
    "STREAMGAUGE_SHARDS": str(SHARDS),
    "STREAMGAUGE_RECLAIM_IDLE_S": "1",
    "STREAMGAUGE_RECLAIM_INTERVAL_S": "0.5",
    "STREAMGAUGE_LEASE_S": "1.5",
    "STREAMGAUGE_COMMIT_INTERVAL_S": "0.1",
}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    made = RedisCluster(tmp_path)
    try:
        made.open()
        yield made
    finally:
        made.close()


@pytest.fixture
def pipeline(cluster: RedisCluster, tmp_path: Path, dsn: str) -> Iterator[Pipeline]:
    with Pipeline(tmp_path, dsn, cluster.url, **FAST) as made:
        made.aggregator("aggregator-1")
        yield made


@pytest.fixture
def load(pipeline: Pipeline) -> Iterator[subprocess.Popen[str]]:
    """A load test that has begun to arrive."""
    command = [sys.executable, "-m", "streamgauge", "loadtest", "--real", "--json", "--kind", "mixed"]
    command += ["--events", str(EVENTS), "--rate", str(RATE), "--series", "40", "--producers", str(PRODUCERS)]
    command += ["--oracle", str(pipeline.folder / "oracle"), "--deadline", str(DEADLINE_S)]
    process = subprocess.Popen(command, env=pipeline.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def length(cluster: RedisCluster, shard: int, port: int | None = None) -> int:
    """Return the entries of a shard's stream on the node that serves it (or on one that imports it)."""
    key = stream_key(shard)
    if port is None:
        return int(cluster.ask(cluster.master_of(slot_of(key)), "XLEN", key))
    cluster.ask(port, "ASKING")
    return int(cluster.ask(port, "XLEN", key))


def busiest(cluster: RedisCluster) -> int:
    """Wait until the load arrives; return the shard that holds most of it."""
    until(lambda: sum(length(cluster, shard) for shard in range(SHARDS)) > 20, "the load arrives")
    return max(range(SHARDS), key=lambda shard: length(cluster, shard))


def grows(cluster: RedisCluster, shard: int, port: int | None = None, by: int = 3) -> None:
    """Wait until more entries arrive in a shard."""
    before = length(cluster, shard, port)
    until(lambda: length(cluster, shard, port) >= before + by, f"entries arrive in shard {shard}")


def assert_exact(pipeline: Pipeline, load: subprocess.Popen[str], dsn: str) -> None:
    """Everything is committed once, says the oracle, the ledger and the audit."""
    out, err = load.communicate(timeout=2 * DEADLINE_S)
    assert out, err
    said: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert said["committed"] == said["accepted"] == said["sent"] == EVENTS, said
    assert said["lost"] == said["dropped"] == said["quarantined"] == said["in_flight"] == 0, said
    files = sorted(pipeline.folder.glob("oracle.*"))
    assert len(files) == PRODUCERS
    assert [str(difference) for difference in compare_oracle(files, dsn, SCHEMA)] == []
    command = [sys.executable, "-m", "streamgauge", "audit", "--json"]
    audit = subprocess.run(command, env=pipeline.env, capture_output=True, text=True, timeout=60, check=False)
    assert audit.returncode == 0, audit.stdout + audit.stderr


def test_a_killed_master_under_load_loses_nothing(
    cluster: RedisCluster, pipeline: Pipeline, load: subprocess.Popen[str], dsn: str
) -> None:
    """Its replica takes over; what was acknowledged in the last seconds before is sent again, and counts once."""
    pipeline.aggregator("aggregator-2")
    shard = busiest(cluster)
    assert len({cluster.master_of(slot_of(stream_key(one))) for one in range(SHARDS)}) == MASTERS
    killed = cluster.master_of(slot_of(stream_key(shard)))
    cluster.kill(killed)
    until(lambda: cluster.master_of(slot_of(stream_key(shard))) != killed, "the replica takes over")
    grows(cluster, shard)
    assert_exact(pipeline, load, dsn)


def test_a_slot_that_moves_under_load_loses_nothing(
    cluster: RedisCluster, pipeline: Pipeline, load: subprocess.Popen[str], dsn: str
) -> None:
    """Entries go on arriving while the slot moves, after its stream has moved, and when it has its new master."""
    shard = busiest(cluster)
    slot = slot_of(stream_key(shard))
    source, target = cluster.begin_move(slot)
    grows(cluster, shard, source)
    cluster.carry(slot, source, target)
    grows(cluster, shard, target)
    cluster.end_move(slot, source, target)
    until(lambda: cluster.master_of(slot) == target, "the slot has its new master")
    grows(cluster, shard)
    assert_exact(pipeline, load, dsn)
    groups = cluster.ask(target, "XINFO", "GROUPS", stream_key(shard))
    assert GROUP.encode() in groups[0]


def is_well(found: dict[str, dict[str, Any]]) -> bool:
    return (found["redis"]["status"], found["stream 00"]["status"]) == ("ok", "ok")


async def test_the_monitor_names_each_node_and_what_is_away(cluster: RedisCluster, dsn: str) -> None:
    async with exporter(dsn, cluster.url, STREAMGAUGE_SHARDS=str(SHARDS)) as client:
        assert (await client.get("/metrics")).status_code == 200
        found = await components(client)
        nodes = {name: one for name, one in found.items() if name.startswith("redis node")}
        assert len(nodes) == 2 * MASTERS
        assert {one["status"] for one in nodes.values()} == {"ok"}
        assert sorted(one["facts"]["role"] for one in nodes.values()) == ["master"] * 3 + ["replica"] * 3
        assert found["redis"]["facts"] == {"role": "cluster", "masters": 3, "replicas": 3, "slots": 16384}

        killed = cluster.master_of(slot_of(stream_key(0)))
        cluster.kill(killed)
        found = await components(client)
        assert found[f"redis node 127.0.0.1:{killed}"]["status"] == "down"
        # Nodes hear of it one after another: first the one that is asked here.
        async with asyncio.timeout(DEADLINE_S):
            while (taken := cluster.master_of(slot_of(stream_key(0)))) == killed or not is_well(found):
                found = await components(client)
        assert found[f"redis node 127.0.0.1:{killed}"]["status"] == "degraded"
        assert found[f"redis node 127.0.0.1:{taken}"]["reason"] == "no replica would take over its slots"


def test_check_config_looks_at_a_cluster(cluster: RedisCluster, dsn: str, tmp_path: Path) -> None:
    run = check("--format", "json", STREAMGAUGE_HOME=str(tmp_path), POSTGRES_DSN=dsn, REDIS_URL=cluster.url)
    found = {name: one["status"] for name, one in verdicts(run).items() if name.startswith("RE-")}
    assert set(found.values()) == {"pass"}, run.stdout
    assert len(found) == 6


async def test_shipped_users_may_do_on_a_cluster_what_they_do_on_one_server(cluster: RedisCluster) -> None:
    """Who serves what, a redirect to the node that a slot moves to, and their own commands; not those of others."""
    cluster.add_users(USERS)
    shard, key = 0, stream_key(0)
    slot = slot_of(key)
    source, target = cluster.begin_move(slot)
    sender = open_sender_link(SenderSettings(redis_url=cluster.url_of("producer")), key)
    commands = [("GET", full_key(shard)), ("XADD", key, "*", b"b", b"x")]
    options = {**client_options(SenderSettings()), "username": "producer", "password": PASSWORD}
    with sender:
        for command in commands:
            with pytest.raises(AskError) as asked:
                sender.execute_command(*command)
            reply = ask(asked.value, sender, options, command)
            assert not isinstance(reply, Exception), reply
    reader = HashReader([("127.0.0.1", port) for port in cluster.nodes], options)
    assert await reader.hmget(CACHE_TTL_KEY, ["shop"]) == [None]
    links = {
        name: open_link(read_settings(RedisSettings, {"REDIS_URL": cluster.url_of(name)}))
        for name in ("aggregator", "exporter")
    }
    try:
        await links["aggregator"].xgroup_create(key, GROUP, id="0")
        read = await links["aggregator"].xreadgroup(GROUP, "c", {key: ">"}, count=1)
        assert read[0][1][0][1] == {b"b": b"x"}
        assert (await links["exporter"].xinfo_groups(key))[0]["pending"] == 1
        assert len((await links["exporter"].ask_any("CLUSTER NODES"))[1]) == 2 * MASTERS
        cluster.carry(slot, source, target)
        cluster.end_move(slot, source, target)
        await links["aggregator"].hset(CACHE_TTL_KEY, "shop", "3")
        assert await reader.hmget(CACHE_TTL_KEY, ["shop"]) == [b"3"]
        assert await links["aggregator"].xack(key, GROUP, read[0][1][0][0]) == 1
        with pytest.raises(NoPermissionError):
            await links["exporter"].set(key, 9)
    finally:
        await reader.aclose()
        for link in links.values():
            await link.aclose()
