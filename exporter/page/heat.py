"""Heat: how the values of one histogram lie over time: counts per window and range of values, and quantiles.

In: rollup rows with sketches. Out: JSON for a heat map (cells of equal ratio, a few an octave) and lines above it.
Promise: counts are those of the sketches, only put together; a window without data has null, not 0.
"""

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from contract import sketch
from contract.sketch import BIAS, PER_OCTAVE
from database.rows import Rows, merge
from database.sketches import Entries, Ints, decode_rows
from exporter.history import Gathered
from exporter.question import BadQuestion, Question
from exporter.selector import parse_selector

QUANTILES: Final = (0.5, 0.9, 0.99)
RANGES: Final = {"15m": (900, 10), "1h": (3600, 60), "6h": (21_600, 300), "24h": (86_400, 1200), "7d": (604_800, 7200)}
"""Name -> (length, width of a window), seconds: at most 90 columns."""
DEFAULT_RANGE: Final = "15m"
MAX_BANDS: Final = 28
FINENESS: Final = (8, 4, 2, 1)
"""Bands an octave, finest first."""
RECENT_WINDOWS: Final = 5


class Bands(NamedTuple):
    """Ranges of values: band i holds `(2**((low+i)/per_octave), 2**((low+i+1)/per_octave)]`."""

    low: int
    number: int
    per_octave: int

    def limits(self) -> list[float]:
        """Return the edges of the bands, ascending."""
        return [2.0 ** ((self.low + i) / self.per_octave) for i in range(self.number + 1)]


def ask(selector: str, name: str, now_s: float) -> Question:
    """Return the question for a range that ended with the newest closed window; BadQuestion names the parameter."""
    if name not in RANGES:
        raise BadQuestion("range", f"{name!r} is none of {', '.join(RANGES)}")
    length_s, step_s = RANGES[name]
    try:
        wanted = parse_selector(selector)
    except ValueError as error:
        raise BadQuestion("series", str(error)) from None
    to_s = int(now_s // step_s * step_s)
    return Question(wanted, to_s - length_s, to_s, step_s, QUANTILES)


def draw(gathered: Gathered, question: Question) -> dict[str, Any]:
    """Return the picture: one element per window in every column of it."""
    merged = _merged(gathered.rows, question.step_s)
    entries = decode_rows(np.maximum(merged.sketch_len, 0), merged.sketches)
    starts = list(range(question.from_s, question.to_s, question.step_s))
    place = {start_s: i for i, start_s in enumerate(starts)}
    at = np.array([place[s] for s in merged.window_s.tolist()], dtype=np.int64)
    lines = _lines(entries, at, len(starts))
    positive = entries.bucket > 0
    bands = _bands(entries.bucket[positive])
    return {
        "from_s": question.from_s,
        "to_s": question.to_s,
        "step_s": question.step_s,
        "level": question.level,
        "series": gathered.series,
        "start_s": starts,
        "n": _column(merged.n.tolist(), at, len(starts)),
        "lines": {f"p{q * 100:g}": lines[i] for i, q in enumerate(QUANTILES)},
        "partial": [_is_partial(gathered, s, question.step_s) for s in starts],
        "limits": bands.limits() if bands else [],
        "cells": _cells(entries, positive, at, bands) if bands else [],
        "whole": _summary(entries, np.ones(len(entries.row), dtype=np.bool_)),
        "recent": _summary(entries, at[entries.row] >= len(starts) - RECENT_WINDOWS),
        "recent_s": RECENT_WINDOWS * question.step_s,
    }


def _merged(rows: Rows, step_s: int) -> Rows:
    zero = np.zeros(len(rows.series), dtype=np.int64)
    return merge(rows._replace(series=zero, producer=zero), step_s)


def _is_partial(gathered: Gathered, start_s: int, step_s: int) -> bool:
    return any(p.misses(start_s, start_s + step_s) for p in gathered.progress)


def _column(values: Sequence[int], at: Ints, length: int) -> list[int | None]:
    out: list[int | None] = [None] * length
    for i, number in zip(at.tolist(), values, strict=True):
        out[i] = number
    return out


def _lines(entries: Entries, at: Ints, length: int) -> list[list[float | None]]:
    out: list[list[float | None]] = [[None] * length for _ in QUANTILES]
    for row, place in enumerate(at.tolist()):
        low, high = np.searchsorted(entries.row, (row, row + 1))
        counts = dict(zip(entries.bucket[low:high].tolist(), entries.count[low:high].tolist(), strict=True))
        if counts:
            for line, q in zip(out, QUANTILES, strict=True):
                line[place] = sketch.quantile(counts, q)
    return out


def _bands(buckets: Ints) -> Bands | None:
    """Return the finest bands that are few enough to be told apart."""
    if not len(buckets):
        return None
    for per_octave in FINENESS:
        of = (buckets - BIAS) // (PER_OCTAVE // per_octave)
        low, high = int(of.min()), int(of.max())
        if high - low < MAX_BANDS:
            return Bands(low, high - low + 1, per_octave)
    high = int((buckets.max() - BIAS) // PER_OCTAVE)
    return Bands(high - MAX_BANDS + 1, MAX_BANDS, 1)  # the least values share the lowest band


def _cells(
    entries: Entries, positive: "np.ndarray[Any, np.dtype[np.bool_]]", at: Ints, bands: Bands
) -> list[list[int]]:
    """Return [window, band, count] of the cells that hold something."""
    band = (entries.bucket[positive] - BIAS) // (PER_OCTAVE // bands.per_octave) - bands.low
    code = at[entries.row[positive]] * bands.number + np.maximum(band, 0)
    counts = np.bincount(code, weights=entries.count[positive]).astype(np.int64)
    found = np.flatnonzero(counts)
    return [[int(c) // bands.number, int(c) % bands.number, int(counts[c])] for c in found]


def _summary(entries: Entries, keep: "np.ndarray[Any, np.dtype[np.bool_]]") -> dict[str, float | int | None]:
    distinct, of = np.unique(entries.bucket[keep], return_inverse=True)
    total = np.bincount(of, weights=entries.count[keep], minlength=len(distinct)).astype(np.int64)
    counts = dict(zip(distinct.tolist(), total.tolist(), strict=True))
    found = {f"p{q * 100:g}": sketch.quantile(counts, q) for q in QUANTILES}
    return {"n": int(total.sum()), **{name: None if math.isnan(v) else v for name, v in found.items()}}
