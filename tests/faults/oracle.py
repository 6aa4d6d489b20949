"""Emitters with an oracle each, and the account of what became of their events.

In: a pipeline. Out: processes that emit, and a Book of each: what it meant to emit, what the ledger says of it.
Promise: an emitter's file is on disk before its events are emitted; `check` compares the files with the ledger
emitter by emitter, and with the totals series by series.
"""

import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec
import redis

from contract.streams import DEFAULT_SHARDS, SHARD_COUNT_KEY, stream_key
from database.connect import SCHEMA
from streamgauge.load_oracle import Difference, read_oracle
from streamgauge.load_plan import Plan, service_of
from streamgauge.load_worker import BURST
from streamgauge.loadtest import compare_oracle
from streamgauge.processes import wait_until
from tests.faults.emitter import emitted
from tests.loading import ask
from tests.pipeline import Pipeline

SERIES: Final = 30
Spool = Literal["", "batches", "events"]
SPOOLS: Final[dict[Spool, dict[str, str]]] = {
    "": {},
    "batches": {"STREAMGAUGE_SPOOL_DIR": "spool"},
    "events": {"STREAMGAUGE_SPOOL_DIR": "spool", "STREAMGAUGE_SPOOL_EVENTS": "1"},
}
"""What a producer keeps for its successor."""
UNSENT_S: Final = 5.0
"""Of what it emits while Redis can be reached: a flush interval, and what a machine under load takes to flush."""
SUCCESSOR: Final = """
import os, time
from streamgauge import Counter, stop
Counter("started_total").inc()
deadline = time.monotonic() + 20
while len(os.listdir(os.environ["STREAMGAUGE_SPOOL_DIR"])) > 1 and time.monotonic() < deadline:
    time.sleep(0.05)
assert stop(20)
"""
"""Sends one event of its own, and what it finds. Its own farewell is left: it was acknowledged just now."""
DRAIN_S: Final = 60.0
"""Once a fault is over, everything is accounted for within this time, on a loaded machine of two cores too."""
IMPATIENT: Final = {"STREAMGAUGE_REDIS_TIMEOUT_S": "0.5"}
"""An answer that is late by so much is taken for lost: a test has less time than an application."""

LEDGER: Final = """
SELECT jsonb_agg(to_jsonb(b)) FROM (
    SELECT p.service, p.producer_no, p.accepted, p.committed_events AS committed, p.quarantined_events AS quarantined,
           p.duplicates, p.fin, p.top_seq AS sent,
           coalesce((SELECT sum(upper(r) - lower(r)) FROM unnest(p.applied) r), 0) AS batches,
           coalesce((SELECT sum(value::bigint) FROM jsonb_each_text(p.dropped)), 0) AS dropped,
           coalesce(sum(g.sealed_after - g.sealed_before) FILTER (WHERE g.closed_at IS NOT NULL), 0) AS lost,
           coalesce(sum(g.sealed_after - g.sealed_before) FILTER (WHERE g.closed_at IS NULL), 0) AS missing
      FROM producers p LEFT JOIN gaps g USING (producer_no) WHERE starts_with(p.service, $1) GROUP BY p.producer_no) b
"""


class Book(NamedTuple):
    """One emitter. Events, but for `sent`, `batches` and `duplicates`."""

    name: str
    meant: int
    """As its oracle has it: a burst is there before it is emitted."""
    emitted: int = 0
    """Emits that have returned, as the process counted on a page that outlives it."""
    accepted: int = 0
    committed: int = 0
    quarantined: int = 0
    dropped: int = 0
    lost: int = 0
    missing: int = 0
    """In gaps that are open."""
    sent: int = 0
    batches: int = 0
    duplicates: int = 0
    fin: bool = False

    @property
    def unemitted(self) -> int:
        """Return what a kill kept it from emitting: part of a burst, or an emit that returned and was not counted."""
        return self.meant - max(self.emitted, self.accepted)

    @property
    def unsent(self) -> int:
        """Return what it emitted and no batch of it tells of."""
        return max(0, self.emitted - self.accepted)

    def is_settled(self) -> bool:
        """Whether all that is known to be accepted is accounted for."""
        return self.accepted == self.committed + self.quarantined + self.dropped + self.lost + self.missing


class Emitters:
    """Load generators of one test; each is a producer, and its service is its own."""

    def __init__(self, pipeline: Pipeline, dsn: str, redis_url: str, spool: Spool = "") -> None:
        self.token = secrets.token_hex(4)
        self.killed: set[str] = set()
        self.spool: Spool = spool
        self.rates: dict[str, float] = {}
        self.drained_s = 0.0
        """How long the last drain took, from the moment everything was emitted."""
        self._pipeline = pipeline
        self._dsn = dsn
        self._redis_url = redis_url
        self._number = 0

    def start(self, events: int, *, rate: float = 2000, deadline_s: float = 120, **env: str) -> str:
        """Start an emitter of so many events; returns its name."""
        name = f"emitter-{self._number}"
        oracle = str(self._pipeline.folder / f"oracle.{name}")
        plan = Plan(self._number, self.token, events, SERIES, "mixed", rate, deadline_s, oracle)
        self._number += 1
        self.rates[name] = rate
        own = {"REDIS_URL": self._redis_url, "STREAMGAUGE_SERVICE": self._service(name)} | IMPATIENT
        own |= SPOOLS[self.spool] | ({"STREAMGAUGE_SPOOL_DIR": str(self._root)} if self.spool else {})
        command = (sys.executable, "-m", "tests.faults.emitter", msgspec.json.encode(plan).decode())
        self._pipeline.start(name, *command, str(self._page(name)), env=own | env)
        return name

    @property
    def _root(self) -> Path:
        return self._pipeline.folder / "spool"

    def _page(self, name: str) -> Path:
        return self._pipeline.folder / f"emitted.{name}"

    def process(self, name: str) -> subprocess.Popen[bytes]:
        """Return the process of an emitter."""
        return self._pipeline.processes[name]

    def kill(self, name: str) -> None:
        """Kill -9; its successor is another producer."""
        self.killed.add(name)
        self.process(name).send_signal(signal.SIGKILL)
        self.process(name).wait()

    def died(self, name: str, deadline_s: float = 60) -> None:
        """Wait until an emitter killed itself."""
        assert wait_until(lambda: self.process(name).poll() is not None, deadline_s), f"{name} lives"
        assert self.process(name).wait() == -signal.SIGKILL, self._pipeline.log(name).read_text()[-2000:]
        self.killed.add(name)

    def names(self) -> list[str]:
        """Return all that were ever started."""
        return [f"emitter-{number}" for number in range(self._number)]

    def live(self) -> list[str]:
        """Return those that run."""
        return [name for name in self.names() if self.process(name).poll() is None]

    def finish(self, deadline_s: float = 150) -> None:
        """Wait until all have emitted their share and said farewell."""
        assert wait_until(lambda: not self.live(), deadline_s), f"still emitting: {self.live()}"
        for name in set(self.names()) - self.killed:
            log = self._pipeline.log(name).read_text()
            assert self.process(name).wait() == 0 and "Traceback" not in log, f"{name}: {log[-2000:]}"

    def succeed(self) -> None:
        """Have one more producer send what is left in the spool, as a supervisor's next process would."""
        if not self.spool or not self._root.exists():
            return
        env = {**self._pipeline.env, **SPOOLS[self.spool], "STREAMGAUGE_SPOOL_DIR": str(self._root)}
        env |= {"REDIS_URL": self._redis_url, "STREAMGAUGE_SERVICE": "successor"}
        subprocess.run([sys.executable, "-c", SUCCESSOR], env=env, timeout=60, check=True)
        assert len(list(self._root.iterdir())) <= 1, "what killed producers left is sent"

    def files(self) -> list[Path]:
        """Return the oracles."""
        return [self._pipeline.folder / f"oracle.{name}" for name in self.names()]

    def books(self) -> list[Book]:
        """Return the account as it stands; an emitter that the ledger does not know has sent nothing."""
        rows: Any = ask(self._dsn, LEDGER.replace("$1", f"'{self._service('')}'"))
        known = {row.pop("service"): row for row in msgspec.json.decode(rows or "[]")}
        found: list[Book] = []
        for name, file in zip(self.names(), self.files(), strict=True):
            meant = sum(series.n for series in read_oracle([file] if file.exists() else []).values())
            row = known.get(self._service(name), {})
            row.pop("producer_no", None)
            found.append(Book(name, meant, emitted(self._page(name)), **row))
        return found

    def drain(self, deadline_s: float = DRAIN_S) -> list[Book]:
        """Wait until every farewell has arrived and nothing that was accepted is on its way."""

        def is_drained() -> bool:
            books = self.books()
            return (
                all(b.is_settled() and (b.fin or b.name in self.killed) for b in books)
                and are_read(self._pipeline.env["REDIS_URL"])
                and books == self.books()
            )

        began_s = time.monotonic()
        assert wait_until(is_drained, deadline_s), f"after {deadline_s:g} s: {self.books()}"
        self.drained_s = time.monotonic() - began_s
        return self.books()

    def committed(self) -> int:
        """Return the events that are committed."""
        return sum(book.committed for book in self.books())

    def differences(self) -> list[Difference]:
        """Compare the totals with the oracles, series by series."""
        return compare_oracle([file for file in self.files() if file.exists()], self._dsn, SCHEMA)

    def check(self) -> list[Book]:
        """I1 and I3: nothing is there twice; what is missing is told as lost, or was not sent by who was killed."""
        books = self.drain()
        for book in books:
            self._judge(book)
        differences = self.differences()
        known = sum(book.lost + book.missing + book.unsent + book.unemitted for book in books)
        assert _missing(differences) == known, (books, differences[:5])
        return books

    def _judge(self, book: Book) -> None:
        """What a producer may leave: nothing, unless it was killed; then no more than its spool says."""
        assert book.committed <= book.accepted <= book.emitted + 1 and book.emitted <= book.meant, book
        if book.name not in self.killed:
            assert book.unemitted == book.unsent == 0, book
            return
        assert book.unemitted <= BURST, book
        if self.spool == "events":
            assert book.unsent == 0, f"every emit that returned is recovered: {book}"
        elif self.spool == "batches":
            assert book.unsent <= UNSENT_S * self.rates[book.name], f"more than a flush interval: {book}"

    def _service(self, name: str) -> str:
        return f"{service_of(self.token)}-{name}"


def are_read(redis_url: str) -> bool:
    """Whether every stream was read to its end and acknowledged."""
    with redis.Redis.from_url(redis_url, protocol=2, socket_timeout=10) as client:
        link: Any = client
        for shard in range(int(link.get(SHARD_COUNT_KEY) or DEFAULT_SHARDS)):
            key = stream_key(shard)
            if not link.exists(key):
                continue
            newest = link.xinfo_stream(key)["last-generated-id"]
            groups = link.xinfo_groups(key)
            if not groups or groups[0]["pending"] or groups[0]["last-delivered-id"] != newest:
                return False
    return True


def _missing(differences: Sequence[Difference]) -> int:
    """Return how many events the totals lack; having too much of anything, or another sum of as many, fails at once."""
    lacking: dict[str, tuple[Any, Any]] = {d.key: (d.expected, d.stored) for d in differences if d.what == "n"}
    for difference in differences:
        expected: Any = difference.expected
        stored: Any = difference.stored
        if difference.what == "le":
            is_less = all(s <= e for s, e in zip(stored, expected, strict=True)) if stored else True
        else:
            is_less = difference.what != "le in all" and stored <= expected
        assert is_less, f"double: {difference}"
        assert difference.key in lacking, f"as many events as were meant, and another {difference}"
    return sum(expected - stored for expected, stored in lacking.values())


def total(books: Sequence[Book], what: str) -> int:
    """Add up one term of all emitters."""
    return sum(getattr(book, what) for book in books)
