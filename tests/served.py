"""What scrapes saw while something went wrong: a thread that asks for /metrics all the time.

In: one or more exporters' ports. Out: the counters that fell, how many answers and refusals there were, the most that
each metric showed.
Promise: a counter counts as fallen when any exporter shows less than any of them showed before; each request begins
after the one before it has ended.
"""

import random
import time
from collections.abc import Sequence
from typing import Final

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from streamgauge.processes import wait_until
from streamgauge.stack import get
from tests.background import Background

PAUSE_S: Final = 0.05
DEADLINE_S: Final = 60.0
SELF_EVERY_S: Final = 0.3
"""Of /metrics/self: it asks every server how it is."""


class Highest:
    """The most that each counter showed; `fell` must stay empty."""

    def __init__(self) -> None:
        self.fell: list[str] = []
        self.shown: dict[str, float] = {}

    def compare(self, families: Sequence[Metric]) -> None:
        """Look at one scrape after the other."""
        for key, value in counters(families).items():
            before = self.shown.get(key, 0.0)
            if value < before:
                self.fell.append(f"{key}: {value:g} after {before:g}")
            self.shown[key] = max(value, before)


class Served(Background):
    """Scrapes at random until the block ends."""

    def __init__(self, *ports: int, seed: int = 1) -> None:
        self.highest = Highest()
        self.answers = 0
        self.refusals = 0
        self.by_port = dict.fromkeys(ports, 0)
        """Answers of each exporter."""
        self._most: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        self._asked_s = float("-inf")
        self._ports: Sequence[int] = ports
        self._random = random.Random(seed)
        super().__init__("scrapes")

    def check(self, least: int = 1) -> None:
        """No counter fell, in so many scrapes at least."""
        assert not self.highest.fell, self.highest.fell[:5]
        assert self.answers >= least, f"{self.answers} scrapes were answered, {self.refusals} were not"

    def saw(self, name: str, least: float = 1, **labels: str) -> bool:
        """Whether a sample with these labels was at least so much in any answer, /metrics/self included."""
        wanted = labels.items()
        return any(one == name and wanted <= has and most >= least for (one, has), most in list(self._most.items()))

    def told(self, name: str, least: float = 1, **labels: str) -> None:
        """Wait until a scrape saw it: what tells of a fault may come a scrape after what the fault did."""
        assert wait_until(lambda: self.saw(name, least, **labels), DEADLINE_S), f"{name} {labels} never told {least}"

    def told_down(self, component: str) -> None:
        """Wait until the monitor told that a component is down."""
        self.told("streamgauge_component_status", component=component, status="down")

    def _run(self) -> None:
        while not self._stop.wait(PAUSE_S):
            port = self._random.choice(self._ports)
            status, body = get(port, "/metrics")
            if status == 200:
                self.answers += 1
                self.by_port[port] += 1
                self.highest.compare(self._note(body))
            else:
                self.refusals += 1
            if status != 200 or time.monotonic() - self._asked_s > SELF_EVERY_S:
                self._asked_s = time.monotonic()
                self._note(get(port, "/metrics/self")[1])

    def _note(self, body: bytes) -> list[Metric]:
        families = list(text_string_to_metric_families(body.decode()))
        for sample in (sample for family in families for sample in family.samples):
            key = sample.name, frozenset(sample.labels.items())
            self._most[key] = max(sample.value, self._most.get(key, float("-inf")))
        return families


def counters(families: Sequence[Metric]) -> dict[str, float]:
    """Return what must never fall: counters, and a histogram's counts and buckets."""
    found: dict[str, float] = {}
    for family in families:
        for sample in family.samples:
            if family.type == "counter" or (family.type == "histogram" and not sample.name.endswith("_sum")):
                found[f"{sample.name}{sorted(sample.labels.items())}"] = sample.value
    return found
