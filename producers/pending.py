"""Pending: what was drained and is not sealed yet, one accumulator a series.

In: chunks of raw values, judged here. Out: sums, samples, sketches; counts of what was dropped and why.
Promise: a bad value spoils no other; merging keeps counts exact however long it goes on, and memory is one
accumulator per series.
"""

import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from math import frexp, fsum, inf, isfinite
from typing import Final

from contract import sketch
from contract.metric import Kind, MetricDef
from contract.reasons import Dropped
from contract.series import MAX_VALUE
from producers.metrics import DOWN, UP, Change, Child, Raw

AT_ONCE: Final = 256
"""Samples that are merged in one go."""

Drop = Callable[[Dropped, int], None]

_HIGH_BYTE: Final = 7 if sys.byteorder == "little" else 0
_SURELY_LEGAL: Final = bytes(byte for byte in range(256) if byte & 0x7F < (frexp(MAX_VALUE)[1] - 1 + 1023) >> 4)
"""High bytes of doubles whose exponent is below that of MAX_VALUE by enough."""


class CounterSum:
    """Increments of one counter."""

    __slots__ = ("n", "sum")

    def __init__(self) -> None:
        self.n = 0
        self.sum = 0.0

    def take(self, values: Sequence[Raw], drop: Drop) -> None:
        """Add increments."""
        good = numbers(values, drop)
        if good and min(good) < 0:
            kept = array("d", [v for v in good if v >= 0])
            drop(Dropped.NEGATIVE, len(good) - len(kept))
            good = kept
        self.n += len(good)
        self.sum += fsum(good)


class GaugeState:
    """Sets of one gauge since the last batch; the value stays."""

    __slots__ = ("last", "max", "min", "n", "repeat", "sum", "was_set")

    def __init__(self) -> None:
        self.last = 0.0
        self.was_set = False
        self.clear()

    def clear(self) -> None:
        """Begin a new batch."""
        self.n, self.sum, self.min, self.max = 0, 0.0, inf, -inf
        self.repeat = False

    def take(self, values: Sequence[Raw], drop: Drop) -> None:
        """Apply sets and changes in their order."""
        last, n, total, low, high = self.last, self.n, self.sum, self.min, self.max
        for value in values:
            # What counts up and down comes by the thousand: 0.1 us each this way, 1 us as any other value.
            if value is UP:
                new = last + 1.0
            elif value is DOWN:
                new = last - 1.0
            else:
                change = isinstance(value, Change)
                good = numbers([value.amount if change else value], drop)
                if not good:
                    continue
                new = last + value.sign * good[0] if change else good[0]
            if not -MAX_VALUE <= new <= MAX_VALUE:
                drop(Dropped.OUT_OF_RANGE, 1)
                continue
            last = new
            n += 1
            total += new
            if new < low:
                low = new
            if new > high:
                high = new
        self.was_set = self.was_set or n > self.n
        self.last, self.n, self.sum, self.min, self.max = last, n, total, low, high


class Samples:
    """Samples of one histogram, as they are; `merged` once they had to wait."""

    __slots__ = ("merged", "values")

    def __init__(self, values: "array[float] | None" = None) -> None:
        self.values: array[float] = array("d") if values is None else values
        self.merged: Merged | None = None

    def take(self, values: Sequence[Raw], drop: Drop) -> None:
        """Add samples."""
        self.values.extend(numbers(values, drop))

    def merge(self, metric: MetricDef) -> Iterator[int]:
        """Fold the samples to a sketch and exact `le` counts, some at once; gives how many, until all are."""
        values, self.values = self.values, array("d")
        if values and self.merged is None:
            self.merged = Merged(len(metric.bounds) + 1)
        for at in range(0, len(values), AT_ONCE):
            assert self.merged is not None
            part = values[at : at + AT_ONCE]
            self.merged.take(part, metric.bounds)
            yield len(part)

    def n(self) -> int:
        """Return the number of samples held."""
        return len(self.values) + (self.merged.n if self.merged else 0)


class Merged:
    """Samples of one histogram as counts: bounded however many there were."""

    __slots__ = ("last", "le", "max", "min", "n", "sketch", "sum")

    def __init__(self, width: int) -> None:
        self.n = 0
        self.sum, self.min, self.max, self.last = 0.0, inf, -inf, 0.0
        self.le = [0] * width
        self.sketch: dict[int, int] = {}

    def take(self, values: Sequence[float], bounds: Sequence[float]) -> None:
        """Count samples."""
        self.n += len(values)
        self.sum += fsum(values)
        self.min, self.max, self.last = min(self.min, min(values)), max(self.max, max(values)), values[-1]
        for value in values:
            self.le[bisect_left(bounds, value)] += 1
        sketch.fold(values, self.sketch)


Accumulator = CounterSum | GaugeState | Samples


def new_accumulator(kind: Kind) -> Accumulator:
    """Return an empty accumulator for a kind."""
    if kind is Kind.COUNTER:
        return CounterSum()
    return GaugeState() if kind is Kind.GAUGE else Samples()


def numbers(values: Sequence[Raw], drop: Drop) -> "array[float]":
    """Return the legal numbers among `values` in their order; the rest is dropped by reason."""
    with suppress(Exception):  # `__float__` is the application's code; `_fault` finds out which value it was
        found = array("d", values)
        if _are_legal(found.tobytes()):
            return found
    good: array[float] = array("d")
    for value in values:
        reason = _fault(value)
        if reason is None:
            good.append(value)
        else:
            drop(reason, 1)
    return good


def _fault(value: Raw) -> Dropped | None:
    try:
        number = array("d", (value,))[0]
    except OverflowError:
        return Dropped.OUT_OF_RANGE
    except Exception:  # noqa: BLE001 - whatever an object's `__float__` raises: it is no number
        return Dropped.NOT_A_NUMBER
    if not isfinite(number):
        return Dropped.NONFINITE
    return Dropped.OUT_OF_RANGE if abs(number) > MAX_VALUE else None


class Chunks:
    """Samples of one drain, judged together: one look at all of them costs less than one per series."""

    def __init__(self) -> None:
        self._chunks: list[tuple[Child, list[Raw], array[float]]] = []
        self._legal = True

    def add(self, child: Child, chunk: list[Raw]) -> None:
        """Note what one histogram held."""
        found: array[float] = array("d")
        try:
            found.fromlist(chunk)
        except Exception:  # noqa: BLE001 - as in `numbers`, which judges each value when it is taken
            self._legal = False
        self._chunks.append((child, chunk, found))

    def take(self, into: dict[Child, Accumulator], drop: Drop) -> None:
        """Put the legal samples into their accumulators."""
        legal = self._legal and _are_legal(b"".join([found.tobytes() for _, _, found in self._chunks]))
        for child, chunk, found in self._chunks:
            good = found if legal else numbers(chunk, drop)
            known = into.get(child)
            if isinstance(known, Samples):
                known.values += good
            else:
                into[child] = Samples(good)


def _are_legal(data: bytes) -> bool:
    """Whether all doubles of an array are finite and in range.

    By the byte with the sign and most of the exponent: 3 ns a value. Only where one is near the limit all are compared
    (50 ns: each becomes an object); a sum is finite only if each of its terms is.
    """
    if not data[_HIGH_BYTE::8].translate(None, _SURELY_LEGAL):
        return True
    values = array("d", data)
    return isfinite(sum(values)) and max(values) <= MAX_VALUE and min(values) >= -MAX_VALUE


def take(child: Child, chunk: list[Raw], into: dict[Child, Accumulator], drop: Drop) -> None:
    """Add what one counter or gauge held to its accumulator."""
    accumulator = into.get(child)
    if accumulator is None:
        accumulator = into[child] = new_accumulator(child.metric.kind)
    accumulator.take(chunk, drop)
