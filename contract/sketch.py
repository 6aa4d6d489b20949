"""Sketch: a mergeable exponential histogram, base 2, scale 5 (32 buckets an octave).

In: finite floats. Out: a bucket number per value, counts per bucket, tight bytes, quantiles.
Promise: a quantile read from a sketch is within 1.1 % (relative) of a sample at that rank, however often
sketches were merged. Bucket limits are those of OpenTelemetry's exponential histogram (data model,
"exponential scale"): bucket i holds (2**(i/32), 2**((i+1)/32)], so that native histograms can be served.

A bucket is one int that sorts as the values do: 0 is the value zero, `i + BIAS` a positive bucket, and the
negative of that its mirror image. The bytes are LEB128 varints: zigzag of the first bucket, its count, then
for each further bucket the gap to the one before (>= 1) and its count.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from math import frexp
from typing import Final

SCALE: Final = 5
PER_OCTAVE: Final = 1 << SCALE
BIAS: Final = 1074 * PER_OCTAVE + 2
"""Makes every positive bucket number at least 1, the smallest subnormal included."""

BASE: Final = 2.0 ** (1 / PER_OCTAVE)
RELATIVE_ERROR: Final = (BASE - 1) / (BASE + 1)
"""Largest relative error of `bucket_value`: 0.01083."""

MANTISSA_BOUNDS: Final = tuple(2.0 ** ((j - PER_OCTAVE) / PER_OCTAVE) for j in range(PER_OCTAVE + 1))
"""Upper-inclusive limits of the buckets of one octave on the `frexp` mantissa in [0.5, 1)."""

MAX_BUCKET: Final = 1024 * PER_OCTAVE + BIAS


class SketchError(ValueError):
    """Bytes that are not a sketch."""


def bucket_of(value: float) -> int:
    """Return the bucket of a finite value."""
    if value == 0.0:
        return 0
    mantissa, exponent = frexp(abs(value))
    bucket = bisect_left(MANTISSA_BOUNDS, mantissa) - 1 + (exponent - 1) * PER_OCTAVE + BIAS
    return bucket if value > 0 else -bucket


def bucket_value(bucket: int) -> float:
    """Return the value that stands for a bucket: at most RELATIVE_ERROR away from any value in it."""
    if bucket == 0:
        return 0.0
    low = (abs(bucket) - BIAS) / PER_OCTAVE
    whole = int(low // 1)
    middle = 2.0 ** (low - whole) * (2 * BASE / (1 + BASE))
    # Two steps: 2.0 ** whole alone would overflow or vanish at the ends of the range.
    half = whole // 2
    value = middle * 2.0**half * 2.0 ** (whole - half)
    return value if bucket > 0 else -value


def fold(values: Iterable[float], into: dict[int, int]) -> None:
    """Count each finite value into `into` (bucket -> count)."""
    for value in values:
        bucket = bucket_of(value)
        into[bucket] = into.get(bucket, 0) + 1


def merge(into: dict[int, int], other: Mapping[int, int]) -> None:
    """Add the counts of `other` to `into`; exact."""
    for bucket, count in other.items():
        into[bucket] = into.get(bucket, 0) + count


def quantile(counts: Mapping[int, int], q: float) -> float:
    """Return the value at rank `ceil(q * n)` (at least 1), q in [0, 1]; NaN for an empty sketch."""
    total = sum(counts.values())
    if total == 0:
        return float("nan")
    rank = min(max(1, -int(-q * total // 1)), total)
    seen = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= rank:
            return bucket_value(bucket)
    raise AssertionError("BUG: ranks end before the counts do")


def _varint(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def encode(counts: Mapping[int, int]) -> bytes:
    """Pack bucket counts (each >= 1) into bytes; the empty sketch is b""."""
    out = bytearray()
    before: int | None = None
    for bucket in sorted(counts):
        _varint(out, (bucket << 1 if bucket >= 0 else (-bucket << 1) - 1) if before is None else bucket - before)
        _varint(out, counts[bucket])
        before = bucket
    return bytes(out)


def _read_varints(data: bytes) -> list[int]:
    numbers: list[int] = []
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
            if shift > 63:
                raise SketchError("a varint is longer than 64 bits")
            continue
        numbers.append(number)
        number = shift = 0
    if shift:
        raise SketchError("the last varint is cut off")
    return numbers


def decode(data: bytes) -> dict[int, int]:
    """Unpack `encode`'s bytes into bucket counts, ascending; SketchError if they are no sketch."""
    numbers = _read_varints(data)
    if len(numbers) % 2:
        raise SketchError("a bucket has no count")
    counts: dict[int, int] = {}
    bucket = 0
    for i in range(0, len(numbers), 2):
        step, count = numbers[i], numbers[i + 1]
        if i == 0:
            bucket = step >> 1 if not step & 1 else -(step + 1 >> 1)
        elif step == 0:
            raise SketchError("two counts for one bucket")
        else:
            bucket += step
        if abs(bucket) > MAX_BUCKET or count == 0:
            raise SketchError("a bucket is out of range or its count is zero")
        counts[bucket] = count
    return counts
