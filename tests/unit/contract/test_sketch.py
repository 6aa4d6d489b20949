"""Sketches: error bound, exact merging, tight bytes; and the numpy forms equal the plain ones."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import sketch
from contract.sketch import MANTISSA_BOUNDS, RELATIVE_ERROR, SketchError
from database.sketches import buckets_of, count_entries, decode_rows, encode_rows, number

floats = st.floats(allow_nan=False, allow_infinity=False)
samples = st.lists(floats, max_size=50)
rows = st.lists(samples, min_size=1, max_size=8)


def folded(values: list[float]) -> dict[int, int]:
    counts: dict[int, int] = {}
    sketch.fold(values, counts)
    return counts


@given(floats)
def test_bucket_value_is_within_the_relative_error(value: float) -> None:
    """1.1 %, subnormals and the largest floats included (a subnormal's spacing may be wider than that)."""
    found = sketch.bucket_value(sketch.bucket_of(value))
    assert math.copysign(1, found) == math.copysign(1, value) or value == 0
    assert abs(found - value) <= abs(value) * RELATIVE_ERROR * (1 + 1e-9) + 5e-324
    assert RELATIVE_ERROR <= 0.011


@given(st.lists(floats, min_size=1, max_size=200), st.floats(0, 1))
def test_quantile_is_within_the_error_of_the_sample_at_its_rank(values: list[float], q: float) -> None:
    """The rank is exact; only the value is rounded."""
    exact = sorted(values)[min(max(1, math.ceil(q * len(values))), len(values)) - 1]
    assert abs(sketch.quantile(folded(values), q) - exact) <= abs(exact) * RELATIVE_ERROR * (1 + 1e-9) + 5e-324


@given(st.lists(floats, max_size=30))
def test_buckets_sort_as_values_do(values: list[float]) -> None:
    """So that quantiles need no look at values."""
    for low, high in pairwise(sorted(values)):
        assert sketch.bucket_of(low) <= sketch.bucket_of(high)


def test_buckets_include_their_upper_limit() -> None:
    """As OpenTelemetry's exponential histograms do."""
    for power in (-3, 0, 7):
        limit = 2.0**power
        assert sketch.bucket_of(math.nextafter(limit, math.inf)) == sketch.bucket_of(limit) + 1
        assert sketch.bucket_of(math.nextafter(limit, 0)) == sketch.bucket_of(limit)


@given(samples, samples, samples)
def test_merging_is_associative_and_commutative(a: list[float], b: list[float], c: list[float]) -> None:
    """However batches are grouped, the counts are those of all samples."""
    left = folded(a)
    sketch.merge(left, folded(b))
    sketch.merge(left, folded(c))
    right = folded(c)
    sketch.merge(right, folded(a + b))
    assert left == right == folded(a + b + c)


@given(samples)
def test_bytes_and_counts_are_two_forms_of_one_thing(values: list[float]) -> None:
    """Ascending, exact, and equal for equal counts."""
    counts = folded(values)
    assert sketch.decode(sketch.encode(counts)) == counts


@given(st.binary(max_size=40))
def test_any_bytes_are_a_sketch_or_an_error(data: bytes) -> None:
    """Nothing but SketchError, and the numpy form agrees on which bytes are one."""
    try:
        plain = sketch.decode(data)
    except SketchError:
        with pytest.raises(SketchError):
            decode_rows(np.array([len(data)]), np.frombuffer(data, np.uint8))
        return
    entries = decode_rows(np.array([len(data)]), np.frombuffer(data, np.uint8))
    assert dict(zip(entries.bucket.tolist(), entries.count.tolist(), strict=True)) == plain


@given(st.lists(floats, min_size=1))
def test_numpy_buckets_equal_plain_ones(values: list[float]) -> None:
    """By bits instead of frexp, and yet the same number for every float."""
    assert buckets_of(np.array(values)).tolist() == [sketch.bucket_of(v) for v in values]


def test_numpy_buckets_equal_plain_ones_at_every_limit() -> None:
    """Both sides of each limit of an octave, at several magnitudes, and around zero."""
    limits = np.array(MANTISSA_BOUNDS)
    edges = np.concatenate([limits, np.nextafter(limits, 2), np.nextafter(limits, 0)])
    values = np.concatenate([edges * 2.0**p for p in (-1070, -1022, -1, 0, 1, 1000)] + [np.array([0.0, -0.0, 5e-324])])
    for signed in (values, -values):
        assert buckets_of(signed).tolist() == [sketch.bucket_of(v) for v in signed.tolist()]


@given(rows)
def test_many_sketches_at_once_equal_one_at_a_time(given_rows: list[list[float]]) -> None:
    """Counting, packing and unpacking of whole columns."""
    row = np.repeat(np.arange(len(given_rows)), [len(r) for r in given_rows])
    entries = count_entries(row, buckets_of(np.array([v for r in given_rows for v in r])))
    lengths, packed = encode_rows(entries, len(given_rows))
    plain = [sketch.encode(folded(r)) for r in given_rows]
    assert packed.tobytes() == b"".join(plain)
    assert lengths.tolist() == [len(p) for p in plain]
    again = decode_rows(lengths, packed)
    assert [c.tolist() for c in (again.row, again.bucket, again.count)] == [
        c.tolist() for c in (entries.row, entries.bucket, entries.count)
    ]


@given(st.lists(st.integers(-(1 << 40), 1 << 40) | st.integers(0, 50), max_size=60))
def test_numbering_is_that_of_unique(given: list[int]) -> None:
    values = np.array(given, dtype=np.int64)
    distinct, of = number(values)
    assert distinct.tolist() == sorted(set(given))
    assert distinct[of].tolist() == given


def test_buckets_do_not_depend_on_how_many_values_are_looked_up() -> None:
    values = np.array([0.0, -1.5, 5e-324, 2.0**1000, 0.1]).repeat(9000)[:20_011]
    assert buckets_of(values).tolist() == [sketch.bucket_of(v) for v in values.tolist()]
