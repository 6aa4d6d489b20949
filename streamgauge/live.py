"""A few live numbers, as a scrape shows them: read from /metrics, never made up.

In: the port of an exporter. Out: lines of the exposition, chosen for a person who looks for the first time.
"""

import re
import time
from typing import Final, Protocol

from streamgauge.stack import get

COMMITTED: Final = "streamgauge_committed_events_total"
FIRST_DEADLINE_S: Final = 20.0
ENOUGH_EVENTS: Final = 100
"""Committed events from which on the numbers say something; traffic makes them within two seconds."""

SHOWN: Final = 8

_SAMPLE: Final = re.compile(r"^(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?P<labels>\{.*\})? (?P<value>\S+)")
_TYPE: Final = re.compile(r"^# TYPE (?P<name>\S+) (?P<type>counter|gauge)$", re.MULTILINE)


class Watched(Protocol):
    """What waits while watching the stack, and knows where the exporter is."""

    exporter_port: int

    def wait(self, seconds: float) -> None: ...


def first_numbers(stack: Watched, wanted: bool) -> list[str]:
    """Return the first numbers on /metrics; with `wanted`, wait until this run's events were committed."""
    end = time.monotonic() + FIRST_DEADLINE_S
    before = committed(scrape(stack.exporter_port))
    while True:
        text = scrape(stack.exporter_port)
        if not wanted or (committed(text) >= before + ENOUGH_EVENTS and samples(text)):
            break
        if time.monotonic() > end:
            return [f"fewer than {ENOUGH_EVENTS} events were committed within {FIRST_DEADLINE_S:g} s: see the logs"]
        stack.wait(0.25)
    return [f"live now, {committed(text):,.0f} events committed so far:", *(f"  {line}" for line in samples(text))]


def scrape(port: int) -> str:
    """Return the exposition; empty when the exporter has none to give now."""
    status, body = get(port, "/metrics", {"Accept": "text/plain"})
    return body.decode() if status == 200 else ""


def committed(text: str) -> float:
    """Return the events committed since ever, all services together."""
    found = (_SAMPLE.match(line) for line in text.splitlines() if line.startswith(COMMITTED))
    return sum(float(match["value"]) for match in found if match)


def samples(text: str) -> list[str]:
    """Return the largest sample, unless 0, of each counter and gauge of an application; http_* come last."""
    simple = {match["name"] for match in _TYPE.finditer(text)}
    chosen: dict[str, re.Match[str]] = {}
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match is None or match["name"] not in simple or line.startswith("streamgauge_") or not float(match["value"]):
            continue
        best = chosen.get(match["name"])
        if best is None or float(match["value"]) > float(best["value"]):
            chosen[match["name"]] = match
    ordered = sorted(chosen.values(), key=lambda match: match["name"].startswith("http_"))
    return [match[0] for match in ordered[:SHOWN]]
