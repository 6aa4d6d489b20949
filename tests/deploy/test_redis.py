"""The Redis that is deployed, from our files and entrypoint: a failover under load, a master that comes back.

Promise: services work as their users and are never refused anything. What users may is in test_redis_users.py.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import AuthenticationError, NoPermissionError

from contract.streams import stream_key
from streamgauge.processes import wait_until
from streamgauge.stack import get
from tests.integration.test_check_config import check, verdicts
from tests.pipeline import Pipeline
from tests.redis_deployed import CACHE, ELECTED_S, FILES, SENTINELS, STREAMS, Deployment, answers

pytestmark = pytest.mark.timeout(400)

KEY = stream_key(0)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("redis")) as made:
        made.open()
        made.start(CACHE, "cache")
        yield made


def test_check_config_looks_at_the_master_that_sentinels_name(deployment: Deployment, dsn: str, tmp_path: Path) -> None:
    where = {"POSTGRES_DSN": dsn, "REDIS_URL": deployment.url("aggregator")}
    run = check("--format", "json", STREAMGAUGE_HOME=str(tmp_path), **where)
    found = {name: one["status"] for name, one in verdicts(run).items() if name.startswith("RE-")}
    assert set(found.values()) == {"pass"}, run.stdout
    assert len(found) == 6
    wrong = where["REDIS_URL"].replace("/streams?", "/nobody?")
    run = check(STREAMGAUGE_HOME=str(tmp_path), **(where | {"REDIS_URL": wrong}))
    assert (run.returncode, "RE-answers   critical FAIL" in run.stdout) == (1, True), run.stdout


def test_no_password_stands_in_a_file_that_the_acl_is_read_from(deployment: Deployment) -> None:
    rendered = (deployment.folder / STREAMS[0] / "run/users.acl").read_text()
    assert "{" not in rendered.replace("{??}", "")
    assert not [user for user, password in deployment.passwords.items() if password in rendered]


@pytest.mark.parametrize("address", [STREAMS[1], SENTINELS[1]])
def test_the_health_check_that_the_docs_give_tells_running_from_not(deployment: Deployment, address: str) -> None:
    text = (FILES.parent / "docs/deployment/redis.md").read_text()
    command = text.split("## Health check")[1].split("```sh\n")[1].split("```")[0]
    kind = "sentinel" if address in SENTINELS else "streams"
    command = command.replace("/run/secrets", str(deployment.secrets(kind)))
    port = deployment.sentinel_port if address in SENTINELS else deployment.port
    for node, code in ((address, 0), ("127.0.0.99", 1)):
        env = {"PATH": os.environ["PATH"], "REDIS_NODE": node, "PORT": str(port)}
        assert subprocess.run(["sh", "-c", command], env=env, capture_output=True, timeout=10).returncode == code


def test_the_cache_is_a_server_of_its_own(deployment: Deployment) -> None:
    with deployment.client("cache", CACHE) as client:
        assert wait_until(lambda: answers(client), 10)
        assert client.set("reference_app:listing:1", b"x", ex=5)
        assert client.info("memory")["maxmemory"] > 0, "it tells how full it is"
        with pytest.raises(NoPermissionError):
            client.get(KEY)
    with deployment.client("admin", CACHE) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lfu"}


def refusals(deployment: Deployment) -> list[Any]:
    """Return what the master refused to anybody since it was last asked."""
    with deployment.client("admin") as client:
        found = client.acl_log()
        client.acl_log_reset()
    return [(one["username"], one["object"]) for one in found]


def stream_of(pipeline: Pipeline) -> dict[str, str]:
    """Return the components by status, as the exporter finds them."""
    _, body = get(pipeline.port, "/health/detailed")
    return {one["name"]: one["status"] for one in json.loads(body or b'{"components": []}')["components"]}


EMITTER = """
import time
from streamgauge import Counter
events = Counter("deployed_events_total", "Events.").labels()
while True:
    events.inc()
    time.sleep(0.005)
"""


def test_services_work_as_their_users_and_a_failover_under_load_loses_only_what_is_counted(
    deployment: Deployment, dsn: str, tmp_path: Path
) -> None:
    """A real producer, aggregator and exporter through Sentinels; the master is killed under a load test."""
    with deployment.client("admin") as client:
        client.flushall()
    refusals(deployment)
    as_aggregator, as_exporter = deployment.url("aggregator"), deployment.url("exporter")
    with (
        Pipeline(tmp_path, dsn, as_aggregator) as services,
        Pipeline(tmp_path / "show", dsn, as_exporter) as shown,
    ):
        services.aggregator()
        (tmp_path / "show").mkdir(exist_ok=True)
        shown.exporter()
        services.emitter(EMITTER, REDIS_URL=deployment.url("producer"))
        assert wait_until(lambda: "deployed_events_total " in shown.scrape(), 60), services.log("emitter").read_text()
        assert wait_until(lambda: ok(stream_of(shown)), 30), stream_of(shown)
        assert refusals(deployment) == []
        load = services.start(
            "load", sys.executable, "-m", "streamgauge", "loadtest", "--events", "600000", "--series", "200",
            "--producers", "2", "--rate", "60000", "--run-id", "failover", "--json",
        )  # fmt: skip
        assert wait_until(lambda: length(deployment) > 20, 30), services.log("load").read_text()
        before = deployment.master()
        deployment.kill(before, signal.SIGKILL)
        assert wait_until(lambda: deployment.master() != before, ELECTED_S), deployment.log(SENTINELS[0]).read_text()
        load.wait(120)
        told = json.loads(services.log("load").read_text().splitlines()[-1])
        assert told["sent"] == told["accepted"] == 600_000
        assert told["committed"] + told["lost"] + told["dropped"] == 600_000, told
        assert (told["in_flight"], told["dropped"], told["quarantined"]) == (0, 0, 0), told
        comes_back_as_a_replica(deployment, before)
        audit = [sys.executable, "-m", "streamgauge", "audit", "--json"]
        run = subprocess.run(audit, env=services.env, capture_output=True, text=True, timeout=60)
        assert json.loads(run.stdout.splitlines()[-1])["ok"] is True, run.stdout
        assert refusals(deployment) == []


def ok(components: dict[str, str]) -> bool:
    """Whether Redis and its Sentinels are well."""
    wanted = ["redis", *(name for name in components if name.startswith("sentinel "))]
    return len(wanted) == 4 and all(components.get(name) == "ok" for name in wanted)


def length(deployment: Deployment) -> int:
    """Return how many entries were ever put into the streams."""
    with deployment.client("admin") as client:
        return sum(
            client.xinfo_stream(stream_key(n))["entries-added"] for n in range(2) if client.exists(stream_key(n))
        )


def comes_back_as_a_replica(deployment: Deployment, former: str) -> None:
    """The entrypoint asks the Sentinels: a former master follows the new one."""
    deployment.start(former, "streams")
    new = deployment.master()
    assert new != former

    def follows() -> bool:
        try:
            with deployment.client("admin", former) as client:
                info = client.info("replication")
        except redis.RedisError:
            return False
        return (info["role"], info.get("master_host"), info.get("master_link_status")) == ("slave", new, "up")

    assert wait_until(follows, 60), deployment.log(former).read_text()


def test_a_node_with_data_does_not_start_while_no_sentinel_answers(tmp_path: Path) -> None:
    with Deployment(tmp_path) as made:
        (tmp_path / STREAMS[0] / "data/appendonlydir").mkdir(parents=True)
        (tmp_path / STREAMS[0] / "data/appendonlydir/x").write_text("")
        process = made.start(STREAMS[0], "streams", REDIS_WAIT_S="1")
        assert process.wait(30) == 1
        assert "no Sentinel answers" in made.log(STREAMS[0]).read_text()


def test_a_master_that_lost_its_disk_does_not_empty_its_replicas(tmp_path: Path) -> None:
    """Back before the Sentinels missed it, it waits until they elected a replica, which has the data."""
    with Deployment(tmp_path) as made:
        made.open()
        with made.client("admin") as client:
            client.xadd(KEY, {"b": "x"})
            assert client.wait(2, 5000) == 2
        former = made.master()
        made.kill(former)
        shutil.rmtree(tmp_path / former / "data")
        made.start(former, "streams")
        assert wait_until(lambda: made.master() != former, ELECTED_S), made.log(former).read_text()
        assert wait_until(lambda: made.replicas() == 2, 60), made.log(former).read_text()
        for address in STREAMS:
            with made.client("admin", address) as client:
                assert client.xlen(KEY) == 1
        switches_on_purpose(made)


def switches_on_purpose(made: Deployment) -> None:
    """What the runbook says before maintenance, by the users that it names."""
    with made.sentinel("client") as client:
        assert client.execute_command("SENTINEL", "CKQUORUM", "streams").startswith(b"OK 3 ")
        assert b"num-slaves" in client.execute_command("SENTINEL", "MASTER", "streams")
    former = made.master()

    def accepted() -> bool:
        with made.sentinel("admin") as client:
            try:
                return bool(client.execute_command("SENTINEL", "FAILOVER", "streams"))
            except redis.ResponseError as error:  # a replica that has just come is not taken at once
                assert "NOGOODSLAVE" in str(error), error
                return False

    assert wait_until(accepted, 60), made.log(SENTINELS[0]).read_text()
    assert wait_until(lambda: made.master() != former, ELECTED_S), made.log(SENTINELS[0]).read_text()


def test_after_a_restart_other_passwords_hold_and_a_failover_works(tmp_path: Path) -> None:
    """Sentinels keep a file of their own with passwords in it: what the secrets say wins."""
    with Deployment(tmp_path) as made:
        made.open()
        with made.client("admin") as client:
            client.xadd(KEY, {"b": "x"})
            assert client.wait(2, 5000) == 2
        before, former = dict(made.passwords), made.master()
        for address in (*SENTINELS, *STREAMS):
            made.kill(address, signal.SIGTERM)
        made.renew_secrets()
        made.open()
        for address in SENTINELS:
            told = (tmp_path / address / "data/sentinel.conf").read_text()
            assert before["sentinel"] not in told
            assert told.count(made.passwords["sentinel"]) == 2
        old = redis.Redis(host=former, port=made.port, username="admin", password=before["admin"], protocol=2)
        with old, pytest.raises(AuthenticationError):
            old.ping()
        former = made.master()
        made.kill(former)
        assert wait_until(lambda: made.master() != former, ELECTED_S), made.log(SENTINELS[0]).read_text()
        with made.client("admin", made.master()) as client:
            assert client.xlen(KEY) == 1


def test_a_missing_secret_is_named(tmp_path: Path) -> None:
    with Deployment(tmp_path) as made:
        (made.secrets("streams") / "redis_producer_password").unlink()
        assert made.start(STREAMS[0], "streams").wait(30) == 1
        assert "redis_producer_password" in made.log(STREAMS[0]).read_text()
