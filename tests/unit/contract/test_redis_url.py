"""The address of Redis: what is read from it, and what is refused with its reason."""

import pytest

from contract.redis_url import parse_redis_url, shown_redis_url, without_passwords


def test_a_cluster_is_named_by_some_of_its_nodes() -> None:
    address = parse_redis_url("redis+cluster://10.0.0.1:7000,10.0.0.2:7001,[::1]:7002,redis-4")
    assert address.nodes == (("10.0.0.1", 7000), ("10.0.0.2", 7001), ("::1", 7002), ("redis-4", 6379))
    assert (address.sentinels, address.username, address.password) == ((), None, None)


def test_user_and_password_of_a_cluster_may_hold_any_character() -> None:
    address = parse_redis_url("redis+cluster://streamgauge:a%40b%3Ac@h:1,i:2")
    assert (address.username, address.password) == ("streamgauge", "a@b:c")
    address = parse_redis_url("redis+cluster://:secret@h:1")
    assert (address.username, address.password) == (None, "secret")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis+cluster://", "needs host:port"),
        ("redis+cluster://a:1,,b:2", "empty"),
        ("redis+cluster://a:x", "'a:x' is not host:port"),
        ("redis+cluster://a:70000", "is not host:port"),
        ("redis+cluster://a:1/3", "one database only"),
        ("redis+cluster://a:1?ssl=true", "no options"),
        ("redis+magic://a:1", "is none of"),
    ],
)
def test_an_address_that_is_none_is_refused_with_its_reason(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_redis_url(url)


def test_sentinels_and_single_servers_have_no_nodes() -> None:
    address = parse_redis_url("redis+sentinel://u:p@a:1,b/main/2")
    assert address.sentinels == (("a", 1), ("b", 26379))
    assert (address.nodes, address.master, address.db, address.username, address.password) == ((), "main", 2, "u", "p")
    assert parse_redis_url("redis://a:1/0").nodes == ()


def test_sentinels_may_ask_for_a_user_of_their_own() -> None:
    address = parse_redis_url("redis+sentinel://u:p@a:1/main?sentinel_user=client&sentinel_password=a%40b%26c")
    assert address.sentinel_access == {"username": "client", "password": "a@b&c"}
    assert (address.username, address.password, address.master) == ("u", "p", "main")
    assert parse_redis_url("redis+sentinel://a:1/main").sentinel_access == {"username": None, "password": None}
    with pytest.raises(ValueError, match="no option 'sentinel_pass'"):
        parse_redis_url("redis+sentinel://a:1/main?sentinel_pass=x")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("rediss://shop:secret@h:1/2?password=secret", "rediss://h:1/2"),
        ("redis://:sec/r@et@h:1", "redis://h:1"),
        ("redis://:12/secret@h:1", "redis://h:1"),
        ("redis://:sec?ret@h:1", "redis://…"),
        ("unix://shop:secret@/run/redis.sock?db=1", "unix:///run/redis.sock"),
        ("redis+sentinel://:secret@a:1,b:2/main/0?sentinel_password=secret", "redis+sentinel://a:1,b:2/main/0"),
    ],
)
def test_an_address_is_shown_without_access(url: str, shown: str) -> None:
    assert shown_redis_url(url) == shown


def test_a_text_is_shown_without_the_passwords_of_its_address() -> None:
    url = "redis+sentinel://u:one%2F1@a:1/main?sentinel_password=two"
    assert without_passwords("u one%2F1 one/1 two three", url) == "u … … … three"
    assert without_passwords("Error 111", "redis://h:1") == "Error 111"
