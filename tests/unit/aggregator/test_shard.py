"""Which entries a shard prepares together."""

import zstandard

from aggregator.decode import Entry
from aggregator.shard import HELD_BYTES, divided
from contract.batch import COMPRESSED, HEADER_BYTES, MAX_BODY_BYTES, decoded_bytes


def entry(size: int, *, often: bool = False, data: bytes | None = None) -> Entry:
    held = bytes(size) if data is None else data
    return Entry(0, f"{size}-0", held, decoded_bytes(held), often)


def compressed(size: int) -> bytes:
    """As a batch has it: a header whose flag says so, and a frame of zeros."""
    return bytes(6) + bytes([COMPRESSED]) + bytes(HEADER_BYTES - 7) + zstandard.ZstdCompressor().compress(bytes(size))


def test_entries_are_divided_by_what_they_take_decompressed() -> None:
    each = compressed(MAX_BODY_BYTES)
    assert len(each) < 1000
    groups = list(divided([entry(1, data=each)] * 20))
    fit = HELD_BYTES // decoded_bytes(each)
    assert [len(group) for group in groups] == [fit] * (20 // fit) + [20 % fit]
    assert list(divided([])) == []


def test_what_came_often_is_alone() -> None:
    entries = [entry(1), entry(2), entry(3, often=True), entry(4, often=True), entry(5)]
    assert [[len(one.data) for one in group] for group in divided(entries)] == [[1, 2], [3], [4], [5]]


def test_size_that_a_frame_claims_is_believed_only_as_far_as_it_would_be_decompressed() -> None:
    bomb = compressed(64 << 20)
    assert decoded_bytes(bomb) == len(bomb)
    for data in (b"", bytes(47), compressed(10)[:HEADER_BYTES], compressed(10)[: HEADER_BYTES + 3]):
        assert decoded_bytes(data) == len(data)
    assert decoded_bytes(compressed(1000)) == len(compressed(1000)) + 1000
