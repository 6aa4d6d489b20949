"""ProductionMonitor on real servers: what is wrong is named, what hangs delays nobody, what is secret is not told."""

import contextlib
import re
import signal
import socket
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, cast

import asyncpg
import httpx
import psutil
import pytest
import redis

from contract.streams import GROUP, stream_key
from database.migrate import migrate
from database.settings import SettingsError, read_settings
from exporter.app import make_app
from exporter.components import schedule
from exporter.settings import ExporterSettings
from streamgauge.embedded import PostgresServer, RedisServer
from streamgauge.processes import free_port, start, stop, wait_until
from tests.debian_postgres import DebianPostgres, is_installed
from tests.exporting import exporter, samples, writer
from tests.postgres_pair import home

WITHIN_S = 4.0
"""Probes end after 2 s; the rest is for a machine that does other things."""


@contextlib.contextmanager
def black_hole() -> Generator[int, None, None]:
    """A port that takes connections and never says anything."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]


async def components(client: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    """Return what /health/detailed says, by name."""
    return {one["name"]: one for one in (await client.get("/health/detailed")).json()["components"]}


async def test_black_holes_delay_nobody(dsn: str, redis_url: str) -> None:
    with black_hole() as port:
        async with exporter(
            f"postgresql://u:hunter2@127.0.0.1:{port}/x", f"redis://:hunter2@127.0.0.1:{port}"
        ) as client:
            for path in ("/metrics/health", "/health/detailed"):
                began = time.perf_counter()
                answer = await client.get(path)
                assert time.perf_counter() - began < WITHIN_S, path
                assert (answer.status_code, answer.json()["status"]) == (503, "down")
            found = {one["name"]: one for one in answer.json()["components"]}
            assert found["database"]["reason"] == "no answer within 2 s"
            assert (found["redis"]["status"], found["streams"]["status"]) == ("down", "unknown")


@pytest.mark.parametrize("away", ["redis", "database"])
async def test_one_black_hole_hides_nothing_else(dsn: str, redis_url: str, away: str) -> None:
    with black_hole() as port:
        hole = {"redis": f"redis://127.0.0.1:{port}", "database": f"postgresql://u@127.0.0.1:{port}/x"}
        addresses = {"database": dsn, "redis": redis_url} | {away: hole[away]}
        async with exporter(addresses["database"], addresses["redis"]) as client:
            began = time.perf_counter()
            answer = await client.get("/metrics/health")
            assert time.perf_counter() - began < WITHIN_S
            told = answer.json()["components"]
            assert told[away]["status"] == "down", told
            assert told[{"redis": "database", "database": "redis"}[away]]["status"] == "ok"
            # A scrape needs both: an exporter that never asked Redis cannot tell a stale primary from the current one.
            assert (answer.status_code, told["snapshot"]["status"]) == (503, "down")


@contextlib.contextmanager
def stopped(pid: int) -> Generator[None, None, None]:
    """Freeze a process and its children."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for one in family:
        one.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for one in family:
            one.send_signal(signal.SIGCONT)


async def test_frozen_servers_delay_nobody_and_are_well_again_when_they_go_on(
    dsn: str, redis_url: str, postgres_server: PostgresServer, redis_server: RedisServer
) -> None:
    async with exporter(dsn, redis_url) as client:
        assert (await client.get("/metrics/health")).status_code == 200
        with stopped(postgres_server.pid), stopped(redis_server.pid):
            for _ in range(2):
                began = time.perf_counter()
                answer = await client.get("/metrics/health")
                assert time.perf_counter() - began < WITHIN_S
                assert (answer.status_code, answer.json()["status"]) == (503, "down")
            for _ in range(2):
                began = time.perf_counter()
                page = await client.get("/")
                assert time.perf_counter() - began < WITHIN_S
                assert (page.status_code, "no answer within 2 s" in page.text) == (200, True)
                assert "none yet" not in page.text, "what cannot be read is unknown, not none"
        deadline = time.monotonic() + 30
        while (await client.get("/metrics/health")).status_code != 200:
            assert time.monotonic() < deadline
        assert (await components(client))["redis"]["status"] == "ok"


SERVICES = (
    "/metrics/database",
    "/metrics/performance",
    "/api/monitoring/database-optimization/status",
    "/api/monitoring/jobs",
    "/api/monitoring/jobs/upkeep/history",
    "/api/thresholds",
    "/api/thresholds/1/history",
)


@pytest.mark.parametrize("is_open", [False, True], ids=["before any connection", "with open connections"])
async def test_what_the_services_say_is_refused_in_time_while_the_database_hangs(
    dsn: str, redis_url: str, postgres_server: PostgresServer, is_open: bool
) -> None:
    async with exporter(dsn, redis_url) as client:
        if is_open:
            for path in SERVICES:
                assert (await client.get(path)).status_code in (200, 404)
        with stopped(postgres_server.pid):
            for path in SERVICES:
                began = time.perf_counter()
                answer = await client.get(path)
                assert time.perf_counter() - began < WITHIN_S, path
                assert (answer.status_code, answer.json()["error"]) == (
                    503,
                    "the database does not answer: TimeoutError",
                )
        deadline = time.monotonic() + 30
        while (await client.get(SERVICES[0])).status_code != 200:
            assert time.monotonic() < deadline


async def test_a_fault_in_one_probe_hides_nothing_else(
    dsn: str, redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told as unknown, and is in the log once, with its traceback."""

    def broken(_: Any) -> Any:
        raise KeyError("beat_at")

    async with exporter(dsn, redis_url) as client:
        well = await components(client)
        monkeypatch.setattr(schedule, "judge", broken)
        for _ in range(2):
            answer = await client.get("/health/detailed")
            found = {one["name"]: one for one in answer.json()["components"]}
            assert answer.status_code == 200
            assert found["schedule"]["status"] == "unknown"
            assert found["schedule"]["reason"] == "its probe failed: KeyError"
            assert found.keys() == well.keys()
            assert found["database"]["status"] == "ok"
    faults = [record for record in caplog.records if record.getMessage() == "probe_failed"]
    assert [fault.exc_info is not None for fault in faults] == [True]


async def test_a_scrape_that_is_answered_is_what_ready_means(
    dsn: str, redis_url: str, redis_server: RedisServer
) -> None:
    """Which database acknowledgements refer to was confirmed before Redis hung; so /metrics goes on."""
    async with exporter(dsn, redis_url) as client:
        assert (await client.get("/readyz")).status_code == 200
        with stopped(redis_server.pid):
            for path in ("/metrics", "/readyz"):
                assert (await client.get(path)).status_code == 200, path
            assert (await components(client))["redis"]["status"] == "down"


SECRETS = ("hunter2", "s3cr3t-user", "open-sesame", "t0ken")


@pytest.mark.parametrize("how", ["closed", "black hole", "refused"])
async def test_no_secret_is_ever_told(postgres_server: PostgresServer, redis_server: RedisServer, how: str) -> None:
    """A user, passwords and the token are in the settings; every page is read while what they open fails."""
    with black_hole() as hole:
        port = {"closed": free_port(), "black hole": hole, "refused": redis_server.port}[how]
        database = f"postgresql://s3cr3t-user:hunter2@127.0.0.1:{port}/x"
        if how == "refused":  # the server answers that there is no such user
            database = postgres_server.dsn("x").replace("streamgauge@", "s3cr3t-user:hunter2@")
        settings = {"STREAMGAUGE_POSTGRES_REPLICAS": database, "STREAMGAUGE_EXPORTER_TOKEN": "t0ken"}
        settings |= {"STREAMGAUGE_SCRAPE_DEADLINE_S": "0.5", "STREAMGAUGE_PROBE_DEADLINE_S": "0.3"}
        settings |= {"STREAMGAUGE_POSTGRES_CONNECT_TIMEOUT_S": "0.3"}
        address = f"redis://s3cr3t-user:open-sesame@127.0.0.1:{port}/0"
        async with exporter(database, address, **settings) as client:
            client.headers["Authorization"] = "Bearer t0ken"
            described = (await client.get("/openapi.json")).json()["paths"]
            pages = [path for path, operations in described.items() if "get" in operations]
            assert {"/metrics", "/health/detailed", "/api/rollups", "/readyz"} <= set(pages)
            for template in ["/", "/openapi.json", *pages]:
                path = re.sub("{[^}]*}", "1", template.replace("{job}", "upkeep"))
                answer = await client.get(path, params={"metric": "x", "series": "x"})
                assert answer.status_code in (200, 404, 503), path
                told = answer.text + repr(answer.headers)
                assert not [secret for secret in SECRETS if secret in told], path


async def test_since_outlives_the_exporter(dsn: str, redis_url: str) -> None:
    async with exporter(dsn, redis_url) as client:
        before = await components(client)
        deadline = time.monotonic() + 10
        async with writer(dsn) as rows:
            while await rows.connection.fetchval("SELECT count(*) FROM component_states") < len(before):
                assert time.monotonic() < deadline
    async with exporter(dsn, redis_url) as client:
        after = await components(client)
        assert {name: one["since"] for name, one in after.items()} == {
            name: one["since"] for name, one in before.items()
        }
    async with writer(dsn) as rows, exporter(dsn, redis_url) as client:
        await rows.connection.execute("INSERT INTO aggregators (consumer) VALUES ('one')")
        changed = await components(client)
        assert changed["aggregators"]["status"] == "ok"
        assert changed["aggregators"]["since"] > before["aggregators"]["since"]
        assert changed["redis"]["since"] == before["redis"]["since"]


@pytest.fixture
def stream(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, protocol=2, socket_timeout=10) as client:
        yield client


async def shard(client: httpx.AsyncClient) -> dict[str, Any]:
    """Return how stream 00 is."""
    return (await components(client))["stream 00"]


async def test_lag_is_counted_or_unknown_but_never_0_for_unknown(dsn: str, redis_url: str, stream: Any) -> None:
    key = stream_key(0)
    async with exporter(dsn, redis_url) as client:
        assert (await shard(client))["reason"] == "there is no stream yet"
        stream.xgroup_create(key, GROUP, "0", mkstream=True)
        ids = [stream.xadd(key, {"b": b"x"}) for _ in range(20)]
        assert (await shard(client))["facts"]["lag"] == 20
        stream.xreadgroup(GROUP, "test", {key: ">"}, count=10)
        stream.xdel(key, ids[15])  # after this Redis does not know the lag
        facts = (await shard(client))["facts"]
        assert (facts["lag"], facts["is_lag_known"], facts["pending"]) == (9, True, 10)
        with stream.pipeline() as pipe:
            for _ in range(300):
                pipe.xadd(key, {"b": b"x"})
            pipe.execute()
        found = await shard(client)
        assert (found["status"], found["facts"]["lag"], found["facts"]["is_lag_known"]) == ("unknown", None, False)
        assert found["facts"]["at_least"] == 256
        stream.xreadgroup(GROUP, "test", {key: ">"}, count=1000)
        assert (await shard(client))["facts"]["lag"] == 0


async def test_entries_removed_unread_are_named(dsn: str, redis_url: str, stream: Any) -> None:
    key = stream_key(0)
    stream.xgroup_create(key, GROUP, "0", mkstream=True)
    for _ in range(10):
        stream.xadd(key, {"b": b"x"})
    stream.xreadgroup(GROUP, "test", {key: ">"}, count=5)
    async with exporter(dsn, redis_url) as client:
        assert (await shard(client))["status"] == "ok"
        stream.xtrim(key, maxlen=2, approximate=False)
        found = await shard(client)
        assert found["status"] == "degraded"
        assert found["reason"].startswith("entries were removed before they were delivered")


async def test_an_entry_that_waits_too_long_is_named(dsn: str, redis_url: str, stream: Any) -> None:
    key = stream_key(0)
    stream.xgroup_create(key, GROUP, "0", mkstream=True)
    stream.xadd(key, {"b": b"x"}, id=f"{int((time.time() - 100) * 1000)}-0")
    async with exporter(dsn, redis_url) as client:
        found = await shard(client)
        assert found["status"] == "degraded"
        assert 90 < found["facts"]["waiting_s"] < 200


async def own(client: httpx.AsyncClient) -> dict[str, float]:
    """Return the samples of /metrics/self."""
    return samples((await client.get("/metrics/self")).text)


async def test_metrics_self_shows_what_the_monitor_found_and_nothing_for_unknown(
    dsn: str, redis_url: str, stream: Any
) -> None:
    key = stream_key(0)
    stream.xgroup_create(key, GROUP, "0", mkstream=True)
    first = stream.xadd(key, {"b": b"x"}, id=f"{int((time.time() - 100) * 1000)}-0")
    async with exporter(dsn, redis_url) as client:
        told = await own(client)
        shown = 'streamgauge_component_status{component="stream 00",kind="streams",severity="warning",status="%s"}'
        assert (told[shown % "degraded"], told[shown % "ok"]) == (1.0, 0.0)
        assert told['streamgauge_stream_lag_entries{shard="00"}'] == 1.0
        assert told['streamgauge_stream_oldest_wait_seconds{shard="00"}'] > 90
        assert told['streamgauge_threshold_breaches{severity="critical"}'] == 0.0
        stream.xreadgroup(GROUP, "test", {key: ">"}, count=10)
        with stream.pipeline() as pipe:
            for _ in range(300):
                pipe.xadd(key, {"b": b"x"})
            pipe.execute()
        middle = stream.xrange(key, count=100)[50][0]
        stream.xdel(key, first, middle)  # after this Redis does not know the lag, and there is too much to count
        told = await own(client)
        assert told['streamgauge_stream_lag_known{shard="00"}'] == 0.0
        assert 'streamgauge_stream_lag_entries{shard="00"}' not in told
        assert (told['streamgauge_stream_pending_entries{shard="00"}'], len(told) > 20) == (1.0, True)


async def test_metrics_self_answers_while_redis_is_away(dsn: str) -> None:
    async with exporter(dsn, f"redis://127.0.0.1:{free_port()}") as client:
        told = await own(client)
        shown = 'streamgauge_component_status{component="redis",kind="redis",severity="warning",status="down"}'
        assert told[shown] == 1.0
        assert not any(name.startswith("streamgauge_stream_") for name in told)


async def test_producers_tell_gaps_and_losses(dsn: str, redis_url: str) -> None:
    async with writer(dsn) as rows, exporter(dsn, redis_url) as client:
        number = await rows.producer()
        assert (await components(client))["producers"]["status"] == "ok"
        gap = "INSERT INTO gaps VALUES ($1, 1, 2, 10, 17, 0, 0, now(), NULL)"
        await rows.connection.execute(gap, number)
        assert (await components(client))["producers"]["reason"] == "1 open gaps with 7 events"
        await rows.connection.execute("UPDATE gaps SET closed_at = now()")
        assert "7 events were lost" in (await components(client))["producers"]["reason"]
        await rows.connection.execute("UPDATE gaps SET closed_at = now() - interval '1 hour'")
        found = (await components(client))["producers"]
        assert (found["status"], found["facts"]["lost_events"]) == ("ok", 7)


async def test_watermark_is_that_of_the_producer_that_is_furthest_behind(dsn: str, redis_url: str) -> None:
    """Ended ones, and those that died on a shard that goes on, hold nothing up."""
    now = int(time.time())
    async with writer(dsn) as rows, exporter(dsn, redis_url) as client:
        await rows.connection.execute("INSERT INTO aggregators (consumer, facts) VALUES ('one', '{}')")
        found = (await components(client))["watermark"]
        assert (found["status"], found["reason"], found["value"]) == ("ok", "no producer lives", None)
        await rows.producer(watermark_s=now)
        await rows.producer(watermark_s=now - 900, age_s=60)
        await rows.producer(watermark_s=now - 900, fin=True)
        found = (await components(client))["watermark"]
        assert (found["status"], found["facts"]["live"]) == ("ok", 1)
        assert 0 <= found["value"] < 30
        await rows.producer(shard=1, watermark_s=now - 100, age_s=100)
        found = (await components(client))["watermark"]
        assert (found["status"], found["facts"]["live"]) == ("degraded", 2)
        assert 100 <= found["value"] < 130


async def test_a_slot_that_nobody_uses_is_named(dsn: str, redis_url: str, postgres_server: PostgresServer) -> None:
    """With the WAL that it keeps."""
    name = "monitor_slot"
    async with writer(dsn) as rows, exporter(dsn, redis_url) as client:
        assert (await components(client))["replication slots"]["value"] is None
        await rows.connection.execute(f"SELECT pg_create_physical_replication_slot('{name}', true)")
        try:
            found = (await components(client))["replication slots"]
            assert (found["status"], found["reason"]) == ("degraded", f"nobody uses {name}")
            assert found["value"] >= 0
        finally:
            await rows.connection.execute(f"SELECT pg_drop_replication_slot('{name}')")
        assert (await components(client))["replication slots"]["status"] == "ok"


async def test_schedule_tells_what_is_overdue_and_what_failed(dsn: str, redis_url: str) -> None:
    async with writer(dsn) as rows, exporter(dsn, redis_url) as client:
        await rows.connection.execute(
            "INSERT INTO jobs (job, title, every_s, judges_data) VALUES ('a', 'A', 60, false)"
        )
        assert (await components(client))["schedule"]["status"] == "ok"
        await rows.connection.execute("UPDATE jobs SET first_seen_at = now() - interval '1 hour'")
        assert (await components(client))["schedule"]["reason"] == "overdue: a"


@pytest.fixture
def folder() -> Iterator[Path]:
    with home() as made:
        yield made


@pytest.mark.skipif(not is_installed(), reason="needs the package postgresql-15")
async def test_a_replica_is_as_far_behind_as_its_heartbeat_row(folder: Path, redis_url: str) -> None:
    primary = DebianPostgres(folder / "a")
    standby: DebianPostgres | None = None
    try:
        primary.open()
        primary.create_database("sg")
        await migrate(primary.dsn("sg"))
        standby = primary.standby(folder / "b")
        settings = {"STREAMGAUGE_POSTGRES_REPLICAS": standby.dsn("sg"), "STREAMGAUGE_REPLICA_LAG_S": "5"}
        name = f"replica {folder / 'b'}:5432"
        async with writer(primary.dsn("sg")) as rows, exporter(primary.dsn("sg"), redis_url, **settings) as client:
            found = (await components(client))[name]
            assert (found["status"], found["facts"]["lag_s"]) == ("unknown", None), "nobody touches the row"
            await rows.connection.execute("UPDATE heartbeats SET at = clock_timestamp()")
            await until(client, name, "ok")
            await set_replay(standby.dsn("sg"), "pause")
            await rows.connection.execute("UPDATE heartbeats SET at = clock_timestamp() + interval '8 s'")
            found = await until(client, name, "degraded")
            assert 7 < found["facts"]["lag_s"] < 12
            await set_replay(standby.dsn("sg"), "resume")
            assert (await until(client, name, "ok"))["facts"]["receiver"] == "streaming"
            before = await follow(standby.dsn("postgres"), "")
            cut = await until(client, name, "degraded")
            assert cut["reason"] == "receives nothing: no WAL receiver runs", "though it is not behind yet"
            await follow(standby.dsn("postgres"), before)
            await rows.connection.execute("UPDATE heartbeats SET at = clock_timestamp()")
            await until(client, name, "ok")
            standby.kill()
            assert (await until(client, name, "down"))["reason"].startswith("does not answer")
    finally:
        for server in (standby, primary):
            if server is not None:
                server.close()


async def until(client: httpx.AsyncClient, name: str, status: str) -> dict[str, Any]:
    """Return the component when it has the status."""
    deadline = time.monotonic() + 20
    while True:
        found = (await components(client))[name]
        if found["status"] == status:
            return found
        assert time.monotonic() < deadline, found


async def set_replay(dsn: str, what: str) -> None:
    """Pause or resume a standby."""
    connection = await asyncpg.connect(dsn, timeout=10)
    await connection.execute(f"SELECT pg_wal_replay_{what}()")
    await connection.close(timeout=10)


async def follow(dsn: str, primary: str) -> str:
    """Let a standby follow a primary, or nobody; returns whom it followed."""
    connection = await asyncpg.connect(dsn, timeout=10)
    before: str = await connection.fetchval("SELECT current_setting('primary_conninfo')")
    quoted = primary.replace("'", "''")
    await connection.execute(f"ALTER SYSTEM SET primary_conninfo = '{quoted}'")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close(timeout=10)
    return before


async def test_sentinels_and_replicas_are_components(dsn: str, redis_server: RedisServer, tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nsentinel monitor m 127.0.0.1 {redis_server.port} 1\n"
    )
    process = start(("redis-sentinel", str(config)), tmp_path / "sentinel.log")
    replica = start(
        ("redis-server", "--port", str(second := free_port()), "--save", "", "--dir", str(tmp_path), "--replicaof",
         "127.0.0.1", str(redis_server.port)),
        tmp_path / "replica.log",
    )  # fmt: skip
    try:
        url = f"redis+sentinel://127.0.0.1:{port}/m"
        assert wait_until(lambda: answers(port), 20)
        async with exporter(dsn, url) as client:
            await until_named(client, f"redis replica 127.0.0.1:{second}", "ok")
            found = await components(client)
            assert found["redis"]["facts"]["role"] == "master"
            assert (found[f"sentinel 127.0.0.1:{port}"]["status"]) == "ok"
            stop(replica, signal.SIGTERM, 10)
            replica = None
        async with exporter(dsn, f"redis+sentinel://127.0.0.1:{port},127.0.0.1:{free_port()}/m") as client:
            told = (await client.get("/metrics/health")).json()
            assert told["components"]["redis"]["status"] == "ok"
            assert told["components"]["sentinels"]["status"] == "down"
    finally:
        for one in (replica, process):
            if one is not None:
                stop(one, signal.SIGKILL, 10)


def answers(port: int) -> bool:
    """Whether a Sentinel answers."""
    try:
        with redis.Redis(port=port, protocol=2, socket_timeout=1) as client:
            return cast("Any", client).execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "m") is not None
    except redis.RedisError:
        return False


async def until_named(client: httpx.AsyncClient, name: str, status: str) -> None:
    """Wait for a component to exist."""
    deadline = time.monotonic() + 20
    while (await components(client)).get(name, {}).get("status") != status:
        assert time.monotonic() < deadline


@pytest.mark.parametrize("text", ["nonsense", "mysql://h/x", "postgresql:///x", "postgresql://h:x/y"])
def test_a_bad_replica_is_named_by_its_number_only(text: str) -> None:
    environ = {"STREAMGAUGE_POSTGRES_REPLICAS": f"postgresql://u:hunter2@h/x {text}"}
    with pytest.raises(SettingsError, match="STREAMGAUGE_POSTGRES_REPLICAS: number 2") as told:
        make_app(read_settings(ExporterSettings, environ))
    assert "hunter2" not in str(told.value)
