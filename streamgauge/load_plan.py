"""What a load test emits: which series, by which metrics, and what each process of it is told.

In: numbers from the command line. Out: a Plan per process (it travels as JSON), and the messages that come back.
Promise: the same plan names the same series in every process, so that replicas add to common totals.
"""

from typing import Final, Literal

import msgspec

from contract.metric import DEFAULT_BUCKETS
from contract.series import series_key

PREFIX: Final = "loadtest_"
LATENCY: Final = f"{PREFIX}latency_seconds"
REQUESTS: Final = f"{PREFIX}requests_total"
DEPTH: Final = f"{PREFIX}queue_depth"
PROBES: Final = f"{PREFIX}probes_total"
LABEL: Final = "route"
BOUNDS: Final = DEFAULT_BUCKETS

KindOfLoad = Literal["mixed", "histogram"]


class Plan(msgspec.Struct, frozen=True):
    """What one process emits."""

    number: int
    """Of the process, from 0."""
    token: str
    """Names this load test among others: its service, and a label of its probes."""
    events: int
    series: int
    kind: KindOfLoad
    rate: float
    """Events a second of this process; 0 is as fast as it goes."""
    deadline_s: float
    oracle: str
    """File for the oracle's lines; empty for none."""


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line that a process writes while it works."""

    sent: int = 0
    """Events emitted so far."""
    at_s: float = 0.0
    """When the line was written, or the probe emitted: the monotonic clock, which all processes here share."""
    probe: int = 0
    """Number of the probe that was emitted at `at_s`; 0: none."""
    began_s: float = 0.0
    """When the first event was emitted; set in the first line."""
    done: bool = False
    """Everything was emitted and the library has stopped."""


def service_of(token: str) -> str:
    """Return the service under which a load test's producers appear in the ledger."""
    return f"loadtest-{token}"


def probe_key(token: str, number: int) -> bytes:
    """Return the series key of one process's probes."""
    return series_key(PROBES, {"process": str(number), "run": token})


def split(series: int, kind: KindOfLoad) -> tuple[int, int, int]:
    """Return how many of the series are histograms, counters and gauges."""
    if kind == "histogram" or series < 3:
        return series, 0, 0
    gauges = max(1, series // 10)
    counters = (series - gauges) // 2
    return series - gauges - counters, counters, gauges


def share(events: int, processes: int, number: int) -> int:
    """Return the part of the events that process `number` emits."""
    return events // processes + (number < events % processes)
