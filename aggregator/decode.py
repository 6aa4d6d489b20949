"""Decode: stream entries to checked numpy columns.

In: the bytes of entries. Out: for each a Decoded batch whose every number was checked, or a BatchError with its reason.
Promise: whatever the bytes, nothing but BatchError is raised; a Decoded can be folded without further checks.

The same column of many batches is laid end to end and checked at once: a call of numpy costs a microsecond whatever
it is given, and a batch of a quiet process has a few dozen numbers.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import attrgetter
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.batch import MAX_EVENTS, BatchError, Body, Directory, Envelope, read_body, read_directory
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
    held_bytes: int = 0
    """What it takes once it is decompressed, as it says itself."""
    often: bool = False
    """Delivered so often that it may have ended who read it together with others."""

    @property
    def added_s(self) -> int:
        """When Redis took it in, by the clock of Redis."""
        return int(self.stream_id.partition("-")[0]) // 1000


class Block:
    """A directory seen before: its decoded form, and its series numbers once they are resolved."""

    __slots__ = ("conflicted", "directory", "generation", "histograms", "layouts", "metric_of", "series_ids", "surplus")

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.metric_of: Ints = np.frombuffer(directory.metric_of, dtype="<u2").astype(np.int64)
        self.histograms = _first_keys(directory, self.metric_of.tolist())
        """Of each metric that has histograms here: the place of its first key, and its bounds."""
        self.series_ids: Ints | None = None
        """Set by `Identities.resolve`."""
        self.generation = 0
        """The generation that the numbers belong to; 0: not resolved."""
        self.layouts: Ints = np.zeros(len(directory.keys), dtype=np.int64)
        self.conflicted: NDArray[np.bool_] | None = None
        """Keys of a metric that is known as another kind; None: there are none."""
        self.surplus: NDArray[np.bool_] | None = None
        """Keys that were sent to the overflow series; None: there are none."""

    def merged_widths(self) -> Ints:
        """Return how many bucket counts each merged histogram has."""
        widths = np.array([len(m.bounds) + 1 for m in self.directory.metrics], dtype=np.int64)
        return widths[self.metric_of[len(self.metric_of) - self.directory.n_merged :]]

    def size_bytes(self, data: bytes) -> int:
        """Return about what it takes in memory, its bytes included."""
        return len(data) + KEY_BYTES * len(self.directory.keys) + METRIC_BYTES * len(self.directory.metrics)


def _first_keys(directory: Directory, metric_of: list[int]) -> list[tuple[int, tuple[float, ...]]]:
    first = directory.n_counters + directory.n_gauges
    occurring = dict.fromkeys(metric_of[first:])
    return [(metric_of.index(i, first), directory.metrics[i].bounds) for i in occurring]


class BlockCache:
    """Blocks by the bytes of their directory, the oldest dropped beyond a size. A thread decodes, others clear it."""

    def __init__(self, limit_bytes: int = DIRECTORY_CACHE_BYTES) -> None:
        self._lock = threading.Lock()
        self._blocks: OrderedDict[bytes, Block] = OrderedDict()
        self._limit_bytes = limit_bytes
        self._bytes = 0

    def get(self, data: bytes) -> Block:
        """Return the block of a directory; BatchError if the bytes are none."""
        with self._lock:
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
        with self._lock:
            self._blocks.clear()
            self._bytes = 0


@dataclass(slots=True)
class Decoded:
    """One batch, decoded and checked. Columns follow the runs of its directory."""

    entry: Entry
    envelope: Envelope
    body: Body
    """Without its columns; its directory too is left only in a load-test run's, which needs a block of its own."""
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
    def held_bytes(self) -> int:
        """What its columns take."""
        counted = 2 * self.counter_n.nbytes + 5 * self.gauge_n.nbytes + self.sample_n.nbytes + self.samples.nbytes
        return counted + 4 * self.merged_n.nbytes + self.merged_le.nbytes + 3 * self.merged_entries.row.nbytes

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
    decoded = decode_all([(entry, envelope)], blocks)[0]
    if isinstance(decoded, BatchError):
        raise decoded
    return decoded


def decode_all(checked: Sequence[tuple[Entry, Envelope]], blocks: BlockCache) -> list[Decoded | BatchError]:
    """Decode batches of a known version whose envelopes were checked; what is malformed becomes its BatchError."""
    read = [_read(entry, envelope, blocks) for entry, envelope in checked]
    sound = iter(_together([one for one in read if isinstance(one, _Raw)]))
    return [next(sound) if isinstance(one, _Raw) else one for one in read]


class _Raw(NamedTuple):
    """A batch whose columns have the right length."""

    entry: Entry
    envelope: Envelope
    body: Body
    block: Block
    sizes: tuple[int, ...]
    """Elements of a column, by `_Column.run`."""


class _Column(NamedTuple):
    name: str
    run: int
    """Which of the sizes it has."""
    dtype: str
    limit: float
    """No element is larger, nor the negative of one."""


_COUNTERS, _GAUGES, _SAMPLED, _SAMPLES, _MERGED, _LE = range(6)
_OF_MANY: Final = MAX_VALUE * MAX_EVENTS
"""A sum of many legal values may exceed what one value may be."""

_COLUMNS: Final = (
    _Column("counter_n", _COUNTERS, "<u8", MAX_EVENTS),
    _Column("counter_sum", _COUNTERS, "<f8", _OF_MANY),
    _Column("gauge_n", _GAUGES, "<u8", MAX_EVENTS),
    _Column("gauge_last", _GAUGES, "<f8", MAX_VALUE),
    _Column("gauge_sum", _GAUGES, "<f8", _OF_MANY),
    _Column("gauge_min", _GAUGES, "<f8", MAX_VALUE),
    _Column("gauge_max", _GAUGES, "<f8", MAX_VALUE),
    _Column("sample_n", _SAMPLED, "<u4", MAX_EVENTS),
    _Column("samples", _SAMPLES, "<f8", MAX_VALUE),
    _Column("merged_n", _MERGED, "<u8", MAX_EVENTS),
    _Column("merged_sum", _MERGED, "<f8", _OF_MANY),
    _Column("merged_min", _MERGED, "<f8", MAX_VALUE),
    _Column("merged_max", _MERGED, "<f8", MAX_VALUE),
    _Column("merged_le", _LE, "<u8", MAX_EVENTS),
)
_HEAD: Final = attrgetter(*Body.__struct_fields__[: Body.__struct_fields__.index("directory")])
_WIDTHS: Final = tuple((column.name, column.run, int(column.dtype[-1])) for column in _COLUMNS)
_NO_FLOATS: Final[Floats] = np.empty(0)
_NO_INTS: Final[Ints] = np.empty(0, dtype=np.int64)
_NO_ENTRIES: Final = Entries(_NO_INTS, _NO_INTS, _NO_INTS)


def _read(entry: Entry, envelope: Envelope, blocks: BlockCache) -> _Raw | BatchError:
    try:
        body = read_body(envelope, entry.data)
        block = blocks.get(body.directory)
        runs = block.directory
        le = int(block.merged_widths().sum()) if runs.n_merged else 0
        sizes = (runs.n_counters, runs.n_gauges, runs.n_samples, len(body.samples) // 8, runs.n_merged, le)
        for name, run, width in _WIDTHS:
            data = getattr(body, name)
            if len(data) != sizes[run] * width:
                raise _malformed(f"{name} holds {len(data)} bytes for {sizes[run]} values")
        if body.accepted - sum(body.dropped.values()) < envelope.events:
            raise _malformed("accepted is less than dropped and the events of this batch")
    except BatchError as error:
        return error
    return _Raw(entry, envelope, body, block, sizes)


def _together(raws: Sequence[_Raw]) -> Sequence[Decoded | BatchError]:
    """Check all at once; where something is wrong each alone, so that the error falls on the batch that has it."""
    try:
        return _join(raws) if raws else []
    except BatchError as error:
        if len(raws) == 1:
            return [error]
        return [one for raw in raws for one in _together([raw])]


def _join(raws: Sequence[_Raw]) -> list[Decoded]:
    ends = [list(accumulate(raw.sizes[run] for raw in raws)) for run in range(_LE + 1)]
    columns = [_column(raws, column) for column in _COLUMNS]
    by_name = {column.name: values for column, values in zip(_COLUMNS, columns, strict=True)}
    _check(raws, by_name, ends)
    pieces = [_pieces(values, ends[column.run]) for column, values in zip(_COLUMNS, columns, strict=True)]
    found: list[Decoded] = []
    for raw, values in zip(raws, zip(*pieces, strict=True), strict=True):
        of = dict(zip(by_name, values, strict=True))
        entries = _sketches(raw, of["merged_n"], of["merged_le"])
        found.append(Decoded(raw.entry, raw.envelope, _bare(raw.body), raw.block, merged_entries=entries, **of))
    return found


def _bare(body: Body) -> Body:
    """Return a body without what stands in columns and block by now: most of its memory, and commits wait in line."""
    return Body(*_HEAD(body), directory=b"" if body.run_id is None else body.directory)


def _pieces(column: NDArray[Any], ends: Sequence[int]) -> list[NDArray[Any]]:
    """Cut a joined column into what each batch has of it."""
    if not len(column):
        return [column] * len(ends)
    starts = (0, *ends)
    return [column[start:end] for start, end in zip(starts, ends, strict=False)]


def _malformed(text: str) -> BatchError:
    return BatchError(Quarantined.MALFORMED, text)


def _column(raws: Sequence[_Raw], column: _Column) -> NDArray[Any]:
    """Lay a column of all batches end to end, and check that each element is within its bound."""
    name, _, dtype, limit = column
    data = b"".join([getattr(raw.body, name) for raw in raws])
    if not data:
        return _NO_FLOATS if dtype == "<f8" else _NO_INTS
    values = np.frombuffer(data, dtype=dtype)
    if dtype != "<f8":
        if int(values.max()) > limit:
            raise _malformed(f"{name} holds a count above {MAX_EVENTS}")
        return values.view(np.int64) if dtype == "<u8" else values.astype(np.int64)
    # NaN is the largest and the smallest, and fails the comparison.
    if not (-limit <= float(values.min()) and float(values.max()) <= limit):
        raise _malformed(f"{name} holds a value that is not finite or out of range")
    return values


def _check(raws: Sequence[_Raw], columns: dict[str, NDArray[Any]], ends: Sequence[Sequence[int]]) -> None:
    counter_sum, sample_n = columns["counter_sum"], columns["sample_n"]
    if len(counter_sum) and float(counter_sum.min()) < 0:
        raise _malformed("counter_sum holds a negative value")
    if len(sample_n) and int(sample_n.min()) < 1:
        raise _malformed("sample_n holds a zero")
    sampled = _sums(sample_n, ends[_SAMPLED])
    if (sampled != np.diff(ends[_SAMPLES], prepend=0)).any():
        raise _malformed("sample_n does not add up to the samples")
    others = [(columns["counter_n"], _COUNTERS), (columns["gauge_n"], _GAUGES), (columns["merged_n"], _MERGED)]
    events = sampled + sum(_sums(column, ends[run]) for column, run in others)
    wrong = np.flatnonzero(events != np.array([raw.envelope.events for raw in raws]))
    if len(wrong):
        said = raws[int(wrong[0])].envelope.events
        raise _malformed(f"the columns hold {int(events[wrong[0]])} events, the envelope says {said}")


def _sums(column: Ints, ends: Sequence[int]) -> Ints:
    """Add up what each batch has of a joined column."""
    if not len(column):
        return np.zeros(len(ends), dtype=np.int64)
    running = np.concatenate(([0], np.cumsum(column)))
    return np.diff(running[ends], prepend=0)


def _sketches(raw: _Raw, merged_n: Ints, merged_le: Ints) -> Entries:
    size, body = raw.sizes[_MERGED], raw.body
    if len(body.merged_sketch_len) != 4 * size:
        raise _malformed(f"merged_sketch_len holds {len(body.merged_sketch_len)} bytes for {size} values")
    if not size and not body.merged_sketch:
        return _NO_ENTRIES
    lengths = np.frombuffer(body.merged_sketch_len, dtype="<u4").astype(np.int64)
    packed: Bytes = np.frombuffer(body.merged_sketch, dtype=np.uint8)
    try:
        entries = decode_rows(lengths, packed)
    except SketchError as error:
        raise _malformed(f"merged_sketch: {error}") from None
    widths = raw.block.merged_widths()
    in_sketch = np.bincount(entries.row, weights=entries.count, minlength=size)
    in_le = np.add.reduceat(merged_le, np.cumsum(widths) - widths)
    if int(merged_n.min()) < 1 or (in_le != merged_n).any() or (in_sketch != merged_n).any():
        raise _malformed("merged_n, merged_le and merged_sketch do not agree")
    return entries
