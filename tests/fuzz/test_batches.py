"""Batches that a liar sealed: each is applied or refused by the one declared error, within bounded time and memory.

The checksum is always right (a forger computes it too), so that what lies behind it is reached.
"""

import math
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from aggregator.decode import DIRECTORY_CACHE_BYTES, BlockCache, Booked, Decoded, Entry, decode
from aggregator.fold import fold
from contract import batch as wire
from contract import sketch
from contract.batch import BatchError, Body, Directory, encode_directory, read_envelope
from contract.metric import Kind, MetricDef
from tests.fuzz.budget import examples

PRODUCER: Final = bytes(range(16))
BOUNDS: Final = (0.5, 1.0)
METRICS: Final = (
    MetricDef("hits_total", Kind.COUNTER),
    MetricDef("level", Kind.GAUGE),
    MetricDef("size", Kind.HISTOGRAM, bounds=BOUNDS),
)
KEYS: Final = [b'hits_total{x="1"}', b"hits_total", b"level", b"size", b'size{x="1"}']
SKETCH: Final = sketch.encode({sketch.bucket_of(0.7): 2, sketch.bucket_of(9.0): 1})
COLUMNS: Final = [one for one in Body.__struct_fields__ if one.startswith(("counter_", "gauge_", "sample", "merged_"))]
OTHERS: Final = ["directory", "accepted", "dropped", "window_start_s"]
ODD_FLOATS: Final = [0.0, -0.0, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 1e100, -1.0]
ODD_INTS: Final = [0, 1, 2, 255, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 62) - 1, 1 << 63, (1 << 64) - 1]


def packed(code: str, *values: float) -> bytes:
    return struct.pack(f"<{len(values)}{code}", *values)


def honest() -> dict[str, Any]:
    """A body with a column of each kind: 3 + 4 counted, 2 set, 2 samples, 3 merged."""
    directory = Directory(METRICS, KEYS, packed("H", 0, 0, 1, 2, 2), 2, 1, 1, 1)
    return {
        "service": "test",
        "window_start_s": 1_700_000_000,
        "span_start_ms": 1_700_000_000_000,
        "flushed_ms": 1_700_000_009_000,
        "clock_offset_us": 0,
        "clock_uncertainty_us": 0,
        "window_first_seq": 1,
        "accepted": 14,
        "dropped": {},
        "fin": False,
        "run_id": None,
        "directory": encode_directory(directory),
        "counter_n": packed("Q", 3, 4),
        "counter_sum": packed("d", 3.0, 4.5),
        "gauge_n": packed("Q", 2),
        "gauge_last": packed("d", 1.0),
        "gauge_sum": packed("d", 3.0),
        "gauge_min": packed("d", 1.0),
        "gauge_max": packed("d", 2.0),
        "sample_n": packed("I", 2),
        "samples": packed("d", 0.25, 7.0),
        "merged_n": packed("Q", 3),
        "merged_sum": packed("d", 10.4),
        "merged_min": packed("d", 0.7),
        "merged_max": packed("d", 9.0),
        "merged_last": packed("d", 0.7),
        "merged_le": packed("Q", 0, 2, 1),
        "merged_sketch_len": packed("I", len(SKETCH)),
        "merged_sketch": SKETCH,
    }


def sealed(content: bytes, flags: int = 0, events: int = 14, seq: int = 1, producer: bytes = PRODUCER) -> bytes:
    """Put a right envelope around any content."""
    head = struct.pack("<4sHH16sQQ", wire.MAGIC, wire.VERSION, flags, producer, seq, events)
    return head + wire.checksum_of(head + bytes(8) + content) + content


def encoded(fields: dict[str, Any]) -> bytes:
    return msgspec.msgpack.encode([fields[name] for name in Body.__struct_fields__])


def applied(data: bytes) -> Decoded | None:
    """Decode and fold as the aggregator does, any key a series; None when it was refused, as it may be."""
    try:
        batch = decode(Entry(0, "1-1", data), read_envelope(data), BlockCache())
    except BatchError:
        return None
    keys = batch.block.directory.keys
    batch.block.series_ids = np.arange(1, len(keys) + 1, dtype=np.int64)
    batch.block.layouts = batch.block.metric_of + 1
    with np.errstate(all="raise"):
        out = fold([Booked(batch, 1, batch.body.window_start_s)], 0)
    assert out.events == batch.envelope.events == sum(out.total_ns)
    assert all(math.isfinite(total) for total in out.total_sums)
    return batch


def test_the_honest_batch_is_applied() -> None:
    assert applied(sealed(encoded(honest()))) is not None


ints = st.sampled_from(ODD_INTS) | st.integers(0, (1 << 64) - 1)
floats = st.sampled_from(ODD_FLOATS) | st.floats()
cells = st.one_of(
    ints.map(lambda n: packed("Q", n)),
    floats.map(lambda x: packed("d", x)),
    st.integers(0, (1 << 32) - 1).map(lambda n: packed("I", n)),
    st.binary(max_size=24),
)


@st.composite
def columns(draw: st.DrawFn, before: bytes) -> bytes:
    """Return a column with a cell changed, cut, repeated or all made up."""
    how = draw(st.sampled_from(["cell", "cut", "repeat", "new"]))
    if how == "new":
        return draw(st.lists(cells, max_size=4).map(b"".join))
    if how == "repeat":
        return before * draw(st.integers(0, 3))
    at = draw(st.integers(0, len(before)))
    if how == "cut":
        return before[:at]
    cell = draw(cells)
    return before[: at - at % 8] + cell + before[at - at % 8 + len(cell) :]


metrics = st.builds(
    MetricDef,
    st.sampled_from(["hits_total", "level", "size", "", "a-b", "x" * 201]),
    st.sampled_from(list(Kind)),
    st.text(max_size=5),
    st.sampled_from(["", "total", "s"]),
    st.lists(floats, max_size=4).map(tuple),
)
directories = st.builds(
    Directory,
    st.lists(metrics | st.sampled_from(METRICS), max_size=4).map(tuple),
    st.lists(st.sampled_from(KEYS) | st.binary(max_size=20), max_size=6),
    st.lists(st.integers(0, 5), max_size=6).map(lambda of: packed("H", *of)) | st.binary(max_size=12),
    *[st.integers(-1, 4)] * 4,
).map(encode_directory)


@st.composite
def changed_bodies(draw: st.DrawFn) -> dict[str, Any]:
    """Return an honest body with up to three of its parts changed."""
    fields = honest()
    for name in draw(st.lists(st.sampled_from([*COLUMNS, *OTHERS]), max_size=3)):
        if name == "directory":
            fields[name] = draw(directories | columns(fields[name]))
        elif name == "dropped":
            fields[name] = draw(st.dictionaries(st.text(max_size=5), ints, max_size=3))
        elif name in COLUMNS:
            fields[name] = draw(columns(fields[name]))
        else:
            fields[name] = draw(ints)
    return fields


@examples(400)
@given(changed_bodies(), st.just(14) | ints, st.just(1) | ints)
def test_a_body_with_changed_parts_is_applied_whole_or_refused(fields: dict[str, Any], events: int, seq: int) -> None:
    applied(sealed(encoded(fields), events=events, seq=seq))


@examples(400)
@given(st.data())
def test_changed_bytes_of_a_body_are_applied_or_refused(data: st.DataObject) -> None:
    """Under the checksum, in msgpack: types, lengths and values become others."""
    content = bytearray(encoded(honest()))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    flags = data.draw(st.sampled_from([0, 0, 0, 1, 3]))
    whole = zstandard.ZstdCompressor().compress(bytes(content)) if flags else bytes(content)
    applied(sealed(whole[: data.draw(st.sampled_from([len(whole), len(whole) // 2]))], flags))


@examples(200)
@given(st.binary(max_size=200), st.integers(0, 0xFFFF), st.booleans())
def test_any_bytes_are_refused_or_an_envelope(content: bytes, flags: int, is_sealed: bool) -> None:
    applied(sealed(content, flags) if is_sealed else content)


def array_of(count: int, element: bytes) -> bytes:
    return b"\xdd" + struct.pack(">I", count) + element * count


def directory_of(some_metrics: bytes, keys: bytes) -> bytes:
    return b"\x97" + some_metrics + keys + b"\xc4\x00\x00\x00\x00\x00"


def many_reasons() -> bytes:
    """A body's `dropped` with as many reasons as fit: each becomes an entry of a dictionary."""
    digits = bytes(range(1, 120))
    names = [bytes((0xA3, a, b, c, 0)) for a in digits[:58] for b in digits for c in digits]
    return b"\xdf" + struct.pack(">I", len(names)) + b"".join(names)


def short(size: int) -> bytes:
    return b"\xdc" + struct.pack(">H", size)


FULL: Final = wire.MAX_DIRECTORY_BYTES - 64
BOMBS: Final[dict[str, Callable[[], bytes]]] = {
    "metrics": lambda: directory_of(array_of(FULL // 4, b"\x92\xa1a\x01"), b"\x90"),
    "metrics in a short array": lambda: directory_of(short(65_535) + b"\x92\xa1a\x01" * 65_535, b"\x90"),
    "keys": lambda: directory_of(b"\x90", array_of(FULL // 4, b"\xc4\x02ab")),
    "empty keys": lambda: directory_of(b"\x90", array_of(FULL // 2, b"\xc4\x00")),
    "bounds": lambda: directory_of(b"\x91\x95\xa1a\x03\xa0\xa0" + array_of(FULL, b"\x01"), b"\x90"),
    "beyond the limit": lambda: directory_of(b"\x90", array_of(FULL, b"\xc4\x02ab")),
}
MOST_BYTES: Final = 160 << 20
"""What one hostile batch may take for a moment: an aggregator has 1 GB."""


def peak_of(data: bytes) -> int:
    """Return the most memory that refusing a batch, or applying it, took."""
    tracemalloc.start(1)
    try:
        applied(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", BOMBS)
def test_a_directory_that_grows_when_decoded_takes_bounded_memory(name: str) -> None:
    content = encoded({**honest(), "directory": BOMBS[name]()})
    assert peak_of(sealed(zstandard.ZstdCompressor().compress(content), wire.COMPRESSED)) < MOST_BYTES


def test_reasons_that_grow_when_decoded_take_bounded_memory() -> None:
    fields = [msgspec.msgpack.encode(value) for value in honest().values()]
    fields[Body.__struct_fields__.index("dropped")] = many_reasons()
    content = short(len(fields)) + b"".join(fields)
    assert wire.MAX_BODY_BYTES - (1 << 20) < len(content) <= wire.MAX_BODY_BYTES
    assert peak_of(sealed(zstandard.ZstdCompressor().compress(content), wire.COMPRESSED)) < MOST_BYTES


def test_directories_that_are_kept_are_counted_as_what_they_take() -> None:
    """A liar sends a new one with each batch: small ones in bytes, large ones in memory."""
    blocks = BlockCache(limit_bytes=8 << 20)
    tracemalloc.start(1)
    try:
        for number in range(24):
            keys = [struct.pack(">IB", at, number) for at in range(20_000)]
            of = packed("H", *[0] * len(keys))
            blocks.get(encode_directory(Directory(METRICS, keys, of, len(keys), 0, 0, 0)))
        assert tracemalloc.get_traced_memory()[0] < 12 << 20
    finally:
        tracemalloc.stop()
    assert DIRECTORY_CACHE_BYTES <= 128 << 20
