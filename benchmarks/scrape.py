"""Scrape of 100 k series: warm with 0, 10 and 100 % of them changed since the last one, plain and gzip, and cold.

In: a scratch stack. Out: a Section, milliseconds; the peer is `generate_latest` over as many series in memory.
The figures are a client's: from the request to the last byte, the exporter's look into PostgreSQL included.
"""

import gzip
import http.client
import re
import time
import zlib
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, disable_created_metrics, generate_latest

from benchmarks.backlog import CounterBacklog, push
from benchmarks.measure import OURS, Section, timed
from benchmarks.scratch import Scratch, wait_committed

SERIES: Final = 100_000
CHANGED: Final = (0, 10, 100)
PEER: Final = "generate_latest"
TIMEOUT_S: Final = 60.0
BUDGET: Final = {"STREAMGAUGE_SERIES_BUDGET": "200000"}


class Scraped(NamedTuple):
    """A scrape: how long it took, its body as it came, and how many sample lines it holds."""

    seconds: float
    body: bytes

    def samples(self) -> int:
        """Count the lines that are no comment."""
        text = zlib.decompress(self.body, 31) if self.body[:2] == b"\x1f\x8b" else self.body
        return sum(not line.startswith(b"#") for line in text.splitlines())


def get_metrics(port: int, accept_encoding: str = "identity", path: str = "/metrics") -> Scraped:
    """GET a page of the exporter; raises unless the answer is 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        began_s = time.perf_counter()
        connection.request("GET", path, headers={"Accept-Encoding": accept_encoding})
        response = connection.getresponse()
        body = response.read()
        took_s = time.perf_counter() - began_s
    finally:
        connection.close()
    if response.status != 200:
        raise RuntimeError(f"{path} answers {response.status}: {body[:200]!r}")
    return Scraped(took_s, body)


def run(full: bool) -> Section:
    """Scrape in turns with the peer."""
    section = Section("scrape", f"Scrape of {SERIES // 1000} k series", less_is_better=True)
    rounds = 9 if full else 3
    ours: dict[str, list[float]] = {}
    peer: dict[str, list[float]] = {}
    registry = _registry()
    with Scratch() as stack:
        stack.aggregator(**BUDGET)
        backlog = CounterBacklog(SERIES)
        _change(stack, backlog, 100)
        exporter = stack.exporter()
        lines = get_metrics(stack.exporter_port).samples()
        for _ in range(rounds):
            for percent in CHANGED:
                for work, encoding in (
                    (f"plain, {percent} % changed", "identity"),
                    (f"gzip, {percent} % changed", "gzip"),
                ):
                    _change(stack, backlog, percent)
                    ours.setdefault(work, []).append(get_metrics(stack.exporter_port, encoding).seconds * 1000)
            _peer(registry, peer)
        for _ in range(rounds):
            stack.stop(exporter)
            exporter = stack.exporter()
            ours.setdefault("cold: first scrape of a new exporter", []).append(_cold(stack) * 1000)
    _rows(section, ours, peer)
    section.notes.append(f"{lines:,} sample lines; counters, one line a series; the peer without `_created` lines.")
    return section


def _rows(section: Section, ours: dict[str, list[float]], peer: dict[str, list[float]]) -> None:
    for work, values in ours.items():
        goal = 600.0 if work.startswith("cold") else 120.0 if work.startswith("gzip") else 60.0
        section.add(work, OURS, "ms", values, at_most=goal)
        section.add(work, PEER, "ms", peer["gzip" if work.startswith("gzip") else "plain"])


def _registry() -> CollectorRegistry:
    disable_created_metrics()
    registry = CollectorRegistry()
    counter = Counter("bench_requests", "Benchmark.", ["route"], registry=registry)
    for i in range(SERIES):
        counter.labels(f"r{i:06d}").inc(i)
    return registry


def _peer(registry: CollectorRegistry, into: dict[str, list[float]]) -> None:
    took: list[float] = []
    with timed(took):
        text = generate_latest(registry)
    plain = took[0]
    with timed(took):
        gzip.compress(text, 9)  # as prometheus_client's own server does it
    into.setdefault("plain", []).append(plain * 1000)
    into.setdefault("gzip", []).append((plain + took[1]) * 1000)


def _change(stack: Scratch, backlog: CounterBacklog, percent: int) -> None:
    """Let `percent` of the series change and be committed."""
    if percent:
        push(stack.client(), backlog.seal(range(0, SERIES, 100 // percent)))
        wait_committed(stack.dsn, backlog.events)


def _cold(stack: Scratch) -> float:
    """Return the seconds of the first scrape of a new exporter.

    It loads everything from PostgreSQL when it starts, before anybody asks, so that load is added.
    """
    took_s = get_metrics(stack.exporter_port).seconds
    text = get_metrics(stack.exporter_port, path="/metrics/self").body.decode()
    found = re.search(r'^streamgauge_refresh_seconds\{kind="full"\} (\S+)$', text, re.MULTILINE)
    assert found, "BUG: the exporter does not say how long its full refresh took"
    return took_s + float(found[1])
