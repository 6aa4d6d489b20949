"""Sketches by the thousand: contract.sketch's buckets and bytes for whole columns at once, in numpy.

In: arrays of samples, or concatenated sketch bytes with the length of each. Out: the same, merged or packed.
Promise: bucket numbers and bytes equal those of contract.sketch (property-tested); no Python object per row.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from contract.sketch import BIAS, MANTISSA_BOUNDS, PER_OCTAVE, SketchError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

_CELL_BITS: Final = 11
_CELL_SHIFT: Final = 52 - _CELL_BITS
_CELLS: Final = 1 << _CELL_BITS
_MANTISSA: Final = (1 << 52) - 1
_MAX_VARINT_BYTES: Final = 10


@dataclass(slots=True, frozen=True)
class Entries:
    """Bucket counts of many sketches: sorted by row, then bucket; one element per row and bucket."""

    row: Ints
    bucket: Ints
    count: Ints


def _tables() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Per cell of the mantissa: the bucket at its start, and the limit that lies inside it (or none)."""
    limits = np.array(MANTISSA_BOUNDS[1:-1]).view(np.int64) & _MANTISSA
    starts = np.arange(_CELLS, dtype=np.int64) << _CELL_SHIFT
    base = np.searchsorted(limits, starts, side="right")
    inside = np.full(_CELLS, np.iinfo(np.int64).max)
    cells = limits >> _CELL_SHIFT
    inner = limits != starts[cells]
    inside[cells[inner]] = limits[inner]
    return base.astype(np.int64), inside


_CELL_BASE, _CELL_LIMIT = _tables()
_MOST_CELLS: Final = 1 << 24
"""Of a dense table: 128 MiB, and one for each shard at a time."""
_RUN: Final = 8192
"""Values looked up at a time: 64 kB a column."""


def number(values: Ints) -> tuple[Ints, Ints]:
    """Return the distinct values, sorted, and the index of each value among them (as np.unique does).

    A table instead of sorting or hashing where the values lie close: 5 ns a value against 100 ns.
    """
    if not len(values):
        return values, values
    low, high = int(values.min()), int(values.max())
    if low == high:
        return np.array([low]), np.zeros(len(values), dtype=np.int64)
    if not _are_close(low, high, len(values)):
        distinct, of = np.unique(values, return_inverse=True)
        return distinct, of
    place = values - low
    seen = np.zeros(high - low + 1, dtype=bool)
    seen[place] = True
    of = np.cumsum(seen)
    of -= 1
    return np.flatnonzero(seen) + low, of[place]


def distinct(values: Ints) -> Ints:
    """Return the distinct values, sorted: 2 ns a value where they lie close, against 200 ns of np.unique."""
    if not len(values):
        return values
    low, high = int(values.min()), int(values.max())
    if not _are_close(low, high, len(values)):
        return np.unique(values)
    seen = np.zeros(high - low + 1, dtype=bool)
    seen[values - low] = True
    return np.flatnonzero(seen) + low


def _are_close(low: int, high: int, size: int) -> bool:
    return high - low < max(1 << 16, 4 * size)


def buckets_of(values: Floats) -> Ints:
    """Return the bucket of each finite value.

    Bits instead of a logarithm: exact at the limits, at 6 ns a value against 5 ns for log2 alone. A run of values
    at a time, so that what is made in between stays in the cache (23 ns a value without).
    """
    out = np.empty(len(values), dtype=np.int64)
    for start in range(0, len(values), _RUN):
        _put_buckets(values[start : start + _RUN], out[start : start + _RUN])
    return out


def _put_buckets(values: Floats, out: Ints) -> None:
    # The predecessor of a value is looked up, since buckets include their upper limit.
    bits = np.abs(values).view(np.int64)
    bits -= 1
    cell = bits >> _CELL_SHIFT
    cell &= _CELLS - 1
    exponent = bits >> 52
    tiny = np.flatnonzero(exponent < 1) if int(exponent.min()) < 1 else None
    bits &= _MANTISSA
    np.take(_CELL_BASE, cell, out=out)
    out += bits >= _CELL_LIMIT[cell]
    exponent *= PER_OCTAVE
    out += exponent
    out += BIAS - 1023 * PER_OCTAVE
    if tiny is not None:
        out[tiny] = _tiny_buckets(np.abs(values[tiny]))
    if float(values.min()) < 0:
        np.negative(out, out=out, where=values < 0)


def _tiny_buckets(values: Floats) -> Ints:
    """Zero and subnormal values: scaled into the normal range first."""
    scaled = np.maximum(values * 2.0**200, np.finfo(np.float64).tiny * 2.0**100)
    return np.where(values == 0, 0, buckets_of(scaled) - 200 * PER_OCTAVE)


def count_entries(row: Ints, bucket: Ints, weight: Ints | None = None) -> Entries:
    """Count equal (row, bucket) pairs, summing `weight` (1 each if none)."""
    if not len(row):
        return Entries(row, bucket, row)
    low = int(bucket.min())
    width = int(bucket.max()) - low + 1
    code = row * width
    code += bucket
    code -= low
    size = (int(row.max()) + 1) * width
    if size <= min(12 * len(code), _MOST_CELLS) or size <= 1 << 16:
        # A dense table costs 3 ns a sample where it fits the cache and 1 ns a cell; sorting costs 35 ns a sample.
        dense = np.bincount(code, weights=weight, minlength=size)
        # Through booleans: 3 ns a cell of a large table against 9.
        found = np.flatnonzero(dense != 0)
        counts = dense[found].astype(np.int64)
    else:
        found, counts = _count_sorted(code, weight)
    return Entries(found // width, found % width + low, counts)


def _count_sorted(code: Ints, weight: Ints | None) -> tuple[Ints, Ints]:
    if weight is None:
        code = np.sort(code)
        starts = np.flatnonzero(np.concatenate(([True], code[1:] != code[:-1])))
        return code[starts], np.diff(np.append(starts, len(code)))
    order = np.argsort(code, kind="stable")
    code = code[order]
    starts = np.flatnonzero(np.concatenate(([True], code[1:] != code[:-1])))
    return code[starts], np.add.reduceat(weight[order], starts)


def encode_rows(entries: Entries, rows: int) -> tuple[Ints, Bytes]:
    """Pack the entries of rows 0..rows-1 into sketch bytes; returns each row's length and all bytes joined."""
    size = len(entries.row)
    numbers = np.empty(2 * size, dtype=np.int64)
    steps = np.diff(entries.bucket, prepend=0)
    first = np.diff(entries.row, prepend=-1) != 0
    steps[first] = np.where(entries.bucket >= 0, entries.bucket << 1, (-entries.bucket << 1) - 1)[first]
    numbers[0::2] = steps
    numbers[1::2] = entries.count
    lengths, packed = _pack_varints(numbers)
    per_entry = lengths[0::2] + lengths[1::2]
    return np.bincount(entries.row, weights=per_entry, minlength=rows).astype(np.int64), packed


def _pack_varints(numbers: Ints) -> tuple[Ints, Bytes]:
    lengths = np.ones(len(numbers), dtype=np.int64)
    largest = int(numbers.max(initial=0))
    for k in range(1, _MAX_VARINT_BYTES):
        if largest < 1 << (7 * k):
            break
        lengths += numbers >= 1 << (7 * k)
    ends = np.cumsum(lengths)
    at = ends - lengths
    out = np.empty(int(ends[-1]) if len(ends) else 0, dtype=np.uint8)
    # Nearly all numbers fit one byte: those are written at once, and only the rest is looked at again.
    out[at] = numbers.astype(np.uint8)
    long = np.flatnonzero(lengths > 1)
    rest, left, at = numbers[long], lengths[long], at[long]
    while len(rest):
        more = left > 1
        out[at] = (rest & 0x7F) | (more << 7)
        rest, left, at = rest[more] >> 7, left[more] - 1, at[more] + 1
    return lengths, out


def decode_rows(lengths: Ints, packed: Bytes) -> Entries:
    """Unpack sketches laid end to end; row i has `lengths[i]` bytes. SketchError if they are no sketches."""
    if int(lengths.sum()) != len(packed):
        raise SketchError("the sketch lengths do not add up to the bytes")
    if not len(packed):
        empty = np.empty(0, dtype=np.int64)
        return Entries(empty, empty, empty)
    ends = np.flatnonzero(packed < 0x80)
    row_ends = np.cumsum(lengths)
    if len(ends) == 0 or ends[-1] != len(packed) - 1 or (packed[row_ends[lengths > 0] - 1] >= 0x80).any():
        raise SketchError("the last varint of a sketch is cut off")
    starts = np.concatenate(([0], ends[:-1] + 1))
    if int((ends - starts).max()) >= 9:
        raise SketchError("a varint is longer than 63 bits")
    place = np.arange(len(packed)) - np.repeat(starts, ends - starts + 1)
    numbers = np.add.reduceat((packed & 0x7F).astype(np.int64) << (7 * place), starts)
    per_row = np.diff(np.searchsorted(ends, row_ends, side="left"), prepend=0)
    if (per_row % 2).any():
        raise SketchError("a bucket has no count")
    return _entries(numbers[0::2], numbers[1::2], per_row // 2)


def _entries(steps: Ints, counts: Ints, per_row: Ints) -> Entries:
    row = np.repeat(np.arange(len(per_row)), per_row)
    first = np.diff(row, prepend=-1) != 0
    if (counts == 0).any() or (steps[~first] == 0).any():
        raise SketchError("a count is zero or a bucket stands twice")
    signed = np.where(steps & 1, -((steps + 1) >> 1), steps >> 1)
    running = np.cumsum(np.where(first, signed, steps))
    base = running[first] - signed[first]
    bucket = running - np.repeat(base, per_row[per_row > 0])
    if (np.abs(bucket) > 1024 * PER_OCTAVE + BIAS).any():
        raise SketchError("a bucket is out of range")
    return Entries(row, bucket, counts)
