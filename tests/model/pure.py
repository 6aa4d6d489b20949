"""Production's pure steps, remembered: the same bytes decode and the same batches fold to the same, in every schedule.

In: what decode and fold take. Out: what they give. Promise: the first time production does it; nothing else decides.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import aggregator.decode as decoding
import aggregator.fold as folding
from aggregator.decode import BlockCache, Booked, Decoded, Entry
from contract.batch import BatchError, Envelope, read_body, read_directory, read_envelope
from contract.metric import Kind
from database.columns import COPY_HEADER, COPY_TRAILER
from database.ledger import Fold

ROOM: Final = 100_000
_COLUMNS: Final = tuple(name for name in Decoded.__slots__ if name not in ("entry", "envelope", "body", "block"))
_decoded: dict[bytes, tuple[Decoded, bytes]] = {}
_folded: dict[Any, Fold] = {}


def decode_all(checked: Sequence[tuple[Entry, Envelope]], blocks: BlockCache) -> list[Decoded | BatchError]:
    """As aggregator.decode.decode_all; of batches that are sound."""
    return [_decode(entry, envelope, blocks) for entry, envelope in checked]


def _decode(entry: Entry, envelope: Envelope, blocks: BlockCache) -> Decoded:
    known = _decoded.get(entry.data)
    if known is None:
        if len(_decoded) > ROOM:
            _decoded.clear()
        directory = read_body(envelope, entry.data).directory
        known = _decoded[entry.data] = decoding.decode(entry, envelope, BlockCache()), directory
    decoded, directory = known
    return Decoded(entry, envelope, decoded.body, blocks.get(directory), *(getattr(decoded, c) for c in _COLUMNS))


def fold(booked: Sequence[Booked], shard: int, duplicates: dict[int, int]) -> Fold:
    """As aggregator.fold.fold."""
    key = (tuple(map(_part, booked)), shard, tuple(sorted(duplicates.items())))
    known = _folded.get(key)
    if known is None:
        if len(_folded) > ROOM:
            _folded.clear()
        known = _folded[key] = folding.fold(booked, shard, duplicates)
    return known


def _part(b: Booked) -> Any:
    block = b.batch.block
    assert block.series_ids is not None and block.conflicted is None
    numbers = (block.series_ids.tobytes(), block.layouts.tobytes())
    return b.batch.entry.data, b.producer_no, b.window_s, b.displaced, numbers


class Content(NamedTuple):
    """What a batch holds, read by the contract alone."""

    series: dict[bytes, tuple[int, float, tuple[int, ...]]]
    """Number, sum and `le` counts (none of a counter) by key."""
    events: int
    sealed_after: int
    accepted: int
    checksum: int
    """The ledger's 32 bits of it."""


@lru_cache(maxsize=ROOM)
def content(data: bytes) -> Content:
    """Read a batch of counters and histograms with at most one bound, in windows or merged."""
    envelope = read_envelope(data)
    body = read_body(envelope, data)
    directory = read_directory(body.directory)
    n, sums = _floats(body.counter_n, "Q"), _floats(body.counter_sum, "d")
    keys = iter(directory.keys)
    series: dict[bytes, tuple[int, float, tuple[int, ...]]] = {}
    for count, total in zip(n, sums, strict=True):
        series[next(keys)] = (int(count), total, ())
    samples = iter(_floats(body.samples, "d"))
    bound = next((m.bounds[0] for m in directory.metrics if m.kind is Kind.HISTOGRAM), 0.0)
    for count in _floats(body.sample_n, "I"):
        values = [next(samples) for _ in range(int(count))]
        below = sum(value <= bound for value in values)
        series[next(keys)] = (len(values), sum(values), (below, len(values) - below))
    le = iter(_floats(body.merged_le, "Q"))
    for count, total in zip(_floats(body.merged_n, "Q"), _floats(body.merged_sum, "d"), strict=True):
        add(series, next(keys), (int(count), total, (int(next(le)), int(next(le)))))
    sealed_after = body.accepted - sum(body.dropped.values())
    checksum = int.from_bytes(envelope.checksum[:4], "little", signed=True)
    return Content(series, envelope.events, sealed_after, body.accepted, checksum)


def add(
    into: dict[bytes, tuple[int, float, tuple[int, ...]]], key: bytes, more: tuple[int, float, tuple[int, ...]]
) -> None:
    """Add what one batch has of a series."""
    n, total, le = into.get(key, (0, 0.0, ()))
    into[key] = (n + more[0], total + more[1], tuple(map(sum, zip(le, more[2], strict=True))) if le else more[2])


def _floats(data: bytes, code: str) -> tuple[float, ...]:
    return struct.unpack(f"<{len(data) // struct.calcsize('<' + code)}{code}", data)


@lru_cache(maxsize=ROOM)
def parts_of(data: bytes) -> tuple[tuple[int, int], ...]:
    """Read series and n of each row of a binary COPY of parts."""
    found: list[tuple[int, int]] = []
    at, end = len(COPY_HEADER), len(data) - len(COPY_TRAILER)
    while at < end:
        (fields,) = struct.unpack_from(">h", data, at)
        at += 2
        values: list[bytes] = []
        for _ in range(fields):
            (size,) = struct.unpack_from(">i", data, at)
            at += 4
            values.append(data[at : at + max(size, 0)])
            at += max(size, 0)
        found.append((int.from_bytes(values[1], "big"), int.from_bytes(values[3], "big")))
    return tuple(found)
