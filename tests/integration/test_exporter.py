"""The exporter on a real PostgreSQL and Redis: what it shows of hand-made rows, and how it answers."""

import gzip
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis
from prometheus_client.openmetrics import parser as openmetrics

from contract.batch import Body, Directory, encode_directory, seal
from contract.streams import FIELD, GROUP, stream_key
from database.queries import load
from exporter.ledger import STATES
from tests.exporting import Writer, exporter, scrape, writer

GOLDEN = Path(__file__).parent.parent / "golden"
OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}


async def fill(rows: Writer) -> None:
    """Write one metric of each kind, with what is awkward to write down."""
    async with rows.connection.transaction():
        requests = await rows.metric("shop_requests_total", 1, text='Requests, "all" of them: C:\\new\nline.')
        latency = await rows.metric("shop_latency_seconds", 3)
        one, two = await rows.producer(), await rows.producer(shard=1)
        plain = await rows.series(requests, "shop_requests_total")
        odd = await rows.series(requests, r'shop_requests_total{path="C:\\x\n\"100%\" %s é"}')
        timed = await rows.series(latency, 'shop_latency_seconds{route="/a"}')
        old, new = await rows.layout(latency, 0.1, 0.5, 1), await rows.layout(latency, 0.1, 1, 2)
        await rows.total(plain, 3, 3.0)
        await rows.total(plain, 2, 0.25, shard=1)
        await rows.total(odd, 1, 1e300)
        await rows.total(timed, 4, 2.5, layout=old, le=[1, 1, 1, 1])
        await rows.total(timed, 3, 4.0, layout=new, shard=1, le=[1, 1, 0, 1])
        touched = [plain, odd, timed]
        for merge in ("sum", "min", "max", "mean", "last", "all"):
            gauge = await rows.series(
                await rows.metric(f"shop_{merge}_gauge", 2, merge=merge), f'shop_{merge}_gauge{{x="y"}}'
            )
            await rows.gauge(gauge, one, 7.5, set_ms=2)
            await rows.gauge(gauge, two, -2.0, set_ms=1)
            touched.append(gauge)
        await rows.commit(*touched)


def own_lines_left_out(text: str) -> str:
    """Return the lines that do not depend on the time."""
    return "".join(line + "\n" for line in text.splitlines() if "streamgauge_" not in line)


@pytest.mark.parametrize(("name", "headers"), [("text", {}), ("openmetrics", OPENMETRICS)])
async def test_exposition_is_byte_exact(dsn: str, redis_url: str, name: str, headers: dict[str, str]) -> None:
    async with writer(dsn) as rows, exporter(dsn, redis_url) as client:
        await fill(rows)
        answer = await client.get("/metrics", headers=headers)
        assert own_lines_left_out(answer.text) == (GOLDEN / f"{name}.txt").read_text()


async def test_openmetrics_parser_reads_everything(dsn: str, redis_url: str) -> None:
    async with writer(dsn) as rows, exporter(dsn, redis_url) as client:
        await fill(rows)
        answer = await client.get("/metrics", headers=OPENMETRICS)
        assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        families = {family.name: family for family in openmetrics.text_string_to_metric_families(answer.text)}
        odd = next(s for s in families["shop_requests"].samples if s.labels)
        assert odd.labels == {"path": 'C:\\x\n"100%" %s é'}
        assert families["shop_latency_seconds"].type == "histogram"
        assert families["streamgauge_committed_events"].type == "counter"


async def test_incremental_refresh_equals_a_full_one(dsn: str, redis_url: str) -> None:
    """After new metrics, series, layouts, gauges and producers, an old exporter says what a new one says."""
    async with writer(dsn) as rows, exporter(dsn, redis_url) as old:
        await scrape(old)
        await fill(rows)
        await scrape(old)
        async with rows.connection.transaction():
            await rows.total(1, 1, 0.5)
            await rows.gauge(4, 1, 9.0, set_ms=9)
            fresh = await rows.series(1, 'shop_requests_total{path="new"}')
            await rows.total(fresh, 1, 1.0)
            layout = await rows.layout(2, 0.1, 3)
            await rows.total(3, 1, 0.1, layout=layout, le=[1, 0, 0])
            await rows.gauge(9, await rows.producer(), 4.0)
            await rows.commit(1, 3, 4, 9, fresh)
        found = await scrape(old)
        async with exporter(dsn, redis_url) as new:
            assert {k: v for k, v in found.items() if "streamgauge_in_flight" not in k} == {
                k: v for k, v in (await scrape(new)).items() if "streamgauge_in_flight" not in k
            }
        assert found['shop_latency_seconds_bucket{route="/a",le="0.1"}'] == 3
        assert 'shop_latency_seconds_bucket{route="/a",le="1.0"}' not in found
        assert found['shop_all_gauge{producer="3",x="y"}'] == 4


async def test_retired_layout_lets_its_counts_stay(dsn: str, redis_url: str) -> None:
    """When the old buckets are retired the new ones are served, and no served count falls."""
    async with writer(dsn) as rows, exporter(dsn, redis_url) as client:
        await fill(rows)
        before = await scrape(client)
        async with rows.connection.transaction():
            await rows.connection.execute("UPDATE layouts SET retired_at = now() WHERE layout_id = 1")
            await rows.connection.execute("UPDATE state SET generation = generation + 1")
        after = await scrape(client)
        buckets = {key for key in before if key.startswith("shop_latency_seconds")}
        assert all(after[key] >= before[key] for key in buckets)
        assert after['shop_latency_seconds_bucket{route="/a",le="2.0"}'] == 5


async def test_counts_that_overflow_a_sum_end_no_scrape(dsn: str, redis_url: str) -> None:
    """A producer may say anything of itself; the largest number stands still, the others are served."""
    most = (1 << 62) - 1
    async with writer(dsn) as rows, exporter(dsn, redis_url) as client:
        counts = dict.fromkeys(("accepted", "committed_events", "quarantined_events", "duplicates", "displaced"), most)
        for _ in range(3):
            await rows.producer("forged", **counts)
            old = await rows.producer("forged", age_s=8 * 86_400, dropped=json.dumps({"nonfinite": most}), **counts)
            await rows.connection.execute("INSERT INTO gaps VALUES ($1, 1, 2, 0, $2, 0, 0)", old, most)
        await rows.connection.fetchval("SELECT retire_producers($1)", 7 * 86_400)
        found = await scrape(client)
        for name in ("accepted", "committed", "quarantined"):
            assert found[f'streamgauge_{name}_events_total{{service="forged"}}'] == float((1 << 63) - 1)
        assert found['streamgauge_lost_events{service="forged"}'] == float((1 << 63) - 1)
        for name in ("duplicate", "displaced"):
            assert found[f'streamgauge_{name}_batches_total{{service="forged"}}'] == float((1 << 63) - 1)
        row = await rows.connection.fetchrow(load("monitor_producers"), 15.0, 60.0)
        assert row is not None and row["lost_events"] == (1 << 63) - 1


async def test_producer_heard_of_after_now_makes_nobody_unclean(dsn: str, redis_url: str) -> None:
    """The clock of the database was set back: its row is an hour ahead until it is heard of again."""
    async with writer(dsn) as rows, exporter(dsn, redis_url) as client:
        for age_s in (-3600, 0, 5, 60):
            await rows.producer(age_s=age_s)
        found = await scrape(client)
        states = {state: found[f'streamgauge_producers{{service="shop",state="{state}"}}'] for state in STATES}
        assert states == {"live": 3, "ended": 0, "unclean": 1}
        answer = await client.get("/metrics/health")
        assert answer.json()["components"], "the monitor was asked, too"
        row = await rows.connection.fetchrow(load("monitor_producers"), 15.0, 60.0)
        assert row is not None and (row["live"], row["unclean"]) == (3, 1)
        live = await rows.connection.fetch(load("live_producers"), 15.0)
        assert [tuple(row.values()) for row in live] == [("shop", 3)]


async def test_live_gauge_forgets_a_silent_producer_by_its_shards_progress(dsn: str, redis_url: str) -> None:
    async with writer(dsn) as rows, exporter(dsn, redis_url) as client:
        live = await rows.series(await rows.metric("shop_live", 2, merge="sum", live=True), "shop_live")
        silent, speaking = await rows.producer(age_s=3600), await rows.producer(age_s=3500)
        for producer in (silent, speaking):
            await rows.gauge(live, producer, 1.0)
        await rows.commit(live)
        assert (await scrape(client))["shop_live"] == 1
        await rows.connection.execute("UPDATE producers SET last_seen = now() WHERE producer_no = $1", silent)
        await rows.connection.execute("UPDATE producers SET fin = true WHERE producer_no = $1", speaking)
        assert (await scrape(client))["shop_live"] == 1
        await rows.connection.execute("UPDATE producers SET fin = true")
        assert "shop_live" not in await scrape(client)


async def test_series_without_data_leaves_and_resumes(dsn: str, redis_url: str) -> None:
    async with writer(dsn) as rows, exporter(dsn, redis_url) as client:
        series = await rows.series(await rows.metric("shop_old_total", 1), "shop_old_total")
        await rows.total(series, 1, 5.0)
        await rows.connection.execute("UPDATE series SET active_at = now() - interval '2 days'")
        assert "shop_old_total" not in await scrape(client)
        async with rows.connection.transaction():
            await rows.total(series, 1, 1.0)
            await rows.commit(series)
        assert (await scrape(client))["shop_old_total"] == 6


async def test_gzip_and_etag(dsn: str, redis_url: str) -> None:
    async with writer(dsn) as rows, exporter(dsn, redis_url) as client:
        await fill(rows)
        await _counted(client)
        plain = await client.get("/metrics", headers={"Accept-Encoding": "identity"})
        async with client.stream("GET", "/metrics", headers={"Accept-Encoding": "gzip"}) as packed:
            raw = b"".join([chunk async for chunk in packed.aiter_raw()])
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(raw) == plain.content
        known = {"Accept-Encoding": "identity", "If-None-Match": plain.headers["etag"]}
        assert (await client.get("/metrics", headers=known)).status_code == 304
        async with rows.connection.transaction():
            await rows.total(1, 1, 1.0)
            await rows.commit(1)
        assert (await client.get("/metrics", headers=known)).status_code == 200


async def _counted(client: httpx.AsyncClient) -> None:
    """Wait until the first count of events in flight is shown."""
    deadline = time.monotonic() + 10
    while "streamgauge_in_flight_events" not in (await client.get("/metrics")).text:
        assert time.monotonic() < deadline


async def test_in_flight_counts_what_the_ledger_does_not_know(dsn: str, redis_url: str) -> None:
    """Entries delivered, undelivered and in an open gap count once each; applied ones do not."""
    with redis.Redis.from_url(redis_url, protocol=2, socket_timeout=10) as link:
        link.xgroup_create(stream_key(0), GROUP, id="0", mkstream=True)
        for seq in range(1, 6):
            link.xadd(stream_key(0), {FIELD: entry(seq, events=10**seq)})
        link.xreadgroup(GROUP, "test", {stream_key(0): ">"}, count=3)
    async with writer(dsn) as rows, exporter(dsn, redis_url) as client:
        ledger = {"accepted": 1110, "committed_events": 1010, "top_seq": 3}
        number = await rows.producer("shop", 0, applied=[asyncpg_range(1, 2), asyncpg_range(3, 4)], **ledger)
        await rows.connection.execute("UPDATE producers SET producer_id = $1", "01" * 16)
        await rows.connection.execute("INSERT INTO gaps VALUES ($1, 2, 3, 10, 110, 0, 0)", number)
        await _counted(client)
        assert (await scrape(client))['streamgauge_in_flight_events{service="shop"}'] == 100 + 10**4 + 10**5
        await _adds_up(client, accepted=1110 + 10**4 + 10**5)


async def test_an_account_adds_up_with_what_is_parked(dsn: str, redis_url: str) -> None:
    """Below the newest committed batch it is a gap already; above it no batch told of it yet."""
    async with writer(dsn) as rows, exporter(dsn, redis_url) as client:
        ledger = {"accepted": 30, "committed_events": 20, "top_seq": 3}
        number = await rows.producer("shop", 0, applied=[asyncpg_range(1, 2), asyncpg_range(3, 4)], **ledger)
        await rows.connection.execute("INSERT INTO gaps VALUES ($1, 2, 3, 10, 20, 0, 0)", number)
        for seq in (2, 4):
            await rows.connection.execute(PARK, number, seq)
        await _counted(client)
        await _adds_up(client, accepted=40)


PARK = """INSERT INTO parked (reason, version, shard, stream_id, producer_id, seq, events, payload)
    SELECT 'unknown_version', 9, 0, '1-1', producer_id, $2, 10, '' FROM producers WHERE producer_no = $1"""


async def _adds_up(client: httpx.AsyncClient, accepted: int) -> None:
    """In /metrics/health, once the newest snapshot holds a count; the counter does not hold what waits."""
    (one,) = (await client.get("/metrics/health")).json()["services"]
    parts = one["committed"] + sum(one["dropped"].values()) + one["quarantined"] + one["lost"] + one["in_flight"]
    assert one["accepted"] == parts == accepted, one


def asyncpg_range(low: int, high: int) -> object:
    import asyncpg

    return asyncpg.Range(low, high)


def entry(seq: int, events: int) -> bytes:
    """Seal an empty batch that says it holds so many events."""
    directory = encode_directory(Directory((), [], b"", 0, 0, 0, 0))
    return seal(b"\x01" * 16, seq, events, Body("shop", 0, 0, 0, 0, 0, 1, events, {}, False, None, directory))


async def test_derived_gauge_needs_a_denominator(dsn: str, redis_url: str, tmp_path: Path) -> None:
    file = tmp_path / "derived.toml"
    file.write_text(
        '[[derived]]\nname = "shop_ok_rate"\nhelp = "Share."\nwindow_s = 60\n'
        "numerator = 'shop_requests_total{code=\"200\"}'\ndenominator = 'shop_requests_total'\n"
    )
    async with writer(dsn) as rows:
        metric = await rows.metric("shop_requests_total", 1)
        good, bad = [await rows.series(metric, f'shop_requests_total{{code="{code}"}}') for code in (200, 500)]
        async with exporter(dsn, redis_url, STREAMGAUGE_DERIVED_FILE=str(file)) as client:
            assert "shop_ok_rate" not in await scrape(client)
        await rows.connection.execute("CREATE TABLE IF NOT EXISTS parts_here PARTITION OF parts DEFAULT")
        for series, total in ((good, 3.0), (bad, 1.0)):
            await rows.connection.execute(
                "INSERT INTO parts (window_start, series_id, producer_no, n, sum) VALUES (now(), $1, 0, 1, $2)",
                series,
                total,
            )
        async with exporter(dsn, redis_url, STREAMGAUGE_DERIVED_FILE=str(file)) as client:
            assert (await scrape(client))["shop_ok_rate"] == 0.75


async def test_token_guards_all_pages_but_the_probes(dsn: str, redis_url: str) -> None:
    async with exporter(dsn, redis_url, STREAMGAUGE_EXPORTER_TOKEN="secret") as client:
        for path in ("/", "/metrics", "/metrics/self", "/metrics/health", "/api/producers", "/api/rollups"):
            assert (await client.get(path)).status_code == 401, path
            assert (await client.get(path, headers={"Authorization": "Bearer secreT"})).status_code == 401, path
        assert (await client.get("/metrics", headers={"Authorization": "Bearer secret"})).status_code == 200
        for path in ("/healthz", "/readyz"):
            assert (await client.get(path)).status_code == 200, path


async def test_health_names_what_is_away(dsn: str, redis_url: str) -> None:
    async with exporter(dsn, redis_url) as client:
        answer = await client.get("/metrics/health")
        assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
        assert answer.json()["components"]["aggregators"]["reason"].startswith("no aggregator")
    async with exporter("postgresql://nobody@127.0.0.1:1/none", "redis://127.0.0.1:1/0") as client:
        answer = await client.get("/metrics/health")
        assert (answer.status_code, answer.json()["status"]) == (503, "down")
        assert {name for name, one in answer.json()["components"].items() if one["status"] == "down"} == {
            "database",
            "redis",
            "snapshot",
        }
        assert (await client.get("/metrics")).status_code == 503
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200
        own = await client.get("/metrics/self")
        assert 'streamgauge_scrapes_total{outcome="unavailable"} 1.0' in own.text


@pytest.mark.parametrize(
    ("asked", "status", "parameter"),
    [
        ("", 422, "metric"),
        ("metric=nope", 404, "metric"),
        ("metric=a&match={x}", 400, "match"),
        ("metric=a&step=7s", 422, "step"),
        ("metric=a&step=x", 422, "step"),
        ("metric=a&from=x", 422, "from"),
        ("metric=a&from=2026-13-01", 400, "from"),
        ("metric=a&from=-1h&to=-2h", 422, "from"),
        ("metric=a&from=10&to=10", 422, "from"),
        ("metric=a&from=0&to=2000000000&step=10s", 422, "step"),
        ("metric=a&quantile=1.5", 422, "quantile"),
    ],
)
async def test_bad_question_names_its_parameter(
    dsn: str, redis_url: str, asked: str, status: int, parameter: str
) -> None:
    async with exporter(dsn, redis_url) as client:
        answer = await client.get(f"/api/rollups?{asked}")
        assert (answer.status_code, answer.json()["parameter"]) == (status, parameter)


async def test_producers_tell_their_account(dsn: str, redis_url: str) -> None:
    async with writer(dsn) as rows, exporter(dsn, redis_url) as client:
        await rows.producer(accepted=7, committed_events=5, dropped=json.dumps({"nonfinite": 2}), fin=True)
        (one,) = (await client.get("/api/producers")).json()["producers"]
        assert (one["accepted"], one["committed"], one["dropped"], one["state"]) == (7, 5, {"nonfinite": 2}, "ended")


@pytest.fixture
def environ(dsn: str, redis_url: str) -> Iterator[dict[str, str]]:
    yield {"POSTGRES_DSN": dsn, "REDIS_URL": redis_url, "STREAMGAUGE_EXPORTER_PORT": "0"}


@pytest.mark.parametrize(
    ("named", "word"),
    [
        ({"STREAMGAUGE_EXPORTER_HOST": "0.0.0.0"}, "STREAMGAUGE_EXPORTER_TOKEN"),
        ({"STREAMGAUGE_DERIVED_FILE": "/does/not/exist"}, "STREAMGAUGE_DERIVED_FILE"),
        ({"STREAMGAUGE_EXPORTER_PRT": "1"}, "STREAMGAUGE_EXPORTER_PRT"),
    ],
)
def test_bad_setting_ends_the_start_with_2(environ: dict[str, str], named: dict[str, str], word: str) -> None:
    command = (sys.executable, "-m", "streamgauge", "export")
    found = subprocess.run(command, env=environ | named, capture_output=True, text=True, timeout=30, check=False)
    assert found.returncode == 2
    assert word in found.stderr
