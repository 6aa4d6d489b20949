"""Users of the Redis that is deployed: what each service needs is allowed, and what it does not need is refused.

The files and the entrypoint are ours; master, replicas, Sentinels and cache are real.
"""

from collections.abc import Iterator

import pytest
import redis
from redis.exceptions import AuthenticationError, NoPermissionError

from contract.streams import CACHE_TTL_KEY, GROUP, SHARD_COUNT_KEY, full_key, stream_key
from streamgauge.processes import wait_until
from tests.redis_deployed import CACHE, FILES, STREAMS, Deployment, answers

pytestmark = pytest.mark.timeout(120)

KEY = stream_key(0)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("redis")) as made:
        made.open()
        made.start(CACHE, "cache")
        with made.client("health", CACHE) as client:
            assert wait_until(lambda: answers(client), 10)
        yield made


ALLOWED = [
    ("producer", ("XADD", KEY, "*", "b", "x")),
    ("producer", ("GET", full_key(0))),
    ("producer", ("GET", SHARD_COUNT_KEY)),
    ("producer", ("HGETALL", CACHE_TTL_KEY)),
    ("producer", ("TIME",)),
    ("aggregator", ("XREADGROUP", "GROUP", GROUP, "c", "COUNT", "1", "STREAMS", KEY, ">")),
    ("aggregator", ("XTRIM", KEY, "MINID", "0")),
    ("aggregator", ("HSET", CACHE_TTL_KEY, "listing", "60")),
    ("aggregator", ("LATENCY", "LATEST")),
    ("exporter", ("XINFO", "STREAM", KEY)),
    ("exporter", ("EVAL", "return #redis.call('XRANGE', KEYS[1], '-', '+')", "1", KEY)),
    ("metrics", ("INFO", "memory")),
    ("metrics", ("XINFO", "GROUPS", KEY)),
    ("health", ("PING",)),
]
REFUSED = [
    ("producer", ("XTRIM", KEY, "MAXLEN", "0")),
    ("producer", ("XADD", "other", "*", "b", "x")),
    ("producer", ("XRANGE", KEY, "-", "+")),
    ("producer", ("XGROUP", "DESTROY", KEY, GROUP)),
    ("producer", ("SET", SHARD_COUNT_KEY, "64")),
    ("producer", ("SET", KEY, "x")),
    ("producer", ("DEL", KEY)),
    ("producer", ("HSET", CACHE_TTL_KEY, "listing", "1")),
    ("producer", ("EVAL", "return 1", "0")),
    ("producer", ("FLUSHALL",)),
    ("producer", ("CONFIG", "GET", "*")),
    ("producer", ("KEYS", "*")),
    ("aggregator", ("FLUSHALL",)),
    ("aggregator", ("CONFIG", "SET", "maxmemory", "1")),
    ("aggregator", ("CONFIG", "GET", "masterauth")),
    ("aggregator", ("SET", "other", "x")),
    ("aggregator", ("EVAL", "return redis.call('FLUSHALL')", "0")),
    ("aggregator", ("SHUTDOWN",)),
    ("aggregator", ("XGROUP", "DESTROY", KEY, GROUP)),
    ("exporter", ("XADD", KEY, "*", "b", "x")),
    ("exporter", ("XACK", KEY, GROUP, "0-1")),
    ("exporter", ("EVAL", "return redis.call('DEL', KEYS[1])", "1", KEY)),
    ("exporter", ("SET", SHARD_COUNT_KEY, "64")),
    ("metrics", ("GET", SHARD_COUNT_KEY)),
    ("metrics", ("CONFIG", "SET", "maxmemory", "1")),
    ("metrics", ("CONFIG", "GET", "masterauth")),
    ("health", ("INFO",)),
    ("replica", ("GET", SHARD_COUNT_KEY)),
    ("replica", ("FLUSHALL",)),
    ("sentinel", ("GET", SHARD_COUNT_KEY)),
    ("sentinel", ("CONFIG", "SET", "maxmemory", "1")),
    ("sentinel", ("FLUSHALL",)),
]


def named(value: str | tuple[str, ...]) -> str:
    """Return a short name of a parameter."""
    return value if isinstance(value, str) else " ".join(value)[:40]


@pytest.mark.parametrize(("user", "command"), ALLOWED, ids=named)
def test_what_a_service_needs_is_allowed(deployment: Deployment, user: str, command: tuple[str, ...]) -> None:
    prepare(deployment)
    with deployment.client(user) as client:
        client.execute_command(*command)


@pytest.mark.parametrize(("user", "command"), REFUSED, ids=named)
def test_what_a_service_does_not_need_is_refused(deployment: Deployment, user: str, command: tuple[str, ...]) -> None:
    prepare(deployment)
    with deployment.client(user) as client, pytest.raises((NoPermissionError, redis.ResponseError)) as refused:
        client.execute_command(*command)
    said = str(refused.value)
    assert "permission" in said or "can't run this command" in said or "can't access" in said, said


CACHE_ALLOWED = [
    ("cache", ("SET", "reference_app:listing:1", "x", "EX", "5")),
    ("cache", ("GET", "reference_app:listing:1")),
    ("metrics", ("INFO",)),
    ("health", ("PING",)),
]
CACHE_REFUSED = [
    ("cache", ("GET", SHARD_COUNT_KEY)),
    ("cache", ("XADD", KEY, "*", "b", "x")),
    ("cache", ("FLUSHALL",)),
    ("cache", ("KEYS", "*")),
    ("metrics", ("GET", "reference_app:listing:1")),
    ("metrics", ("CONFIG", "GET", "maxmemory")),
    ("health", ("INFO",)),
]


@pytest.mark.parametrize(("user", "command"), CACHE_ALLOWED, ids=named)
def test_what_is_needed_of_the_cache_is_allowed(deployment: Deployment, user: str, command: tuple[str, ...]) -> None:
    with deployment.client(user, CACHE) as client:
        client.execute_command(*command)


@pytest.mark.parametrize(("user", "command"), CACHE_REFUSED, ids=named)
def test_what_is_not_needed_of_the_cache_is_refused(
    deployment: Deployment, user: str, command: tuple[str, ...]
) -> None:
    with deployment.client(user, CACHE) as client, pytest.raises(NoPermissionError):
        client.execute_command(*command)


def test_a_user_of_the_streams_is_none_of_the_cache_and_the_other_way_round(deployment: Deployment) -> None:
    for user, address in (("cache", STREAMS[0]), ("producer", CACHE), ("aggregator", CACHE), ("replica", CACHE)):
        with deployment.client(user, address) as client, pytest.raises(AuthenticationError):
            client.ping()


SENTINEL_ALLOWED = [
    ("client", ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "streams")),
    ("client", ("SENTINEL", "CKQUORUM", "streams")),
    ("metrics", ("INFO",)),
    ("metrics", ("SENTINEL", "MASTERS")),
    ("metrics", ("SENTINEL", "REPLICAS", "streams")),
    ("metrics", ("SENTINEL", "SENTINELS", "streams")),
    ("metrics", ("SENTINEL", "CKQUORUM", "streams")),
    ("health", ("PING",)),
]
SENTINEL_REFUSED = [
    ("client", ("SENTINEL", "FAILOVER", "streams")),
    ("client", ("SENTINEL", "SET", "streams", "quorum", "1")),
    ("client", ("SHUTDOWN",)),
    ("metrics", ("SENTINEL", "FAILOVER", "streams")),
    ("metrics", ("SENTINEL", "REMOVE", "streams")),
    ("metrics", ("SENTINEL", "CONFIG", "GET", "*")),
    ("metrics", ("ACL", "LIST")),
    ("health", ("INFO",)),
    ("health", ("SENTINEL", "MASTERS")),
]


@pytest.mark.parametrize(("user", "command"), SENTINEL_ALLOWED, ids=named)
def test_what_is_needed_of_a_sentinel_is_allowed(deployment: Deployment, user: str, command: tuple[str, ...]) -> None:
    with deployment.sentinel(user) as client:
        client.execute_command(*command)


@pytest.mark.parametrize(("user", "command"), SENTINEL_REFUSED, ids=named)
def test_what_is_not_needed_of_a_sentinel_is_refused(
    deployment: Deployment, user: str, command: tuple[str, ...]
) -> None:
    with deployment.sentinel(user) as client, pytest.raises(NoPermissionError):
        client.execute_command(*command)


def test_each_user_is_tried() -> None:
    def users(name: str) -> set[str]:
        lines = (FILES / name).read_text().splitlines()
        return {line.split()[1] for line in lines if line.startswith("user ")} - {"default", "admin"}

    assert users("users.acl") == {user for user, _ in REFUSED}
    assert users("cache-users.acl") == {user for user, _ in CACHE_ALLOWED} == {user for user, _ in CACHE_REFUSED}
    # Sentinels are each other's equals.
    tried = {user for user, _ in SENTINEL_ALLOWED}
    assert users("sentinel-users.acl") - {"sentinel"} == tried == {user for user, _ in SENTINEL_REFUSED}


def prepare(deployment: Deployment) -> None:
    """Make the stream with its group, once."""
    with deployment.client("admin") as client:
        if not client.exists(KEY) or not client.xinfo_groups(KEY):
            client.xgroup_create(KEY, GROUP, "0", mkstream=True)


def test_a_stranger_gets_nothing(deployment: Deployment) -> None:
    with deployment.client(None) as client, pytest.raises(AuthenticationError):
        client.ping()
    with deployment.sentinel(None) as client, pytest.raises(AuthenticationError):
        client.ping()
