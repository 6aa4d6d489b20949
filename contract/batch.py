"""The batch: what a producer seals and sends, one stream entry; its envelope and its body.

In: a Body (columns as little-endian bytes), out: frozen bytes; and back, with every length checked.
The envelope is fixed for ever, so any reader of any age can account for a batch it cannot fold:

    offset  size  field
         0     4  magic b"SGB1"
         4     2  version (u16 le) of the body
         6     2  flags (u16 le): bit 0 = the body is one zstd frame
         8    16  producer id
        24     8  seq (u64 le), from 1 without gaps
        32     8  events (u64 le) in the batch
        40     8  checksum: blake2b-64 over bytes 0..40 and everything after 48
        48     -  body: msgpack of Body, an array; fields are only ever appended, with defaults

Promise: `read_envelope` and `read_body` raise nothing but BatchError, whatever the bytes (and MemoryError, which says
nothing of them); they never allocate more than MAX_BODY_BYTES for a body; a Body they return has columns of matching
lengths.
"""

import struct
import threading
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec
import zstandard

from contract.metric import Kind, MetricDef, check_metric
from contract.reasons import Quarantined
from contract.series import SeriesError

MAGIC: Final = b"SGB1"
VERSION: Final = 1
COMPRESSED: Final = 1
COMPRESS_ABOVE_BYTES: Final = 1024
MAX_BATCH_BYTES: Final = 1 << 20
"""Longest stream entry that is read or sealed."""
MAX_BODY_BYTES: Final = 4 << 20
"""Longest body after decompression: bounds what a compression bomb can allocate. Producers stay below 1 MiB."""
MAX_DIRECTORY_BYTES: Final = 2 << 20
"""Longest directory. Its elements become objects of some 20 times their bytes: what is longer is not decoded."""
MAX_KEYS: Final = 1 << 16
"""Most series of one batch: 16 times what producers put into one."""
MAX_EVENTS: Final = 1 << 40
"""More events than this in one batch are refused: far above any interval, far below what could overflow a sum."""
MAX_SEQ: Final = (1 << 62) - 1
MAX_COUNTED: Final = 1 << 52
"""A producer that counted more in its life is not believed: two thousand of them could overflow a sum."""
MAX_REASON_CHARS: Final = 64
ZSTD_LEVEL: Final = 1

_HEAD = struct.Struct("<4sHH16sQQ")
HEADER_BYTES: Final = _HEAD.size + 8
_FRAME_HEADER_BYTES: Final = 18
"""Of zstd, at most."""


class BatchError(ValueError):
    """Bytes that can never be applied; `reason` says which check failed."""

    def __init__(self, reason: Quarantined, text: str) -> None:
        super().__init__(f"{reason}: {text}")
        self.reason = reason


class Envelope(NamedTuple):
    """The part of a batch that every reader understands."""

    version: int
    flags: int
    producer_id: bytes
    seq: int
    events: int
    checksum: bytes

    @property
    def short_checksum(self) -> int:
        """The first 32 bits of the checksum, as PostgreSQL's `int` holds them."""
        return int.from_bytes(self.checksum[:4], "little", signed=True)


class Directory(msgspec.Struct, array_like=True, frozen=True):
    """Which series a batch speaks of. Often equal from batch to batch: readers cache it by its bytes.

    Keys stand in four runs: counters, gauges, histograms with samples, histograms merged to a sketch.
    `metric_of` (u16 le per key) points into `metrics`.
    """

    metrics: tuple[MetricDef, ...]
    keys: list[bytes]
    metric_of: bytes
    n_counters: int
    n_gauges: int
    n_samples: int
    n_merged: int


class Body(msgspec.Struct, array_like=True, frozen=True):
    """The content of a batch. Columns: n as u64, floats as f64, sample and sketch lengths as u32, little-endian."""

    service: str
    window_start_s: int
    """Start of the 10 s window (Redis clock) to which all of it is booked."""
    span_start_ms: int
    """Start of the time the batch covers; before the window when an outage was merged."""
    flushed_ms: int
    """When it was sealed, on the Redis clock as the producer knows it."""
    clock_offset_us: int
    """Redis clock minus the producer's wall clock when it was sealed."""
    clock_uncertainty_us: int
    window_first_seq: int
    """The producer's first seq in this window: tells when an older window is complete."""
    accepted: int
    """Events accepted since the producer began, this batch's and all dropped ones included."""
    dropped: dict[str, int]
    """Events dropped since the producer began, by reason."""
    fin: bool
    """The producer's last batch."""
    run_id: str | None
    """Load-test run; null for real traffic."""
    directory: bytes
    """msgpack of Directory."""
    counter_n: bytes = b""
    counter_sum: bytes = b""
    gauge_n: bytes = b""
    """Sets since the last batch; 0 where a gauge is only repeated."""
    gauge_last: bytes = b""
    gauge_sum: bytes = b""
    gauge_min: bytes = b""
    gauge_max: bytes = b""
    sample_n: bytes = b""
    """u32: how many of `samples` belong to each sampled histogram, in key order."""
    samples: bytes = b""
    merged_n: bytes = b""
    merged_sum: bytes = b""
    merged_min: bytes = b""
    merged_max: bytes = b""
    merged_last: bytes = b""
    merged_le: bytes = b""
    """u64: per merged histogram its metric's len(bounds) + 1 counts, not cumulative, +Inf last."""
    merged_sketch_len: bytes = b""
    """u32: bytes of each sketch in `merged_sketch`."""
    merged_sketch: bytes = b""


_encoder = msgspec.msgpack.Encoder()
_body_decoder = msgspec.msgpack.Decoder(Body)
_directory_decoder = msgspec.msgpack.Decoder(Directory)
_local = threading.local()
_DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError)


def checksum_of(data: bytes | memoryview) -> bytes:
    """Return the 8-byte checksum of a whole batch, the checksum field itself left out."""
    digest = blake2b(data[: _HEAD.size], digest_size=8)
    digest.update(data[HEADER_BYTES:])
    return digest.digest()


def encode_directory(directory: Directory) -> bytes:
    """Return the bytes of a Directory for `Body.directory`."""
    return _encoder.encode(directory)


def seal(producer_id: bytes, seq: int, events: int, body: Body) -> bytes:
    """Freeze a batch into its bytes; they are re-sent unchanged until Redis acknowledged them."""
    content = _encoder.encode(body)
    flags = 0
    if len(content) > COMPRESS_ABOVE_BYTES:
        content = _compressor().compress(content)
        flags = COMPRESSED
    head = _HEAD.pack(MAGIC, VERSION, flags, producer_id, seq, events)
    digest = blake2b(head, digest_size=8)
    digest.update(content)
    return b"".join((head, digest.digest(), content))


def read_envelope(data: bytes) -> Envelope:
    """Check magic, size and checksum and return the envelope; BatchError otherwise. The version is not judged."""
    if len(data) < HEADER_BYTES:
        raise BatchError(Quarantined.TRUNCATED, f"{len(data)} bytes are no batch")
    magic, version, flags, producer_id, seq, events = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise BatchError(Quarantined.BAD_MAGIC, f"magic is {magic!r}")
    if len(data) > MAX_BATCH_BYTES:
        raise BatchError(Quarantined.TOO_LARGE, f"{len(data)} bytes; at most {MAX_BATCH_BYTES} are allowed")
    checksum = data[_HEAD.size : HEADER_BYTES]
    if checksum != checksum_of(data):
        raise BatchError(Quarantined.CHECKSUM, "the checksum does not match the bytes")
    if not 1 <= seq <= MAX_SEQ or events > MAX_EVENTS:
        raise BatchError(Quarantined.MALFORMED, f"seq {seq} or events {events} is out of range")
    return Envelope(version, flags, producer_id, seq, events, checksum)


def decoded_bytes(data: bytes) -> int:
    """Return what a batch takes with its body decompressed, as it says itself. Whatever the bytes: raises nothing."""
    if len(data) < HEADER_BYTES or not data[6] & COMPRESSED:
        return len(data)
    try:
        size = zstandard.frame_content_size(data[HEADER_BYTES : HEADER_BYTES + _FRAME_HEADER_BYTES])
    except zstandard.ZstdError:
        return len(data)
    # What declares more is refused before it is decompressed.
    return len(data) + (size if 0 <= size <= MAX_BODY_BYTES else 0)


def read_body(envelope: Envelope, data: bytes) -> Body:
    """Decode the body of a checked batch of VERSION; BatchError if it is malformed."""
    content = data[HEADER_BYTES:]
    if envelope.flags & COMPRESSED:
        content = _decompress(content)
    try:
        body = _body_decoder.decode(content)
    except _DECODE_ERRORS as error:
        raise BatchError(Quarantined.MALFORMED, f"body: {error}") from None
    _check_body(body)
    return body


def read_directory(data: bytes) -> Directory:
    """Decode and check a Directory; BatchError if it is malformed."""
    # Before decoding: the second byte says how many metrics follow, and 0xdd is more than `metric_of` can name.
    if len(data) > MAX_DIRECTORY_BYTES or len(data) < 2 or data[0] & 0xF0 != 0x90 or data[1] == 0xDD:
        raise BatchError(Quarantined.MALFORMED, f"directory: {len(data)} bytes are too long or hold too many metrics")
    try:
        directory = _directory_decoder.decode(data)
        for metric in directory.metrics:
            check_metric(metric)
    except (*_DECODE_ERRORS, SeriesError) as error:
        raise BatchError(Quarantined.MALFORMED, f"directory: {error}") from None
    counts = (directory.n_counters, directory.n_gauges, directory.n_samples, directory.n_merged)
    keys = len(directory.keys)
    if min(counts) < 0 or keys > MAX_KEYS or sum(counts) != keys or len(directory.metric_of) != 2 * keys:
        raise BatchError(Quarantined.MALFORMED, f"directory: {keys} keys do not match the runs {counts}")
    _check_kinds(directory)
    return directory


def metric_indices(directory: Directory) -> memoryview:
    """Return `metric_of` as a sequence of ints, one per key."""
    return memoryview(directory.metric_of).cast("H")


def _check_kinds(directory: Directory) -> None:
    of = metric_indices(directory)
    first = 0
    runs = (
        (directory.n_counters, Kind.COUNTER),
        (directory.n_gauges, Kind.GAUGE),
        (directory.n_samples + directory.n_merged, Kind.HISTOGRAM),
    )
    for count, kind in runs:
        for index in set(of[first : first + count]):
            if index >= len(directory.metrics) or directory.metrics[index].kind is not kind:
                raise BatchError(Quarantined.MALFORMED, f"directory: metric {index} is not a {kind.name.lower()}")
        first += count


def _check_body(body: Body) -> None:
    if body.window_start_s % 10 or not 0 <= body.window_start_s < 1 << 40:
        raise BatchError(Quarantined.MALFORMED, f"window_start_s {body.window_start_s} is not a window start")
    if not all(0 <= n <= MAX_COUNTED for n in (body.accepted, *body.dropped.values())):
        raise BatchError(Quarantined.MALFORMED, "accepted or dropped is out of range")
    if len(body.dropped) > 64 or len(body.service) > 128 or len(body.run_id or "") > 64:
        raise BatchError(Quarantined.MALFORMED, "dropped, service or run_id is too long")
    if max(map(len, body.dropped), default=0) > MAX_REASON_CHARS:
        raise BatchError(Quarantined.MALFORMED, "a reason of dropped is too long")
    if any("\0" in text for text in (body.service, body.run_id or "", *body.dropped)):
        raise BatchError(Quarantined.MALFORMED, "service, run_id or a reason of dropped holds NUL")
    if not (
        0 <= body.span_start_ms < 1 << 50 and 0 <= body.flushed_ms < 1 << 50 and 0 < body.window_first_seq <= MAX_SEQ
    ):
        raise BatchError(Quarantined.MALFORMED, "span_start_ms, flushed_ms or window_first_seq is out of range")


def _compressor() -> zstandard.ZstdCompressor:
    """One compressor a thread: a context may not be shared, and making one costs more than a batch."""
    compressor: zstandard.ZstdCompressor | None = getattr(_local, "compressor", None)
    if compressor is None:
        compressor = _local.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
    return compressor


def _decompress(content: bytes) -> bytes:
    decompressor: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if decompressor is None:
        decompressor = _local.decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_BODY_BYTES)
    try:
        # The declared size is checked first: `decompress` allocates what the frame declares.
        size = zstandard.frame_content_size(content)
        if not 0 <= size <= MAX_BODY_BYTES:
            raise BatchError(Quarantined.TOO_LARGE, f"the body declares {size} bytes")
        return decompressor.decompress(content, max_output_size=MAX_BODY_BYTES)
    except zstandard.ZstdError as error:
        raise BatchError(Quarantined.MALFORMED, f"zstd: {error}") from None
