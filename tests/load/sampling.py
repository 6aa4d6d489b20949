"""Sampling: what memory, lag and freshness were while something ran, looked at from outside.

In: a bench, process ids by name. Out: samples a second, what scrapes showed of probes, and which counters fell.
Promise: looks go past the links that a test spoils; a server that does not answer leaves a hole, never an error.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import psutil
from prometheus_client.parser import text_string_to_metric_families
from redis.exceptions import RedisError

from contract.streams import DEFAULT_SHARDS, GROUP, stream_key
from streamgauge.load_plan import PROBES, Report
from streamgauge.stack import get
from tests.background import Background
from tests.faults.bench import Bench
from tests.served import Highest

MIB: Final = 1 << 20
SCRAPE_EVERY_S: Final = 0.2
COUNTERS_EVERY_S: Final = 5.0
"""Reading a whole page costs more than a scrape: between two such looks a counter may grow, never fall."""
_PROBE: Final = re.compile(rf"^{PROBES}\{{([^}}]*)\}} ([0-9.e+]+)$", re.MULTILINE)


class Sample(NamedTuple):
    """One look. None: nobody answered."""

    at_s: float
    memory_mib: dict[str, float]
    """Resident, by process; of PostgreSQL the sum without what its processes share."""
    behind: int | None
    """Entries that are not acknowledged."""
    oldest_s: float | None
    """How long the oldest of them waits, by the clock of Redis."""
    stream_mib: float | None


Pids = Callable[[], Mapping[str, int]]


class Sampler(Background):
    """Looks every so often, in a thread."""

    def __init__(self, bench: Bench, pids: Pids, every_s: float) -> None:
        self.samples: list[Sample] = []
        self._bench = bench
        self._pids = pids
        self._every_s = every_s
        super().__init__("samples")

    def _run(self) -> None:
        client = self._bench.client_of(self._bench.redis_url + "?socket_timeout=2")
        while not self._stop.wait(self._every_s):
            memory = {name: size for name, pid in self._pids().items() if (size := memory_mib(name, pid)) is not None}
            at_s = time.monotonic()
            try:
                self.samples.append(Sample(at_s, memory, *_streams(client)))
            except (RedisError, OSError):
                self.samples.append(Sample(at_s, memory, None, None, None))
        client.close()


def memory_mib(name: str, pid: int) -> float | None:
    """Return what a process takes; None if it is gone."""
    try:
        process = psutil.Process(pid)
        if name != "postgres":
            return process.memory_info().rss / MIB
        infos: list[Any] = [process.memory_info()]
        for child in process.children(recursive=True):
            try:
                infos.append(child.memory_info())
            except psutil.NoSuchProcess:
                continue
        return sum(info.rss - info.shared for info in infos) / MIB
    except psutil.NoSuchProcess:
        return None


def _streams(client: Any) -> tuple[int, float, float]:
    behind, oldest_s, size_bytes = 0, 0.0, 0
    seconds, micros = client.time()
    for shard in range(DEFAULT_SHARDS):
        key = stream_key(shard)
        if not client.exists(key):
            continue
        size_bytes += client.memory_usage(key) or 0
        groups: list[dict[str, Any]] = client.xinfo_groups(key)
        if not groups:
            continue
        (group,) = groups
        behind += group["pending"] + (group.get("lag") or 0)
        first = client.xrange(key, min=b"(" + group["last-delivered-id"], count=1)
        waiting = [entry_id for entry_id, _ in first]
        if group["pending"]:
            waiting.append(client.xpending(key, GROUP)["min"])
        ages_s = [seconds + micros / 1e6 - int(entry_id.partition(b"-")[0]) / 1000 for entry_id in waiting]
        oldest_s = max([oldest_s, *ages_s])
    return behind, oldest_s, size_bytes / MIB


class Seen(NamedTuple):
    """What one scrape showed of the probes: their number by emitting process."""

    asked_s: float
    probes: dict[str, int]


class Scraper(Background):
    """Scrapes one exporter, in a thread."""

    def __init__(self, port: int, token: str) -> None:
        self.seen: list[Seen] = []
        self.refused = 0
        self.highest = Highest()
        self._port = port
        self._token = token
        self._looked_s = 0.0
        super().__init__("scrapes")

    def _run(self) -> None:
        while not self._stop.wait(SCRAPE_EVERY_S):
            status, body = get(self._port, "/metrics")
            now_s = time.monotonic()
            if status != 200:
                self.refused += 1
                continue
            text = body.decode()
            self.seen.append(Seen(now_s, dict(self._probes(text))))
            if now_s - self._looked_s >= COUNTERS_EVERY_S:
                self._looked_s = now_s
                self.highest.compare(list(text_string_to_metric_families(text)))

    def _probes(self, text: str) -> list[tuple[str, int]]:
        mine = f'run="{self._token}"'
        found = [(labels, value) for labels, value in _PROBE.findall(text) if mine in labels]
        return [(re.findall(r'process="(\d+)"', labels)[0], int(float(value))) for labels, value in found]


class Fresh(NamedTuple):
    """One probe."""

    emitted_s: float
    after_s: float
    """When a scrape that shows it was answered."""


def freshness(logs: Mapping[str, Path], seen: Sequence[Seen]) -> list[Fresh]:
    """Return each probe that was ever shown; `logs` are what emitters said, by their number."""
    found: list[Fresh] = []
    for number, log in logs.items():
        probes = iter(_emitted(log))
        probe = next(probes, None)
        for scrape in seen:
            while probe is not None and probe.probe <= scrape.probes.get(number, 0):
                found.append(Fresh(probe.at_s, scrape.asked_s - probe.at_s))
                probe = next(probes, None)
    return sorted(found)


def _emitted(log: Path) -> list[Report]:
    found: list[Report] = []
    for line in log.read_bytes().splitlines():
        try:
            report = msgspec.json.decode(line, type=Report)
        except msgspec.MsgspecError:
            continue  # a line of the log, or one that a kill cut off
        if report.probe:
            found.append(report)
    return found


def quantile(values: Sequence[float], q: float) -> float | None:
    """Return the value at rank ceil(q * n); None of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-q * len(ordered) // 1) - 1))] if ordered else None
