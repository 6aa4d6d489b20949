"""The reference replica as a real process, with real servers: what it answers is what its events say."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import redis
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from contract.batch import metric_indices, read_body, read_directory, read_envelope
from contract.metric import Kind
from contract.streams import CACHE_TTL_KEY, DEFAULT_SHARDS, FIELD, stream_key
from producers import traffic
from producers.reference import train
from producers.reference.models import Models
from streamgauge.embedded import PostgresServer
from streamgauge.processes import free_port, wait_until

DEADLINE_S = 20.0
OURS = ("REDIS_URL", "POSTGRES_", "STREAMGAUGE_", "JORGE_", "INTENT_", "SCORE_", "REFERENCE_")


class Api:
    """One replica under uvicorn."""

    def __init__(self, log: Path, **env: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        base = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        command = (sys.executable, "-m", "uvicorn", "producers.api:app", "--port", str(self.port), "--no-access-log")
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, env={**base, **env}, stdout=output, stderr=output)
        if not wait_until(lambda: self.process.poll() is not None or self.get("/healthz")[0] == 200, DEADLINE_S):
            raise AssertionError(log.read_text())
        self.log = log

    def get(self, path: str) -> tuple[int, Any]:
        return self._ask("GET", path, None)

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        return self._ask("POST", path, msgspec.json.encode(body))

    def _ask(self, method: str, path: str, body: bytes | None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except ConnectionError:
            return 0, None
        finally:
            connection.close()

    def has_listings(self) -> bool:
        return bool(self.get("/readyz")[1]["listings"])

    def stop(self) -> None:
        """Stop as `up` does; the producer flushes within its deadline."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(DEADLINE_S)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Api]]:
    """Start replicas with an environment; all are stopped afterwards."""
    started: list[Api] = []

    def start(**env: str) -> Api:
        started.append(Api(tmp_path / f"api-{len(started)}.log", **env))
        return started[-1]

    yield start
    for api in started:
        api.stop()


def emitted(redis_url: str) -> Counter[str]:
    """Return, of all batches in the streams, the sum of each counter and the number of samples of each histogram."""
    found: Counter[str] = Counter()
    with redis.Redis.from_url(redis_url, protocol=2, socket_timeout=10) as client:
        entries: list[Any] = []
        for shard in range(DEFAULT_SHARDS):
            entries += cast("list[Any]", client.xrange(stream_key(shard)))
    for _, fields in entries:
        data = fields[FIELD]
        body = read_body(read_envelope(data), data)
        directory = read_directory(body.directory)
        kinds = [directory.metrics[index].kind for index in metric_indices(directory)]
        sums = iter(memoryview(body.counter_sum).cast("d"))
        samples = iter((*memoryview(body.sample_n).cast("I"), *memoryview(body.merged_n).cast("Q")))
        for key, kind in zip(directory.keys, kinds, strict=True):
            if kind is Kind.COUNTER:
                found[key.decode()] += int(next(sums))
            elif kind is Kind.HISTOGRAM:
                found[key.decode()] += next(samples)
    return found


def test_what_is_served_is_what_is_emitted(start: Callable[..., Api], redis_url: str, dsn: str) -> None:
    api = start(REDIS_URL=redis_url, POSTGRES_DSN=dsn)
    assert wait_until(api.has_listings, DEADLINE_S)
    intents = traffic.rows("intent")[:60]
    right = sum(
        api.post("/intent/decode", {"text": r["text"], "label": r["label"]})[1]["intent"] == r["label"] for r in intents
    )
    outcomes = Counter(
        api.post("/seller/qualify", {"text": r["text"], "fields": r["fields"]})[1]["outcome"]
        for r in traffic.rows("seller")[:60]
    )
    scores = [api.post("/score", row["fields"]) for row in traffic.rows("score")[:25]]
    status, listing = api.get("/listing/7")
    again = api.get("/listing/7")
    missing = api.get("/listing/100000")[0]
    api.stop()

    assert all(status == 200 and 0 < answer["score"] < 1 for status, answer in scores)
    assert (status, missing) == (200, 404)
    assert listing["id"] == 7
    assert listing["price_usd"] > 0
    assert isinstance(listing["features"], list)
    assert again == (200, listing)
    found = emitted(redis_url)
    assert found['intent_decoder_decisions_total{correct="true"}'] == right > 0
    assert found['intent_decoder_decisions_total{correct="false"}'] == 60 - right > 0
    for outcome, times in outcomes.items():
        assert found[f'jorge_seller_bot_qualifications_total{{outcome="{outcome}"}}'] == times
    assert len(outcomes) == 3
    assert found["ml_scoring_inference_time_seconds"] == found["ml_scoring_inference_time_ms"] == 25
    assert found["database_query_time_ms"] == 2
    assert found["cache_serialization_time_ms"] == 1
    assert found['cache_lookups_total{key_class="listing",result="hit"}'] == 1
    assert found['cache_fills_total{changed="first",key_class="listing"}'] == 1
    assert found['cache_recompute_seconds{key_class="listing"}'] == 1
    assert found['http_requests_total{method="POST",route="/score",status="200"}'] == 25
    assert found['http_requests_total{method="GET",route="/listing/{number}",status="404"}'] == 1


def test_a_replica_tells_how_late_its_loop_is_and_what_cpu_it_takes(start: Callable[..., Api], redis_url: str) -> None:
    api = start(REDIS_URL=redis_url, STREAMGAUGE_SERVICE="shop", STREAMGAUGE_RELEASE="7")
    assert api.get("/listing/1")[0] == 503
    lag = 'event_loop_lag_seconds{service="shop"}'
    assert wait_until(lambda: emitted(redis_url)[lag] >= 15, DEADLINE_S)
    started_at = time.monotonic()
    api.stop()
    assert time.monotonic() - started_at < 5
    found = emitted(redis_url)
    assert any(key.startswith("process_cpu_seconds_total{service=") for key in found)
    assert (
        found['http_request_duration_seconds{method="GET",release="7",route="/listing/{number}",status_class="5xx"}']
        == 1
    )


def test_probes_are_no_traffic(start: Callable[..., Api], redis_url: str) -> None:
    api = start(REDIS_URL=redis_url)
    assert [api.get(path)[0] for path in ("/healthz", "/readyz", "/listing/1")] == [200, 200, 503]
    api.stop()
    requests = [key for key in emitted(redis_url) if key.startswith(("http_requests_total", "http_request_duration"))]
    assert {re.findall(r'route="([^"]+)"', key)[0] for key in requests} == {"/listing/{number}"}


def test_the_models_serve_as_they_do_offline(start: Callable[..., Api], redis_url: str) -> None:
    models = Models.load()
    api = start(REDIS_URL=redis_url)
    for row in traffic.rows("seller")[:20]:
        status, answer = api.post("/seller/qualify", {"text": row["text"], "fields": row["fields"]})
        assert (status, answer["outcome"]) == (200, models.seller.classify(row["text"], row["fields"]).label)


def test_another_model_file_changes_the_served_rate(start: Callable[..., Api], redis_url: str, tmp_path: Path) -> None:
    models = Models.load()
    keen = [b + 6.0 * (a == "qualified") for a, b in zip(models.seller.labels, models.seller.bias, strict=True)]
    seller = msgspec.structs.replace(models.seller, bias=tuple(keen))
    # One word in eight known: worse, but no nonsense.
    few = dict(list(models.intent.weights.items())[::8])
    files = {
        "JORGE_SELLER_MODEL_FILE": seller,
        "INTENT_MODEL_FILE": msgspec.structs.replace(models.intent, weights=few),
    }
    for name, model in files.items():
        (tmp_path / name).write_bytes(msgspec.json.encode(model))

    def rates(api: Api) -> tuple[float, float]:
        sellers, intents = traffic.rows("seller")[:80], traffic.rows("intent")[:80]
        for row in sellers:
            api.post("/seller/qualify", {"text": row["text"], "fields": row["fields"]})
        for row in intents:
            api.post("/intent/decode", {"text": row["text"], "label": row["label"]})
        api.stop()
        found = emitted(redis_url)
        return (
            found['jorge_seller_bot_qualifications_total{outcome="qualified"}'] / len(sellers),
            found['intent_decoder_decisions_total{correct="true"}'] / len(intents),
        )

    shipped = rates(start(REDIS_URL=redis_url))
    with redis.Redis.from_url(redis_url, protocol=2, socket_timeout=10) as client:
        client.flushall()
    other = rates(start(REDIS_URL=redis_url, **{name: str(tmp_path / name) for name in files}))
    assert other[0] > shipped[0] + 0.2
    assert other[1] < shipped[1] - 0.1


def test_a_bad_model_file_stops_the_start_and_is_named(start: Callable[..., Api], redis_url: str) -> None:
    api = start(REDIS_URL=redis_url, INTENT_MODEL_FILE="/nowhere.json")
    assert api.process.wait(DEADLINE_S) != 0
    assert "INTENT_MODEL_FILE" in api.log.read_text()


def test_without_postgresql_only_listings_say_503(start: Callable[..., Api], redis_url: str) -> None:
    api = start(REDIS_URL=redis_url, POSTGRES_DSN=f"postgresql://u@127.0.0.1:{free_port()}/x")
    row = traffic.rows("score")[0]["fields"]
    assert api.get("/listing/1")[0] == 503
    assert api.post("/score", row)[0] == 200
    assert api.get("/readyz") == (200, {"ready": True, "listings": False})
    api.stop()
    found = emitted(redis_url)
    assert found["listing_unavailable_total"] == 1
    assert found['http_requests_total{method="GET",route="/listing/{number}",status="503"}'] == 1


def test_listings_come_when_postgresql_comes(start: Callable[..., Api], redis_url: str, dsn: str) -> None:
    # Redis is away for good: its port is nobody's. PostgreSQL answers alone, and requests do not wait for Redis.
    api = start(REDIS_URL=f"redis://127.0.0.1:{free_port()}/0", POSTGRES_DSN=dsn)
    assert wait_until(api.has_listings, DEADLINE_S)
    started_at = time.monotonic()
    assert [api.get(f"/listing/{number}")[0] for number in (1, 2, 200, 201)] == [200, 200, 200, 404]
    assert time.monotonic() - started_at < 8
    assert api.post("/score", traffic.rows("score")[0]["fields"])[0] == 200


def test_cached_listings_outlive_postgresql(
    start: Callable[..., Api], redis_url: str, dsn: str, postgres_server: PostgresServer
) -> None:
    api = start(REDIS_URL=redis_url, POSTGRES_DSN=dsn)
    assert wait_until(api.has_listings, DEADLINE_S)
    cached = api.get("/listing/3")
    postgres_server.kill()
    try:
        assert api.get("/listing/3") == cached
        assert api.get("/listing/4")[0] == 503
    finally:
        postgres_server.open()
    assert wait_until(lambda: api.get("/listing/4")[0] == 200, DEADLINE_S)


def test_listings_live_as_long_as_is_set(start: Callable[..., Api], redis_url: str, dsn: str) -> None:
    with redis.Redis.from_url(redis_url, protocol=2, socket_timeout=10) as client:
        client.hset(CACHE_TTL_KEY, "listing", "300")
        api = start(REDIS_URL=redis_url, POSTGRES_DSN=dsn, STREAMGAUGE_CACHE_TTL_APPLY="true")
        assert wait_until(api.has_listings, DEADLINE_S)
        numbers = iter(range(1, 200))

        def newest_lives_longer() -> bool:
            number = next(numbers)
            assert api.get(f"/listing/{number}")[0] == 200
            return client.ttl(f"reference_app:cache1:listing:{number}") > 66

        assert wait_until(newest_lives_longer, DEADLINE_S), "60 s and a tenth are the default's"


def test_replicas_that_start_together_make_one_table(start: Callable[..., Api], redis_url: str, dsn: str) -> None:
    replicas = [start(REDIS_URL=redis_url, POSTGRES_DSN=dsn) for _ in range(3)]
    assert all(wait_until(api.has_listings, DEADLINE_S) for api in replicas)
    assert len({json.dumps(api.get("/listing/9")) for api in replicas}) == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/score", {}),
        ("/intent/decode", {"text": ""}),
        ("/intent/decode", {"text": "x" * 2001}),
        ("/intent/decode", {"text": "hello", "unknown": 1}),
        ("/seller/qualify", {"text": "hello", "fields": {"asking_ratio": -1}}),
    ],
)
def test_what_cannot_be_judged_is_refused(start: Callable[..., Api], path: str, body: Any) -> None:
    assert start().post(path, body)[0] == 422


def test_traffic_runs_until_it_is_stopped_and_says_what_it_did(
    start: Callable[..., Api], redis_url: str, dsn: str
) -> None:
    api = start(REDIS_URL=redis_url, POSTGRES_DSN=dsn)
    assert wait_until(api.has_listings, DEADLINE_S)
    command = (sys.executable, "-m", "producers.traffic", "--url", api.url, "--rate", "1000")
    limited = subprocess.run((*command, "--requests", "300"), capture_output=True, text=True, timeout=60, check=True)
    assert limited.stdout.startswith("300 requests answered (200: ")
    assert limited.stdout.endswith("3 WebSocket sessions\n")
    assert limited.stderr == ""
    served = 'http_requests_total{method="POST",route="/score",status="200"}'
    assert wait_until(lambda: emitted(redis_url)[served] >= 60, DEADLINE_S), "a fifth of the turns"
    with subprocess.Popen((*command[:-1], "50"), stdout=subprocess.PIPE, text=True) as endless:
        before = emitted(redis_url)[served]
        assert wait_until(lambda: emitted(redis_url)[served] > before + 5, DEADLINE_S)
        endless.send_signal(signal.SIGTERM)
        assert "requests answered" in endless.communicate(timeout=DEADLINE_S)[0]
        assert endless.returncode == 0
    api.stop()
    found = emitted(redis_url)
    assert found['websocket_sessions_total{code="1000",route="/ws"}'] >= 3
    assert found['websocket_session_duration_seconds{route="/ws"}'] >= 3


def test_traffic_survives_an_api_that_is_away() -> None:
    command = (sys.executable, "-m", "producers.traffic", "--url", f"http://127.0.0.1:{free_port()}", "--duration", "1")
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.startswith("0 requests answered (away: ")


def test_a_replica_that_is_told_to_stop_counts_its_open_sockets_as_1012(
    start: Callable[..., Api], redis_url: str
) -> None:
    api = start(REDIS_URL=redis_url)
    with connect(f"ws://127.0.0.1:{api.port}/ws", proxy=None) as session:
        session.send("hello")
        session.recv(timeout=DEADLINE_S)
        api.stop()
        with pytest.raises(ConnectionClosedError) as closed:
            session.recv(timeout=DEADLINE_S)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    sessions = {key: n for key, n in emitted(redis_url).items() if key.startswith("websocket_sessions_total")}
    assert sessions == {'websocket_sessions_total{code="1012",route="/ws"}': 1}


def test_a_bad_websocket_message_closes_with_1007(start: Callable[..., Api], redis_url: str) -> None:
    api = start(REDIS_URL=redis_url)
    with connect(f"ws://127.0.0.1:{api.port}/ws", proxy=None) as session:
        session.send("i want to sell my house")
        assert (
            json.loads(session.recv(timeout=5))["intent"]
            == Models.load().intent.classify("i want to sell my house").label
        )
        session.send('{"text": 5}')
        with pytest.raises(ConnectionClosedError) as closed:
            session.recv(timeout=5)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1007
    api.stop()
    assert emitted(redis_url)['websocket_sessions_total{code="1007",route="/ws"}'] == 1


def test_training_is_not_needed_to_serve() -> None:
    command = (
        "import sys, producers.reference.models; assert not {'numpy', 'producers.reference.train'} & set(sys.modules)"
    )
    subprocess.run((sys.executable, "-c", command), timeout=30, check=True)
    assert train.accuracies(Models.load())["intent"] > 0.5


def test_a_client_that_leaves_mid_request_harms_nobody(start: Callable[..., Api], redis_url: str) -> None:
    api = start(REDIS_URL=redis_url)
    with socket.create_connection(("127.0.0.1", api.port)) as connection:
        connection.sendall(
            b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{"
        )
    assert api.get("/healthz")[0] == 200
    api.stop()
    assert "Traceback" not in api.log.read_text()
