"""Backlog: how long the streams need to drain, and how many aggregators would be enough.

In: entries that wait, and what came in and was processed between two looks. Out: Said.
Promise: an unknown lag is never taken for none, and nothing is recommended on it.
"""

from math import ceil, inf
from typing import Final, NamedTuple

from optimizers.signals.said import Advice, Said, insufficient

BACKLOG: Final = "backlog"
WARN_S: Final = 60.0
IN_PASSING_S: Final = 5.0
"""What came within the last seconds is on its way: rates of two looks differ by chance, so that any of it "grows"."""
BUSY: Final = 0.7


class Flow(NamedTuple):
    """What went through the streams, between two looks."""

    lag: int
    """Entries nobody has read."""
    arriving_per_s: float
    processed_per_s: float
    consumers: int
    """At least one."""


def drain_s(lag: int, arriving_per_s: float, processed_per_s: float) -> float:
    """Return the seconds until nothing waits; infinite when more comes in than goes out."""
    if lag <= 0:
        return 0.0
    spare = processed_per_s - arriving_per_s
    return lag / spare if spare > 0 else inf


def judge_backlog(flow: Flow | str) -> Said:
    """Say whether the backlog takes longer than a minute to drain; a text says what is missing."""
    if isinstance(flow, str):
        return insufficient(BACKLOG, flow)
    takes_s = drain_s(flow.lag, flow.arriving_per_s, flow.processed_per_s)
    lasts = "it grows" if takes_s == inf else f"drained in {takes_s:.0f} s"
    waiting = "1 entry waits" if flow.lag == 1 else f"{flow.lag} entries wait"
    rates = f"{waiting}, {flow.arriving_per_s:.1f}/s in, {flow.processed_per_s:.1f}/s out"
    if flow.processed_per_s > 0 and 0 < flow.lag <= flow.arriving_per_s * IN_PASSING_S:
        return Said(BACKLOG, "ok", f"{rates}: what came within {IN_PASSING_S:.0f} s is no backlog")
    detail = f"{rates}: {lasts}"
    if takes_s <= WARN_S:
        return Said(BACKLOG, "ok", detail)
    per_consumer = flow.processed_per_s / flow.consumers
    if per_consumer <= 0:
        return Said(BACKLOG, "warn", f"{detail}; nothing is processed, so no number of aggregators follows")
    # Behind a backlog an aggregator is busy all the time, so what it processes is what it can.
    needed = max(flow.consumers + 1, ceil(flow.arriving_per_s / (per_consumer * BUSY)))
    evidence = {
        "entries_waiting": flow.lag,
        "arriving_per_s": round(flow.arriving_per_s, 2),
        "processed_per_s": round(flow.processed_per_s, 2),
        "drain_s": None if takes_s == inf else round(takes_s, 1),
    }
    effect = "arrivals take 70 % of what the aggregators can do, and the backlog drains"
    now = "1 aggregator" if flow.consumers == 1 else f"{flow.consumers} aggregators"
    advice = Advice("aggregator", now, f"{needed} aggregators", effect, evidence, "medium")
    return Said(BACKLOG, "warn", detail, (advice,))
