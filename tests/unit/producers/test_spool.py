"""What a producer leaves behind, and who takes it: files only, no Redis."""
# pyright: reportPrivateUsage=false

import os
import threading
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import msgspec
import pytest

from contract.batch import read_body, read_envelope
from producers import Client, Counter, Gauge, Histogram, Settings, estate, journal
from producers.clock import Clock
from producers.drainer import Drainer
from producers.estate import Deliver, Estates, claim
from producers.journal import SERIES, Journal
from producers.seal import Sealed, Sealer
from producers.spool import LOCK, SUFFIX, Flush, Spool


class Producer:
    """A producer's life without threads; `die` leaves what kill -9 would."""

    def __init__(self, root: Path, *, journaled: bool = False, measured: bool = True) -> None:
        self.clock = Clock()
        if measured:
            self.clock.measured(time.monotonic(), time.time() * 1000, time.monotonic())
        self.client = Client(Settings(disabled=True))
        self.client.ensure_running = lambda: None  # type: ignore[method-assign]
        self.drainer = Drainer(Sealer(self.clock, "test", None), self.clock)
        self.journal = Journal() if journaled else None
        self.client._journal = self.journal
        self.spool = Spool(root, self.drainer, self.journal)
        self.spool.open()
        self.folder = root / self.drainer.sealer.producer_id.hex()

    def flush(self, slots: int = 4) -> list[Sealed]:
        self.spool._draft_at = 0.0  # as after a flush interval
        self.spool.take()
        sealed: list[Sealed] = []
        if self.clock.is_measured():
            sealed = self.drainer.tick(self.client.children, slots)
        else:
            self.drainer.hold(self.client.children)
        self.spool.keep(sealed)
        return sealed

    def die(self) -> None:
        self.spool._close()


class Stream:
    """Takes batches as Redis would."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.full = False
        self.server = b"one"

    def deliver(self, producer_id: bytes, batches: Sequence[bytes]) -> bytes | None:
        assert {read_envelope(data).producer_id for data in batches} <= {producer_id}
        self.taken += [] if self.full else batches
        return None if self.full else self.server

    def events(self) -> int:
        """Return the events, each batch once; the same identity with other bytes fails."""
        found: dict[tuple[bytes, int], bytes] = {}
        for data in self.taken:
            e = read_envelope(data)
            assert found.setdefault((e.producer_id, e.seq), data) == data
        return sum(read_envelope(data).events for data in found.values())


def settle_estates(root: Path, clock: Clock, deliver: Deliver) -> int:
    """Send what is there, and wait for nothing before it is removed."""
    return Estates(root, clock, resend_s=0).settle(deliver)


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.measured(time.monotonic(), time.time() * 1000, time.monotonic())
    return clock


@pytest.fixture
def producer(tmp_path: Path) -> Generator[Callable[..., Producer], None, None]:
    started: list[Producer] = []

    def start(**options: bool) -> Producer:
        started.append(Producer(tmp_path, **options))
        return started[-1]

    yield start
    for each in started:
        each.spool.leave()


def test_what_waits_for_a_slot_is_left_behind_too(
    producer: Callable[..., Producer], tmp_path: Path, stream: Stream, clock: Clock
) -> None:
    """Redis was away: four batches wait, the rest is merged in memory, and its draft is on disk."""
    dead = producer()
    hits, waits = Counter("a", registry=dead.client), Histogram("b", registry=dead.client)
    for i in range(20):
        hits.inc()
        waits.observe(i)
        dead.flush(slots=1 if i < 4 else 0)
    dead.die()
    assert settle_estates(tmp_path, clock, stream.deliver) == 1
    assert [read_envelope(data).seq for data in stream.taken] == [1, 2, 3, 4, 5]
    assert stream.events() == 40
    assert not list(tmp_path.iterdir())


def test_a_draft_that_was_sealed_later_is_not_sent(
    producer: Callable[..., Producer], tmp_path: Path, stream: Stream, clock: Clock
) -> None:
    dead = producer()
    hits = Counter("a", registry=dead.client)
    hits.inc()
    dead.flush(slots=0)
    hits.inc()
    assert len(dead.flush()) == 1
    dead.die()
    settle_estates(tmp_path, clock, stream.deliver)
    assert [read_envelope(data).events for data in stream.taken] == [2]


def test_what_was_emitted_before_the_time_was_known_is_booked_to_now(
    producer: Callable[..., Producer], tmp_path: Path, stream: Stream, clock: Clock
) -> None:
    """Redis was never reached: the dead one's wall clock may have been hours off."""
    dead = producer(measured=False)
    Counter("a", registry=dead.client).inc()
    dead.flush()
    dead.die()
    stream.full = True
    assert settle_estates(tmp_path, clock, stream.deliver) == 0
    stream.full = False
    time_known = [flush for flush in flushes(dead.folder) if flush.closed]
    assert settle_estates(tmp_path, clock, stream.deliver) == 1
    assert stream.taken == time_known[-1].sealed, "the bytes that the first finder wrote"
    body = read_body(read_envelope(stream.taken[0]), stream.taken[0])
    assert body.clock_uncertainty_us == clock.uncertainty_us()


def flushes(folder: Path) -> list[Flush]:
    return [msgspec.msgpack.decode(f.read_bytes(), type=Flush) for f in sorted(folder.glob(f"*{SUFFIX}"))]


def test_files_go_when_their_batches_are_released(producer: Callable[..., Producer]) -> None:
    """The newest stays; files are the owner's alone."""
    living = producer()
    hits = Counter("a", registry=living.client)
    sent: list[Sealed] = []
    for _ in range(10):
        hits.inc()
        sent += living.flush()
    assert len(list(living.folder.glob(f"*{SUFFIX}"))) == 10
    for sealed in sent:
        living.spool.release(sealed)
    living.spool.keep([])
    assert len(list(living.folder.glob(f"*{SUFFIX}"))) == 1
    assert living.folder.stat().st_mode & 0o777 == 0o700
    assert {f.stat().st_mode & 0o777 for f in living.folder.iterdir()} == {0o600}


def test_an_estate_is_nobodys_while_its_owner_lives_and_one_finders_after(
    producer: Callable[..., Producer], tmp_path: Path, stream: Stream, clock: Clock
) -> None:
    owner = producer()
    Counter("a", registry=owner.client).inc()
    owner.flush()
    with claim(owner.folder) as is_mine:
        assert not is_mine
    assert settle_estates(tmp_path, clock, stream.deliver) == 0
    owner.die()
    with claim(owner.folder) as is_mine:
        assert is_mine
        with claim(owner.folder) as is_anothers:
            assert not is_anothers
        assert settle_estates(tmp_path, clock, stream.deliver) == 0
    assert settle_estates(tmp_path, clock, stream.deliver) == 1


def test_what_was_acknowledged_is_kept_until_it_need_not_be_sent_again(
    producer: Callable[..., Producer], tmp_path: Path, stream: Stream, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its producer is dead: only who found it can send again what a Redis that fails takes with it."""
    now_s = 100.0
    monkeypatch.setattr("producers.estate.time.monotonic", lambda: now_s)
    dead = producer()
    Counter("a", registry=dead.client).inc()
    (sealed,) = dead.flush()
    dead.die()
    estates, others = Estates(tmp_path, clock), Estates(tmp_path, clock)
    assert (estates.settle(stream.deliver), others.settle(stream.deliver)) == (0, 0)
    assert stream.taken == [sealed.data], "one of two finders"
    now_s += 1.5
    assert estates.settle(stream.deliver) == 0
    stream.server = b"another, which may lack it"
    now_s += 1.0
    assert estates.settle(stream.deliver) == 0
    assert estates.settle(stream.deliver) == 0
    assert stream.taken == [sealed.data] * 2
    now_s += 2.5
    assert estates.settle(stream.deliver) == 1
    assert stream.taken == [sealed.data] * 2
    assert not list(tmp_path.iterdir())


def test_a_finder_that_ends_before_leaves_it_to_the_next(
    producer: Callable[..., Producer], tmp_path: Path, stream: Stream, clock: Clock
) -> None:
    dead = producer()
    Counter("a", registry=dead.client).inc()
    dead.flush()
    dead.die()
    first = Estates(tmp_path, clock)
    first.settle(stream.deliver)
    assert settle_estates(tmp_path, clock, stream.deliver) == 0, "it is held"
    first.abandon()
    assert settle_estates(tmp_path, clock, stream.deliver) == 1
    assert len(stream.taken) == 2 and stream.events() == 1


def test_an_estate_that_was_removed_between_open_and_lock_is_left(tmp_path: Path) -> None:
    path = tmp_path / LOCK
    path.touch()
    with path.open() as old:
        path.unlink()
        assert not estate._lock(old.fileno(), path)
        path.touch()
        assert not estate._lock(old.fileno(), path), "another one of the same name"


def test_a_forked_child_leaves_the_parents_lock_and_journal_alone(
    producer: Callable[..., Producer], stream: Stream, tmp_path: Path, clock: Clock
) -> None:
    parent = producer(journaled=True)
    hits = Counter("a", registry=parent.client)
    hits.inc()
    pid = os.fork()
    if pid == 0:
        parent.client.after_fork()
        parent.spool.abandon()
        hits.inc(100)
        # The list has the parent's nothing and its own one: the segment was not read, nor written.
        os._exit(len(parent.client.children[0].values))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    with claim(parent.folder) as is_mine:
        assert not is_mine
    parent.die()
    settle_estates(tmp_path, clock, stream.deliver)
    assert stream.events() == 1


def test_a_disk_that_fails_costs_the_cover_and_nothing_else(
    producer: Callable[..., Producer],
    tmp_path: Path,
    stream: Stream,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Said once, counted; what is there would contradict what is sealed next, so it goes; later it is tried again."""
    living = producer(journaled=True)
    hits = Counter("a", registry=living.client)
    hits.inc()
    living.flush(slots=0)
    monkeypatch.setattr("producers.spool.write_flush", _no_space)
    sealed: list[Sealed] = []
    for _ in range(3):
        hits.inc()
        sealed += living.flush()
        living.spool._retry_at = 0.0
    assert sum(each.events for each in sealed) == 4
    assert living.spool.failures >= 3
    assert [vars(r)["event"] for r in caplog.records] == ["spool_failed"]
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    hits.inc()
    living.flush(slots=0)
    hits.inc()
    living.die()
    settle_estates(tmp_path, clock, stream.deliver)
    assert stream.events() == 2


def _no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_directory_that_cannot_be_made_raises_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    living = Producer(tmp_path / "file", journaled=True)
    Counter("a", registry=living.client).inc()
    assert sum(each.events for each in living.flush()) == 1
    assert living.spool.failures > 0


def test_what_is_not_a_producers_is_not_touched(tmp_path: Path, stream: Stream, clock: Clock) -> None:
    """Not by name, not by age, not through a link."""
    old = time.time() - 2 * estate.EXPIRE_S
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    for folder in (outside, root, root / "sessions"):
        folder.mkdir()
        (folder / LOCK).touch()
    (root / ("a" * 32)).symlink_to(outside)
    os.utime(root / "sessions", (old, old))
    assert settle_estates(root, clock, stream.deliver) == 0
    assert (outside / LOCK).exists()
    assert (root / "sessions" / LOCK).exists()


def test_estates_expire_with_the_ledgers_memory_and_other_versions_wait(
    producer: Callable[..., Producer], tmp_path: Path, stream: Stream, clock: Clock
) -> None:
    dead = producer()
    Counter("a", registry=dead.client).inc()
    dead.flush()
    dead.die()
    newest = max(dead.folder.glob(f"*{SUFFIX}"))
    flush = flushes(dead.folder)[-1]
    newest.write_bytes(msgspec.msgpack.encode((99, *msgspec.structs.astuple(flush)[1:], "and more")))
    assert settle_estates(tmp_path, clock, stream.deliver) == 0
    assert newest.exists()
    old = time.time() - estate.EXPIRE_S - 60
    os.utime(newest, (old, old))
    assert settle_estates(tmp_path, clock, stream.deliver) == 0
    assert stream.taken == []
    assert not dead.folder.exists()


def test_one_estate_that_cannot_be_read_keeps_nobody_from_the_next(
    producer: Callable[..., Producer], tmp_path: Path, stream: Stream, clock: Clock
) -> None:
    for _ in range(3):
        dead = producer()
        Counter("a", registry=dead.client).inc()
        dead.flush()
        dead.die()
    spoilt = min(folder for folder in tmp_path.iterdir())
    max(spoilt.glob(f"*{SUFFIX}")).write_bytes(b"\xc1")
    assert settle_estates(tmp_path, clock, stream.deliver) == 2
    assert list(tmp_path.iterdir()) == [spoilt]


def test_a_finder_that_dies_leaves_the_same_bytes_to_the_next(
    producer: Callable[..., Producer], tmp_path: Path, stream: Stream, clock: Clock
) -> None:
    dead = producer(journaled=True)
    hits, level = Counter("a", registry=dead.client), Gauge("g", registry=dead.client)
    level.set(5)
    dead.flush(slots=0)
    hits.inc()
    level.inc(2)
    level.dec()
    dead.die()

    def die(producer_id: bytes, batches: Sequence[bytes]) -> bytes | None:
        stream.taken.extend(batches)
        raise OSError("no answer")

    assert settle_estates(tmp_path, clock, die) == 0
    first = list(stream.taken)
    assert settle_estates(tmp_path, clock, stream.deliver) == 1
    assert stream.taken == [*first, *first]
    assert stream.events() == 4
    bodies = [read_body(read_envelope(data), data) for data in first]
    assert [body.fin for body in bodies] == [False, False, True]
    assert memoryview(bodies[1].gauge_last).cast("d").tolist() == [6.0]


def test_events_of_series_that_nobody_named_are_counted_as_a_gap(
    producer: Callable[..., Producer], tmp_path: Path, stream: Stream, clock: Clock
) -> None:
    """The disk had no room for a definition: the number is known, the series is not."""
    dead = producer(journaled=True)
    named = Counter("a", registry=dead.client)
    whole = (dead.folder / SERIES).read_bytes()
    unnamed = Counter("b", registry=dead.client)
    for _ in range(7):
        named.inc()
        unnamed.inc()
    dead.die()
    (dead.folder / SERIES).write_bytes((dead.folder / SERIES).read_bytes()[: len(whole) + 9])
    settle_estates(tmp_path, clock, stream.deliver)
    bodies = [read_body(read_envelope(data), data) for data in stream.taken]
    assert [read_envelope(data).seq for data in stream.taken] == [2, 3]
    assert bodies[-1].accepted == 14
    assert stream.events() == 7


def test_emits_of_many_threads_are_taken_once_each_while_segments_change(
    producer: Callable[..., Producer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 1 << 16)
    monkeypatch.setattr(journal, "ROTATE_BYTES", 1 << 12)
    living = producer(journaled=True)
    counts = Counter("a", labelnames=["thread"], registry=living.client)
    each = 20_000

    def emit(inc: Callable[[], None]) -> None:
        for _ in range(each):
            inc()

    threads = [threading.Thread(target=emit, args=(counts.labels(i).inc,)) for i in range(4)]
    for thread in threads:
        thread.start()
    sealed: list[Sealed] = []
    while any(thread.is_alive() for thread in threads):
        sealed += living.flush()
        time.sleep(0)
    sealed += living.flush()
    assert sum(batch.events for batch in sealed) == living.drainer.accepted == 4 * each
    assert len(list(living.folder.glob(f"*{journal.SEGMENT_SUFFIX}"))) <= 2


def test_what_a_full_segment_has_no_room_for_is_sent_and_spoils_the_farewell(
    producer: Callable[..., Producer],
    tmp_path: Path,
    stream: Stream,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a dead one it is unknown how many those were: nobody may say that this was all."""
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 16 * 256)
    monkeypatch.setattr(journal, "ROTATE_BYTES", 16 * 64)
    dead = producer(journaled=True)
    hits = Counter("a", registry=dead.client)
    for _ in range(300):
        hits.inc()
    assert sum(batch.events for batch in dead.flush()) == 300
    for _ in range(300):
        hits.inc(amount=2)
    dead.die()
    settle_estates(tmp_path, clock, stream.deliver)
    assert stream.events() == 300 + 256
    assert not any(read_body(read_envelope(data), data).fin for data in stream.taken)


def test_what_is_no_number_is_dropped_and_counted_as_ever(producer: Callable[..., Producer]) -> None:
    living = producer(journaled=True)
    hits = Counter("a", registry=living.client)
    for bad in (float("nan"), "x", None, -1, 10**400):
        hits.inc(bad)  # type: ignore[arg-type]
    hits.inc()
    assert [batch.events for batch in living.flush()] == [1]
    assert sum(living.drainer.sealer.dropped.values()) == 5
