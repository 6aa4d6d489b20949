"""The batch: what was sealed comes back, and any other bytes are refused, cheaply, with nothing but BatchError."""

import struct
import tracemalloc
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from contract import batch as wire
from contract.batch import BatchError, Body, Directory, Envelope, read_body, read_directory, read_envelope
from contract.metric import Kind, MetricDef
from tests.batches import make_batch

PRODUCER = bytes(range(16))
SMALL = make_batch(PRODUCER, 7, counters={b"hits_total": (3, 3.5)}, accepted=30, dropped={"nonfinite": 2}, fin=True)
LARGE = make_batch(PRODUCER, 8, histograms={f'size{{x="{i}"}}'.encode(): [float(i)] * 9 for i in range(50)})


def opened(data: bytes) -> tuple[Envelope, Body, Directory]:
    envelope = read_envelope(data)
    body = read_body(envelope, data)
    return envelope, body, read_directory(body.directory)


def sealed(content: bytes, flags: int = 0) -> bytes:
    head = struct.pack("<4sHH16sQQ", wire.MAGIC, wire.VERSION, flags, PRODUCER, 1, 2)
    return head + wire.checksum_of(head + bytes(8) + content) + content


def test_what_was_sealed_comes_back() -> None:
    """Envelope, body and directory."""
    envelope, body, directory = opened(SMALL)
    assert (envelope.producer_id, envelope.seq, envelope.events) == (PRODUCER, 7, 3)
    assert (body.service, body.accepted, body.dropped, body.fin, body.run_id) == (
        "test",
        30,
        {"nonfinite": 2},
        True,
        None,
    )
    assert directory.keys == [b"hits_total"]
    assert struct.unpack("<d", body.counter_sum) == (3.5,)


def test_only_long_bodies_are_compressed() -> None:
    """Below 1 KiB zstd costs more than it saves."""
    assert not read_envelope(SMALL).flags & wire.COMPRESSED
    assert read_envelope(LARGE).flags & wire.COMPRESSED
    assert len(opened(LARGE)[2].keys) == 50


@given(st.sampled_from([SMALL, LARGE]), st.data())
def test_no_truncation_and_no_flipped_bit_gets_through(data: bytes, draw: st.DataObject) -> None:
    """Each byte is under the checksum, or is it."""
    at = draw.draw(st.integers(0, len(data) - 1))
    with pytest.raises(BatchError):
        read_envelope(data[:at])
    with pytest.raises(BatchError):
        read_envelope(data[:at] + bytes([data[at] ^ (1 << draw.draw(st.integers(0, 7)))]) + data[at + 1 :])


@given(st.binary(max_size=300), st.sampled_from([0, 1, 2, 0xFFFF]))
def test_any_content_under_a_right_checksum_is_a_body_or_an_error(content: bytes, flags: int) -> None:
    """A forger knows the checksum too."""
    data = sealed(content, flags)
    try:
        opened(data)
    except BatchError:
        return


@settings(max_examples=300)
@given(st.data())
def test_any_types_in_the_body_are_a_body_or_an_error(draw: st.DataObject) -> None:
    """Fields of the wrong type, in the right places."""
    scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(), st.binary())
    values: Any = st.recursive(scalars, lambda s: st.lists(s, max_size=3) | st.dictionaries(st.text(), s, max_size=3))
    fields = list(msgspec.structs.astuple(opened(SMALL)[1]))
    fields[draw.draw(st.integers(0, len(fields) - 1))] = draw.draw(values)
    data = sealed(msgspec.msgpack.encode(fields))
    try:
        opened(data)
    except BatchError:
        return


def test_fields_that_a_later_version_appends_are_passed_over() -> None:
    """Readers first: an old reader folds what a new producer sends."""
    fields = [*msgspec.structs.astuple(opened(SMALL)[1]), "new", {"and": "more"}]
    assert opened(sealed(msgspec.msgpack.encode(fields)))[1].accepted == 30


@pytest.mark.parametrize(
    "content",
    [b"\x91" * 900_000, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff" + b"\x80" * 900_000],
    ids=["nesting", "long array", "long bytes", "long map"],
)
def test_msgpack_bombs_are_refused_without_large_allocation(content: bytes) -> None:
    """A header that promises four billion elements allocates none."""
    assert_cheap(sealed(content))


@pytest.mark.parametrize("declared", [True, False])
def test_zstd_bombs_are_refused_without_large_allocation(declared: bool) -> None:
    """64 MiB of zeros in some kilobytes, with their size in the frame or without."""
    compressor = zstandard.ZstdCompressor(level=19, write_content_size=declared)
    assert_cheap(sealed(compressor.compress(bytes(64 << 20)), wire.COMPRESSED))


def assert_cheap(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BatchError):
            opened(data)
        assert tracemalloc.get_traced_memory()[1] < 2 * wire.MAX_BODY_BYTES
    finally:
        tracemalloc.stop()


def test_an_entry_takes_up_to_a_mebibyte() -> None:
    room = wire.MAX_BATCH_BYTES - wire.HEADER_BYTES
    assert read_envelope(sealed(bytes(room))).seq == 1
    with pytest.raises(BatchError, match="at most 1048576"):
        read_envelope(sealed(bytes(room + 1)))


def test_a_body_takes_up_to_four_mebibytes() -> None:
    """What is longer is refused before it is decompressed, whatever it holds."""
    for size, refusal in ((wire.MAX_BODY_BYTES, "body: "), (wire.MAX_BODY_BYTES + 1, "declares")):
        data = sealed(zstandard.ZstdCompressor().compress(bytes(size)), wire.COMPRESSED)
        with pytest.raises(BatchError, match=refusal):
            read_body(read_envelope(data), data)


@pytest.mark.parametrize(("keys", "key_bytes"), [(wire.MAX_KEYS, 3), (1, (2 << 20) - 64)])
def test_a_directory_takes_so_many_series_and_bytes_and_no_more(keys: int, key_bytes: int) -> None:
    """65 536 series; 2 MiB."""

    def directory_of(keys: int, key_bytes: int) -> bytes:
        names = [i.to_bytes(3) + bytes(key_bytes - 3) for i in range(keys)]
        return wire.encode_directory(Directory((MetricDef("a", Kind.COUNTER),), names, bytes(2 * keys), keys, 0, 0, 0))

    assert len(read_directory(directory_of(keys, key_bytes)).keys) == keys
    with pytest.raises(BatchError, match="directory: "):
        read_directory(directory_of(keys + 1, key_bytes))
