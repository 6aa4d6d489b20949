"""From emits to sealed batches, without threads and without Redis."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.batch import MAX_BATCH_BYTES, Body, Directory, read_body, read_directory, read_envelope
from contract.series import MAX_VALUE
from producers import Client, Counter, Gauge, Histogram, Settings
from producers.clock import Clock
from producers.drainer import HEARTBEAT_MS, MAX_WAITING_SAMPLES, Drainer
from producers.pending import Samples
from producers.seal import MAX_PART_BYTES, MAX_SAMPLES, Sealed, Sealer


class FakeClock(Clock):
    """Redis time that a test moves."""

    def __init__(self) -> None:
        super().__init__()
        self.at_ms = 1_000_000
        self.stands_at_ms: int | None = None
        """Where it stands still although time passes."""

    def now_ms(self) -> int:
        return self.at_ms if self.stands_at_ms is None else self.stands_at_ms

    def elapsed_ms(self) -> int:
        return self.at_ms


class Bench:
    """A drainer, its clock and the metrics it empties."""

    def __init__(self) -> None:
        self.client = Client(Settings(disabled=True))
        self.client.ensure_running = lambda: None  # type: ignore[method-assign]
        self.clock = FakeClock()
        self.drainer = Drainer(Sealer(self.clock, "test", None), self.clock)

    def tick(self, slots: int = 4, after_ms: int = 250) -> list[tuple[int, Body, Directory]]:
        """Move time, flush, and return (events, body, directory) of each batch."""
        self.clock.at_ms += after_ms
        return [opened(sealed) for sealed in self.drainer.tick(self.client.children, slots)]


def opened(sealed: Sealed) -> tuple[int, Body, Directory]:
    envelope = read_envelope(sealed.data)
    assert (envelope.seq, envelope.events) == (sealed.seq, sealed.events)
    body = read_body(envelope, sealed.data)
    return envelope.events, body, read_directory(body.directory)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_accepted_minus_dropped_is_the_sum_of_events(bench: Bench) -> None:
    """At every batch, whatever was emitted: the ledger depends on it."""
    hits, size = Counter("a", registry=bench.client), Histogram("b", registry=bench.client)
    events = 0
    for i in range(20):
        hits.inc(i - 3)
        size.observe(float("nan") if i % 3 else i)
        for n, body, _ in bench.tick():
            events += n
            assert body.accepted - sum(body.dropped.values()) == events
    assert bench.drainer.accepted == 40


def test_seqs_have_no_gap_and_name_the_first_of_their_window(bench: Bench) -> None:
    """Completeness of a window is decidable from the next window's first seq."""
    hits = Counter("a", registry=bench.client)
    seen: list[tuple[int, int, int]] = []
    for _ in range(100):
        hits.inc()
        for sealed in bench.drainer.tick(bench.client.children, 4):
            _, body, _ = opened(sealed)
            seen.append((sealed.seq, body.window_start_s, body.window_first_seq))
        bench.clock.at_ms += 250
    assert [seq for seq, _, _ in seen] == list(range(1, len(seen) + 1))
    for seq, window_s, first in seen:
        assert first == min(s for s, w, _ in seen if w == window_s) <= seq
        assert window_s % 10 == 0


def test_without_a_slot_samples_merge_and_counts_stay_exact(bench: Bench) -> None:
    """An outage costs time resolution: sketch, exact `le` counts, sum; booked to the window of its end."""
    size = Histogram("b", buckets=(1.0, 2.0), registry=bench.client)
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        size.observe(value)
        assert bench.tick(slots=0, after_ms=5000) == []
    size.observe(1.0)
    ((events, body, directory),) = bench.tick()
    assert events == 6
    assert (directory.n_samples, directory.n_merged) == (1, 1)
    assert struct.unpack("<3Q", body.merged_le) == (2, 2, 1)
    assert struct.unpack("<d", body.merged_sum) == (14.0,)
    assert body.span_start_ms < body.window_start_s * 1000 <= body.flushed_ms == bench.clock.at_ms


def test_memory_of_an_outage_is_bounded_by_series(bench: Bench) -> None:
    """A hundred thousand samples of one series wait as some dozens of numbers."""
    size = Histogram("b", registry=bench.client)
    for i in range(100):
        for _ in range(1000):
            size.observe(i)
        bench.tick(slots=0)
    (accumulator,) = bench.drainer._pending.values()  # pyright: ignore[reportPrivateUsage]
    held: Any = accumulator
    assert len(held.values) == 0
    assert len(held.merged.sketch) <= 100


def test_gauge_is_said_once_a_window_without_events(bench: Bench) -> None:
    """Its repeat has n = 0: a value, and no event."""
    level = Gauge("g", registry=bench.client)
    level.set(4)
    level.inc()
    level.dec(2)
    ((events, body, _),) = bench.tick()
    assert events == 3
    assert struct.unpack("<d", body.gauge_last) == (3.0,)
    assert bench.tick() == []
    ((events, body, _),) = bench.tick(after_ms=10_000)
    assert events == 0
    assert struct.unpack("<Q", body.gauge_n) == (0,)
    assert struct.unpack("<3d", body.gauge_last + body.gauge_min + body.gauge_max) == (3.0, 3.0, 3.0)


def test_silence_is_a_heartbeat_every_five_seconds(bench: Bench) -> None:
    """An empty batch says that the producer lives."""
    assert [events for events, _, _ in bench.tick(after_ms=HEARTBEAT_MS)] == [0]
    assert bench.tick(after_ms=HEARTBEAT_MS - 1) == []
    assert len(bench.tick(after_ms=1)) == 1


def test_clock_of_redis_that_was_set_back_stops_no_heartbeat_and_no_gauge(bench: Bench) -> None:
    """Its time stands still until it is where it was; the producer lives, and its gauges stand, all the same."""
    level = Gauge("level", registry=bench.client)
    level.set(3.0)
    assert len(bench.tick()) == 1
    bench.clock.stands_at_ms = bench.clock.at_ms
    found = [batch for _ in range(24) for batch in bench.tick(after_ms=HEARTBEAT_MS)]
    assert len(found) == 24, "each of them is a heartbeat"
    assert len([1 for _, body, _ in found if body.gauge_last]) == 12, "and every other one repeats the gauge"


def test_more_than_the_slots_waits_its_turn(bench: Bench) -> None:
    """A flush that needs more batches than may wait is sealed over several flushes; nothing is lost."""
    size = Histogram("b", registry=bench.client)
    size.labels().values.extend([0.5] * (5 * MAX_SAMPLES + 7))
    events = [sum(n for n, _, _ in bench.tick(slots=2)) for _ in range(4)]
    assert events[:2] == [2 * MAX_SAMPLES, 2 * MAX_SAMPLES]
    assert sum(events) == 5 * MAX_SAMPLES + 7


def test_directory_bytes_repeat_from_batch_to_batch(bench: Bench) -> None:
    """Readers recognise a directory by its bytes."""
    hits = Counter("a", labelnames=["x"], registry=bench.client)
    directories: set[bytes] = set()
    for _ in range(5):
        for label in ("1", "2", "3"):
            hits.labels(label).inc()
        directories |= {body.directory for _, body, _ in bench.tick()}
    assert len(directories) == 1


@given(st.lists(st.one_of(st.floats(), st.integers(), st.text(max_size=3), st.none(), st.booleans())))
def test_every_value_is_an_event_or_a_drop(values: list[Any]) -> None:
    """Whatever is emitted, in whatever company: counted once."""
    bench = Bench()
    size = Histogram("b", registry=bench.client)
    for value in values:
        size.observe(value)
    legal = [v for v in values if isinstance(v, int | float) and abs(v) <= MAX_VALUE]
    batches = bench.tick()
    assert sum(events for events, _, _ in batches) == len(legal)
    dropped = batches[-1][1].dropped if batches else {}
    assert sum(dropped.values()) == len(values) - len(legal)


def test_many_samples_merge_as_few_do(bench: Bench) -> None:
    """They are merged in parts, so that the application's threads need not wait for all of them."""
    size = Histogram("b", buckets=(1.0, 2.0), registry=bench.client)
    for _ in range(1000):
        for value in (0.5, 1.5, 9.0):
            size.observe(value)
    assert bench.tick(slots=0) == []
    ((events, body, directory),) = bench.tick()
    assert (events, directory.n_samples, directory.n_merged) == (3000, 0, 1)
    assert struct.unpack("<3Q", body.merged_le) == (1000, 1000, 1000)
    assert struct.unpack("<d", body.merged_sum) == (11_000.0,)


def test_merged_batch_is_never_longer_than_the_wire_allows(bench: Bench) -> None:
    """After an outage many wide histograms are sealed at once; one batch of all would be refused for its size."""
    bounds = [float(b) for b in range(1, 129)]
    sizes = Histogram("a", labelnames=["x"], buckets=bounds, registry=bench.client)
    for i in range(1200):
        for k in range(20):
            sizes.labels(str(i)).observe(1.1**k * (i + 1))
    assert bench.tick(slots=0) == []
    batches = bench.drainer.tick(bench.client.children, 4)
    while bench.drainer.has_pending():
        batches += bench.drainer.tick(bench.client.children, 4)
    assert sum(sealed.events for sealed in batches) == 24_000
    assert MAX_PART_BYTES * 2 <= MAX_BATCH_BYTES
    assert len(batches) > 1
    for sealed in batches:
        _, body, _ = opened(sealed)
        assert len(body.merged_le) + len(body.merged_sketch) + len(body.directory) < MAX_BATCH_BYTES


def test_samples_that_find_no_slot_are_bounded(bench: Bench) -> None:
    """An application faster than its slots holds counts, not samples; none is lost."""
    size = Histogram("a", registry=bench.client)
    events, left = 0, list[int]()
    for _ in range(6):
        size.labels().values.extend([0.5] * (8 * MAX_SAMPLES))
        events += sum(n for n, _, _ in bench.tick(slots=1))
        left = [len(a.values) for a in bench.drainer._pending.values() if isinstance(a, Samples)]  # pyright: ignore[reportPrivateUsage]
        assert sum(left) <= MAX_WAITING_SAMPLES + 7 * MAX_SAMPLES
    assert sum(left) < 24 * MAX_SAMPLES
    while bench.drainer.has_pending():
        events += sum(n for n, _, _ in bench.tick())
    assert events == 48 * MAX_SAMPLES


class Hostile:
    """Claims to be a number and raises what it likes."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __float__(self) -> float:
        raise self.error


@pytest.mark.parametrize("error", [ValueError("ambiguous"), RuntimeError("no"), KeyError("k"), MemoryError()])
def test_a_value_that_raises_anything_spoils_no_other(bench: Bench, error: Exception) -> None:
    good, bad = Histogram("good", registry=bench.client), Histogram("bad", registry=bench.client)
    hits, level = Counter("hits", registry=bench.client), Gauge("level", registry=bench.client)
    for metric in (good, bad):
        metric.observe(0.5)
    for emit in (bad.observe, hits.inc, level.set):
        emit(Hostile(error))  # type: ignore[arg-type]
    hits.inc()
    ((events, body, _),) = bench.tick()
    assert (events, body.accepted, body.dropped) == (3, 6, {"not_a_number": 3})


def test_what_was_held_before_the_time_was_known_has_its_span(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("producers.drainer.time.monotonic", lambda: now_s)
    size = Histogram("b", registry=bench.client)
    size.observe(1.0)
    bench.drainer.hold(bench.client.children)
    now_s += 3.0
    size.observe(2.0)
    ((events, body, _),) = bench.tick()
    assert events == 2
    assert body.flushed_ms - body.span_start_ms == 3000
