"""Rows: merging is exact, whatever the order and division of the input."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from contract import sketch
from database.columns import COPY_HEADER, COPY_TRAILER
from database.rows import Rows, Span, join, merge, sketch_counts, unpack
from database.rows import _pack as pack  # pyright: ignore[reportPrivateUsage]
from database.rows import _shapes as shapes  # pyright: ignore[reportPrivateUsage]

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5)
CELLS = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 7), VALUES), min_size=1, max_size=20)


def histogram(cells: list[tuple[int, int, list[float]]]) -> Rows:
    """Rows of histograms: (series, window number, samples)."""
    packed: list[bytes] = []
    for _, _, values in cells:
        counts: dict[int, int] = {}
        sketch.fold(values, counts)
        packed.append(sketch.encode(counts))
    size = len(cells)
    return Rows(
        np.array([window * 10 for _, window, _ in cells]),
        np.array([series for series, _, _ in cells]),
        np.zeros(size, dtype=np.int64),
        np.array([len(values) for _, _, values in cells]),
        np.array([float(np.sum(values)) for _, _, values in cells]),
        np.array([min(values) for _, _, values in cells]),
        np.array([max(values) for _, _, values in cells]),
        np.full(size, np.nan),
        np.array([len(data) for data in packed]),
        np.frombuffer(b"".join(packed), dtype=np.uint8),
    )


@given(CELLS)
def test_merged_rows_hold_what_went_in(cells: list[tuple[int, int, list[float]]]) -> None:
    merged = merge(histogram(cells), 60)
    expected: dict[tuple[int, int], list[float]] = {}
    for series, window, values in cells:
        expected.setdefault((series, window * 10 // 60 * 60), []).extend(values)
    assert list(zip(merged.series.tolist(), merged.window_s.tolist(), strict=True)) == sorted(expected)
    for i, (_, values) in enumerate(sorted(expected.items())):
        assert (merged.n[i], merged.min[i], merged.max[i]) == (len(values), min(values), max(values))
    assert sketch_counts(merged).tolist() == merged.n.tolist()


@given(CELLS, CELLS)
def test_merging_in_two_steps_is_merging_at_once(
    first: list[tuple[int, int, list[float]]], second: list[tuple[int, int, list[float]]]
) -> None:
    at_once = merge(histogram(first + second), 10)
    in_steps = merge(join(merge(histogram(first), 10), merge(histogram(second), 10)), 10)
    for name in ("window_s", "series", "n", "min", "max", "sketch_len", "sketches"):
        assert getattr(at_once, name).tolist() == getattr(in_steps, name).tolist()


@given(CELLS)
def test_copied_rows_read_back(cells: list[tuple[int, int, list[float]]]) -> None:
    rows = histogram(cells)
    data = b"".join((COPY_HEADER, *(pack(part, None) for part in shapes(rows)), COPY_TRAILER))
    for mine, theirs in zip(unpack(data), rows, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_last_is_the_newest_that_is_known() -> None:
    one, nan = np.ones(3, dtype=np.int64), np.full(3, np.nan)
    none, windows = np.empty(0, dtype=np.uint8), np.array([20, 0, 10])
    last = np.array([3.0, 1.0, np.nan])
    rows = Rows(windows, one, one, one, np.ones(3), nan, nan, last, -one, none)
    (found,) = merge(rows, 60).last.tolist()
    assert found == 3.0


def test_chunks_cover_every_series_once() -> None:
    chunks = Span(rows=1_000_000, low=5, high=1004, sketch_bytes=1 << 20).chunks()
    assert [n for low, high in chunks for n in range(low, high)][:1000] == list(range(5, 1005))
    assert Span(0, 0, 0, 0).chunks() == []
