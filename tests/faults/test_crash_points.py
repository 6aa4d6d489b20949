"""Death at each named point, one after the other: whatever was half done is finished by the next process, once."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.crash import POINTS, CrashPoint
from contract.streams import DATABASE_KEY, FIELD, stream_key
from producers.client import Client
from producers.metrics import Counter
from producers.settings import Settings
from tests.faults.bench import Bench
from tests.faults.oracle import SPOOLS, Spool, total
from tests.loading import COMMITTED, DUPLICATES, assert_audit, fetch

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
OF_PRODUCER = [name for name, where in POINTS.items() if where.startswith("producer")]
OF_AGGREGATOR = [name for name in POINTS if name not in OF_PRODUCER]
AFTER_COMMIT = {"after_commit", "before_ack", "after_note"}
"""Dying here leaves committed entries pending: a later aggregator finds duplicates."""
FENCE = {"after_fence", "before_fence_falls", "after_fence_fell"}
BURST = 300


def test_every_point_is_reached_somewhere_and_named() -> None:
    """POINTS is the list of what the sources reach, no more and no less."""
    folders = ("producers", "aggregator", "database", "exporter", "streamgauge")
    sources = [file.read_text() for folder in folders for file in (ROOT / folder).rglob("*.py")]
    reached = [name for source in sources for name in re.findall(r'crash\.reach\("(\w+)"\)', source)]
    assert set(reached) == set(POINTS)


def test_a_point_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no point 'after_lunch'"):
        CrashPoint("after_lunch")


@pytest.fixture
def bench(tmp_path: Path, dsn: str, redis_url: str) -> Iterator[Bench]:
    with Bench(
        tmp_path, dsn, redis_url, STREAMGAUGE_TRIM_INTERVAL_S="0.3", STREAMGAUGE_LEASE_S="0.6", STREAMGAUGE_SHARDS="2"
    ) as made:
        yield made


@pytest.fixture
def client(redis_url: str) -> Iterator[Client]:
    """A producer inside this process: it lives throughout, so its oracle is a number."""
    made = Client(Settings(redis_url=redis_url, flush_interval_s=0.02, shards=2))
    made.start()
    try:
        yield made
    finally:
        made.stop(10)


def test_an_aggregator_that_dies_at_each_point_is_replaced_by_one_that_dies_at_the_next(
    bench: Bench, client: Client, dsn: str
) -> None:
    """At the end everything is committed once, the fence is down, and nothing that was served fell."""
    counter = Counter("emitted_total", "Test.", registry=client)
    bench.aggregator()
    bench.exporter()
    bench.kill("aggregator-1")
    emitted = poisoned = 0
    for point in OF_AGGREGATOR:
        for _ in range(BURST):
            counter.inc()
        emitted += BURST
        if point in FENCE:
            bench.client().set(DATABASE_KEY, "1/1")
        if point == "after_quarantine":
            poisoned += bool(bench.client().xadd(stream_key(0), {FIELD: b"poison"}))
        name = bench.aggregator(STREAMGAUGE_CRASH_AT=point)
        process = bench.pipeline.processes[name]
        bench.until(lambda p=process: p.poll() is not None, f"an aggregator dies at {point}")
        assert process.wait() == -signal.SIGKILL, bench.pipeline.log(name).read_text()[-2000:]
    last = bench.aggregator()
    assert client.stop(30)
    bench.until(lambda: fetch(dsn, COMMITTED) == emitted, "all is committed")
    assert fetch(dsn, "SELECT sum(n)::bigint FROM totals") == emitted
    bench.until(lambda: fetch(dsn, DUPLICATES) >= len(AFTER_COMMIT), "what was committed was delivered again")
    assert fetch(dsn, "SELECT count(*) FROM quarantine") == poisoned
    bench.until(lambda: not fetch(dsn, "SELECT count(*) FROM fences WHERE lowered_at IS NULL"), "no fence is up")
    bench.told("streamgauge_duplicate_batches_total", 1)
    assert_audit(bench.pipeline)
    assert bench.served is not None
    bench.served.check()
    assert bench.pipeline.stop(last) == 0


@pytest.mark.parametrize("spool", SPOOLS)
def test_a_producer_that_dies_at_each_point_leaves_whole_batches_or_none(bench: Bench, spool: Spool) -> None:
    """What it sealed and sent is committed once, and what it kept for a successor; of the rest no batch tells."""
    bench.emitters.spool = spool
    bench.pipeline.env["STREAMGAUGE_SHARDS"] = "1"
    bench.exporter()
    bench.aggregator()
    names = {point: bench.emitters.start(1000, rate=2000, STREAMGAUGE_CRASH_AT=point) for point in OF_PRODUCER}
    for name in names.values():
        bench.emitters.died(name)
    books = {book.name: book for book in bench.check()}
    by_point = {point: books[name] for point, name in names.items()}
    assert (by_point["before_seal"].accepted > 0) == (spool == "events"), "nothing was sealed"
    for point in ("after_seal", "before_send"):
        assert (by_point[point].accepted > 0) == bool(spool), "nothing had reached Redis"
    for point in ("after_send", "after_acknowledged", "before_fin"):
        assert by_point[point].sent == by_point[point].batches > 0, "everything that had is committed"
    assert total(bench.emitters.books(), "lost") == 0
    bench.let_an_hour_pass()
    # Who lives is judged by what came later to the same shard.
    bench.emitters.start(10)
    bench.emitters.finish()
    if spool != "events":
        silent = sum(not book.fin and book.accepted > 0 for book in books.values())
        bench.told("streamgauge_producers", silent, state="unclean")
