"""A few live numbers, as a scrape shows them: read from /metrics, never made up.

In: the port of an exporter. Out: lines of the exposition, chosen for a person who looks for the first time.
"""

import re
import time
from typing import Final, Protocol

from streamgauge.stack import get

COMMITTED: Final = "streamgauge_committed_events_total"
FIRST_DEADLINE_S: Final = 20.0
SHOWN: Final = 6

_SAMPLE: Final = re.compile(r"^(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?P<labels>\{.*\})? (?P<value>\S+)")
_TYPE: Final = re.compile(r"^# TYPE (?P<name>\S+) (?P<type>counter|gauge)$", re.MULTILINE)


class Watched(Protocol):
    """What waits while watching the stack, and knows where the exporter is."""

    exporter_port: int

    def wait(self, seconds: float) -> None: ...


def first_numbers(stack: Watched, wanted: bool) -> list[str]:
    """Return the first numbers on /metrics; with `wanted`, wait until events were committed."""
    end = time.monotonic() + FIRST_DEADLINE_S
    while True:
        text = scrape(stack.exporter_port)
        if not wanted or (committed(text) > 0 and samples(text)):
            break
        if time.monotonic() > end:
            return [f"no event was committed within {FIRST_DEADLINE_S:g} s: see the logs"]
        stack.wait(0.25)
    return [f"live now, {committed(text):.0f} events committed so far:", *(f"  {line}" for line in samples(text))]


def scrape(port: int) -> str:
    """Return the exposition; empty when the exporter has none to give now."""
    status, body = get(port, "/metrics", {"Accept": "text/plain"})
    return body.decode() if status == 200 else ""


def committed(text: str) -> float:
    """Return the events committed since ever, all services together."""
    found = (_SAMPLE.match(line) for line in text.splitlines() if line.startswith(COMMITTED))
    return sum(float(match["value"]) for match in found if match)


def samples(text: str) -> list[str]:
    """Return one sample line of each of the first counters and gauges that an application emitted."""
    simple = {match["name"] for match in _TYPE.finditer(text)}
    chosen: dict[str, str] = {}
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match and match["name"] in simple and not line.startswith("streamgauge_"):
            chosen.setdefault(match["name"], line)
    return list(chosen.values())[:SHOWN]
