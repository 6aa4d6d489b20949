"""The fold against a plain one: every count, sum, bucket and event, whatever the batches."""

import bisect
import math
import struct
from collections import defaultdict
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.buckets import le_counts
from aggregator.decode import BlockCache, Booked, Entry, decode
from aggregator.fold import fold
from contract import sketch
from contract.batch import read_envelope
from database.sketches import buckets_of, count_entries
from tests.batches import make_batch

BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.0)
HISTOGRAMS = [b'size{x="1"}', b'size{x="2"}', b"other"]
COUNTERS = [b"a_total", b'b_total{x="1"}']
values = st.one_of(st.sampled_from([*BOUNDS, 0.0, -1.0]), st.floats(-100, 100))
batches = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 2),
        st.dictionaries(st.sampled_from(COUNTERS), st.tuples(st.integers(1, 9), st.floats(0, 1e6)), max_size=2),
        st.dictionaries(st.sampled_from(HISTOGRAMS), st.lists(values, min_size=1, max_size=9), max_size=3),
        st.dictionaries(st.just(b"level"), st.lists(st.floats(-9, 9), min_size=1, max_size=3), max_size=1),
    ),
    min_size=1,
    max_size=12,
)


def booked(given_batches: list[Any]) -> list[Booked]:
    """Decode, with series numbered as their keys hash; layout 1 for every histogram."""
    cache, seqs, found = BlockCache(), defaultdict[int, int](int), list[Booked]()
    for producer, window, counters, histograms, gauges in given_batches:
        seqs[producer] += 1
        data = make_batch(
            bytes([producer]) * 16,
            seqs[producer],
            counters=counters,
            histograms=histograms,
            gauges=gauges,
            window_s=1_000_000 + 10 * window,
            flushed_ms=1_000_000_000 + len(found),
            bounds=BOUNDS,
        )
        batch = decode(Entry(0, "1-1", data), read_envelope(data), cache)
        directory = batch.block.directory
        batch.block.series_ids = np.array([number(key) for key in directory.keys], dtype=np.int64)
        first = directory.n_counters + directory.n_gauges
        batch.block.layouts = np.array([int(i >= first) for i in range(len(directory.keys))], dtype=np.int64)
        found.append(Booked(batch, producer + 1, batch.body.window_start_s))
    return found


def number(key: bytes) -> int:
    return [*COUNTERS, b"level", *HISTOGRAMS].index(key) + 1


def expected_totals(given_batches: list[Any]) -> dict[int, tuple[int, float, list[int]]]:
    n: dict[int, int] = defaultdict(int)
    total: dict[int, float] = defaultdict(float)
    le: dict[int, list[int]] = defaultdict(list)
    for _, _, counters, histograms, gauges in given_batches:
        for key, (count, amount) in counters.items():
            n[number(key)] += count
            total[number(key)] += amount
        for key, samples in gauges.items():
            n[number(key)] += len(samples)
        for key, samples in histograms.items():
            n[number(key)] += len(samples)
            total[number(key)] += math.fsum(samples)
            counts = le[number(key)] or [0] * (len(BOUNDS) + 1)
            for sample in samples:
                counts[bisect.bisect_left(BOUNDS, sample)] += 1
            le[number(key)] = counts
    return {key: (n[key], total[key], le[key]) for key in n}


@settings(deadline=None)
@given(batches)
def test_fold_equals_a_plain_one(given_batches: list[Any]) -> None:
    """Totals with their `le` counts, the newest gauge value of each producer, and every event accounted for."""
    out = fold(booked(given_batches), 0)
    found: dict[int, tuple[int, float, list[int]]] = {}
    row = le = 0
    for width, rows in zip(out.group_widths, out.group_rows, strict=True):
        for _ in range(rows):
            found[out.total_ids[row]] = (out.total_ns[row], out.total_sums[row], out.total_les[le : le + width])
            row, le = row + 1, le + width
    expected = expected_totals(given_batches)
    assert found.keys() == expected.keys()
    for key, (n, total, counts) in expected.items():
        assert found[key][0] == n
        assert math.isclose(found[key][1], total, rel_tol=1e-9, abs_tol=1e-6)
        assert found[key][2] == counts
    assert out.events == sum(n for n, _, _ in expected.values()) == sum(p["events"] for p in out.producers)
    gauges = {producer: samples[b"level"][-1] for producer, _, _, _, samples in given_batches if samples}
    assert dict(zip(out.gauge_producers, out.gauge_values, strict=True)) == {p + 1: v for p, v in gauges.items()}


@settings(deadline=None)
@given(batches, st.randoms(use_true_random=False))
def test_order_of_batches_changes_no_count(given_batches: list[Any], random: Any) -> None:
    """Redis may deliver in any order."""
    forward = booked(given_batches)
    shuffled = forward.copy()
    random.shuffle(shuffled)
    one, other = fold(forward, 0), fold(shuffled, 0)
    assert (one.total_ids, one.total_ns, one.total_les) == (other.total_ids, other.total_ns, other.total_les)
    assert one.producers == other.producers


@given(st.lists(values, min_size=1, max_size=60), st.sets(st.floats(-50, 50), min_size=1, max_size=9))
def test_le_counts_equal_comparing_every_sample(samples: list[float], limits: set[float]) -> None:
    """Booked from the sketch where no bound lies in a bucket, and still exact."""
    bounds = tuple(sorted(limits))
    array = np.array(samples)
    bucket, row = buckets_of(array), np.zeros(len(samples), dtype=np.int64)
    entries = count_entries(row, bucket)
    one, width = np.array([1]), np.array([len(bounds) + 1])
    counts = le_counts(array, bucket, row, entries, np.array([0]), one, width, {1: bounds})
    expected = [0] * (len(bounds) + 1)
    for sample in samples:
        expected[bisect.bisect_left(bounds, sample)] += 1
    assert counts.tolist() == expected


def test_parts_hold_the_sketch_of_their_samples() -> None:
    """The bytes of a COPY row end with the sketch that contract.sketch would write."""
    samples = [0.3, 0.7, 0.7, 5.0]
    out = fold(booked([(0, 0, {}, {b"other": samples}, {})]), 0)
    counts: dict[int, int] = {}
    sketch.fold(samples, counts)
    packed = sketch.encode(counts)
    assert out.parts.endswith(struct.pack(">i", len(packed)) + packed + b"\xff\xff")
