"""Slots and nodes as clients compute and read them."""

import pytest
from redis.crc import key_slot

from contract.cluster import Range, master_of, read_slots, slot_of, slot_of_command
from contract.streams import MAX_SHARDS, SHARD_COUNT_KEY, full_key, lease_key, stream_key


@pytest.mark.parametrize("key", ["sg:shards", "sg:{07}:full", "a{}b", "{open", "x{{y}}z", "", "é{ü}"])
def test_slot_is_the_one_that_redis_computes(key: str) -> None:
    assert slot_of(key) == slot_of(key.encode()) == key_slot(key.encode())


def test_keys_of_a_shard_share_its_slot_and_shards_spread_evenly() -> None:
    for shard in range(MAX_SHARDS):
        assert slot_of(stream_key(shard)) == slot_of(full_key(shard)) == slot_of(lease_key(shard))
    thirds = [slot_of(stream_key(shard)) * 3 // 16384 for shard in range(MAX_SHARDS)]
    assert min(thirds.count(third) for third in range(3)) >= MAX_SHARDS // 4
    assert thirds[0] != thirds[1], "the two shards of the default are on two masters of three"


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "k"), "k"),
        (("XINFO STREAM", "k"), "k"),
        (("EVAL", "return 1", 1, "k", "x"), "k"),
        (("XREADGROUP", "GROUP", "g", "c", "COUNT", 9, b"STREAMS", "k", ">"), "k"),
        (("XREAD", b"COUNT", b"9", b"STREAMS", b"k", b"0"), "k"),
        (("TIME",), SHARD_COUNT_KEY),
        (("INFO", "server"), SHARD_COUNT_KEY),
    ],
)
def test_a_command_belongs_to_the_slot_of_its_key(command: tuple[object, ...], key: str) -> None:
    assert slot_of_command(command) == slot_of(key)


def test_a_node_without_a_host_is_where_it_was_asked() -> None:
    reply = [
        [0, 8191, [b"", 7000, b"id"], [b"10.0.0.9", 7003, b"id"]],
        [8192, 16383, [None, 7001, b"id"]],
    ]
    ranges = read_slots(reply, ("10.0.0.1", 7000))
    assert ranges == [Range(0, 8191, ("10.0.0.1", 7000)), Range(8192, 16383, ("10.0.0.1", 7001))]
    assert master_of(ranges, 8192) == ("10.0.0.1", 7001)
    assert master_of(ranges[:1], 8192) is None
