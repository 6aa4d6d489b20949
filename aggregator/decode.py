"""Decode: stream entries to checked numpy columns.

In: the bytes of an entry. Out: a Decoded batch whose every number was checked, or a BatchError with its reason.
Promise: whatever the bytes, nothing but BatchError is raised; a Decoded can be folded without further checks.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from contract.batch import MAX_EVENTS, BatchError, Body, Directory, Envelope, metric_indices, read_body, read_directory
from contract.reasons import Quarantined
from contract.series import MAX_VALUE
from contract.sketch import SketchError
from database.sketches import Bytes, Entries, Floats, Ints, decode_rows

DIRECTORY_CACHE_BYTES: Final = 128 << 20
KEY_BYTES: Final = 96
METRIC_BYTES: Final = 400
"""What a key and a metric take in memory beside their bytes: short ones take many times what they are long."""


@dataclass(slots=True, frozen=True)
class Entry:
    """One stream entry as it was read."""

    shard: int
    stream_id: str
    data: bytes

    @property
    def added_s(self) -> int:
        """When Redis took it in, by the clock of Redis."""
        return int(self.stream_id.partition("-")[0]) // 1000


class Block:
    """A directory seen before: its decoded form, and its series numbers once they are resolved."""

    __slots__ = ("conflicted", "directory", "generation", "layouts", "metric_of", "series_ids", "surplus", "widths")

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.metric_of: Ints = np.array(metric_indices(directory), dtype=np.int64)
        widths = np.array([len(m.bounds) + 1 for m in directory.metrics] or [1], dtype=np.int64)
        self.widths: Ints = widths[self.metric_of]
        """Bucket counts per key; meaningful for histograms."""
        self.series_ids: Ints | None = None
        """Set by `Identities.resolve`."""
        self.generation = 0
        """The generation that the numbers belong to; 0: not resolved."""
        self.layouts: Ints = np.zeros(len(directory.keys), dtype=np.int64)
        self.conflicted: NDArray[np.bool_] | None = None
        """Keys of a metric that is known as another kind; None: there are none."""
        self.surplus: NDArray[np.bool_] | None = None
        """Keys that were sent to the overflow series; None: there are none."""

    def size_bytes(self, data: bytes) -> int:
        """Return about what it takes in memory, its bytes included."""
        return len(data) + KEY_BYTES * len(self.directory.keys) + METRIC_BYTES * len(self.directory.metrics)


class BlockCache:
    """Blocks by the bytes of their directory, the oldest dropped beyond a size."""

    def __init__(self, limit_bytes: int = DIRECTORY_CACHE_BYTES) -> None:
        self._blocks: OrderedDict[bytes, Block] = OrderedDict()
        self._limit_bytes = limit_bytes
        self._bytes = 0

    def get(self, data: bytes) -> Block:
        """Return the block of a directory; BatchError if the bytes are none."""
        block = self._blocks.get(data)
        if block is not None:
            self._blocks.move_to_end(data)
            return block
        block = Block(read_directory(data))
        self._blocks[data] = block
        self._bytes += block.size_bytes(data)
        while self._bytes > self._limit_bytes and len(self._blocks) > 1:
            dropped, old = self._blocks.popitem(last=False)
            self._bytes -= old.size_bytes(dropped)
        return block

    def clear(self) -> None:
        """Forget everything: the numbers in the blocks are no longer valid."""
        self._blocks.clear()
        self._bytes = 0


@dataclass(slots=True)
class Decoded:
    """One batch, decoded and checked. Columns follow the runs of its directory."""

    entry: Entry
    envelope: Envelope
    body: Body
    block: Block
    counter_n: Ints
    counter_sum: Floats
    gauge_n: Ints
    gauge_last: Floats
    gauge_sum: Floats
    gauge_min: Floats
    gauge_max: Floats
    sample_n: Ints
    samples: Floats
    merged_n: Ints
    merged_sum: Floats
    merged_min: Floats
    merged_max: Floats
    merged_le: Ints
    merged_entries: Entries

    @property
    def short_checksum(self) -> int:
        """The first 32 bits of the checksum, as PostgreSQL's `int` holds them."""
        return int.from_bytes(self.envelope.checksum[:4], "little", signed=True)

    @property
    def sealed_after(self) -> int:
        """Events in all batches of the producer up to and with this one, as the producer counted."""
        return self.body.accepted - sum(self.body.dropped.values())

    @property
    def sealed_before(self) -> int:
        """The same without this batch."""
        return self.sealed_after - self.envelope.events


@dataclass(slots=True, frozen=True)
class Booked:
    """A resolved batch, its producer's number, and the window it is booked to."""

    batch: Decoded
    producer_no: int
    window_s: int
    displaced: bool = False

    @property
    def identity(self) -> tuple[int, int]:
        """Number of the producer and seq."""
        return self.producer_no, self.batch.envelope.seq


def decode(entry: Entry, envelope: Envelope, blocks: BlockCache) -> Decoded:
    """Decode a batch of a known version whose envelope was checked; BatchError if any part is malformed."""
    body = read_body(envelope, entry.data)
    block = blocks.get(body.directory)
    runs = block.directory
    decoded = Decoded(
        entry,
        envelope,
        body,
        block,
        _counts(body.counter_n, runs.n_counters, "counter_n"),
        _floats(body.counter_sum, runs.n_counters, "counter_sum"),
        _counts(body.gauge_n, runs.n_gauges, "gauge_n"),
        _floats(body.gauge_last, runs.n_gauges, "gauge_last"),
        _floats(body.gauge_sum, runs.n_gauges, "gauge_sum", of_many=True),
        _floats(body.gauge_min, runs.n_gauges, "gauge_min"),
        _floats(body.gauge_max, runs.n_gauges, "gauge_max"),
        _column(body.sample_n, runs.n_samples, "<u4", "sample_n").astype(np.int64),
        _floats(body.samples, len(body.samples) // 8, "samples"),
        _counts(body.merged_n, runs.n_merged, "merged_n"),
        _floats(body.merged_sum, runs.n_merged, "merged_sum", of_many=True),
        _floats(body.merged_min, runs.n_merged, "merged_min"),
        _floats(body.merged_max, runs.n_merged, "merged_max"),
        _counts(body.merged_le, int(block.widths[len(block.widths) - runs.n_merged :].sum()), "merged_le"),
        _sketches(body, runs.n_merged),
    )
    _check(decoded)
    return decoded


def _malformed(text: str) -> BatchError:
    return BatchError(Quarantined.MALFORMED, text)


def _column(data: bytes, size: int, dtype: str, name: str) -> NDArray[Any]:
    if len(data) != size * int(dtype[-1]):
        raise _malformed(f"{name} holds {len(data)} bytes for {size} values")
    return np.frombuffer(data, dtype=dtype)


def _counts(data: bytes, size: int, name: str) -> Ints:
    column = _column(data, size, "<u8", name)
    if size and int(column.max()) > MAX_EVENTS:
        raise _malformed(f"{name} holds a count above {MAX_EVENTS}")
    return column.astype(np.int64)


def _floats(data: bytes, size: int, name: str, of_many: bool = False) -> Floats:
    column = _column(data, size, "<f8", name)
    # A sum of many legal values may exceed what one value may be.
    limit = MAX_VALUE * MAX_EVENTS if of_many or name == "counter_sum" else MAX_VALUE
    # NaN fails the comparison too.
    if size and not (float(np.abs(column).max()) <= limit):
        raise _malformed(f"{name} holds a value that is not finite or out of range")
    return column


def _sketches(body: Body, size: int) -> Entries:
    lengths = _column(body.merged_sketch_len, size, "<u4", "merged_sketch_len").astype(np.int64)
    packed: Bytes = np.frombuffer(body.merged_sketch, dtype=np.uint8)
    try:
        return decode_rows(lengths, packed)
    except SketchError as error:
        raise _malformed(f"merged_sketch: {error}") from None


def _check(d: Decoded) -> None:
    if len(d.counter_sum) and float(d.counter_sum.min()) < 0:
        raise _malformed("counter_sum holds a negative value")
    if len(d.sample_n) and int(d.sample_n.min()) < 1:
        raise _malformed("sample_n holds a zero")
    if int(d.sample_n.sum()) != len(d.samples):
        raise _malformed("sample_n does not add up to the samples")
    if len(d.merged_n):
        widths = d.block.widths[len(d.block.widths) - len(d.merged_n) :]
        starts = np.cumsum(widths) - widths
        in_sketch = np.bincount(d.merged_entries.row, weights=d.merged_entries.count, minlength=len(d.merged_n))
        in_le = np.add.reduceat(d.merged_le, starts)
        if int(d.merged_n.min()) < 1 or (in_le != d.merged_n).any() or (in_sketch != d.merged_n).any():
            raise _malformed("merged_n, merged_le and merged_sketch do not agree")
    events = int(d.counter_n.sum() + d.gauge_n.sum() + d.sample_n.sum() + d.merged_n.sum())
    if events != d.envelope.events:
        raise _malformed(f"the columns hold {events} events, the envelope says {d.envelope.events}")
    if d.sealed_before < 0:
        raise _malformed("accepted is less than dropped and the events of this batch")
