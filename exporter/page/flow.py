"""Flow: the five stages that an event passes, each with its numbers, and the account of every service.

In: the newest view of the exporter, rows of commits and producers. Out: plain rows for the templates. Pure.
Promise: a number that is not known is None; each number is from its own source, none is found by subtraction.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from exporter.columns import Row
from exporter.ledger import Service, with_waiting
from exporter.page.words import count, plural, reasons
from exporter.snapshot import View

RATE_SLOTS: Final = 2
"""Closed slots of 5 s that the shown rate is the mean of."""
SLOT_S: Final = 5
HISTORY_S: Final = 600
HOLE_S: Final = 10.0


class Throughput(NamedTuple):
    """Committed events over time; a slot of SLOT_S without commits is 0 once there was a commit before it."""

    start_s: list[int]
    events_per_s: list[float]
    batches_per_s: list[float]

    @property
    def events_now(self) -> float | None:
        """The newest rate; None without history."""
        return _mean(self.events_per_s)

    @property
    def batches_now(self) -> float | None:
        """The newest rate of batches."""
        return _mean(self.batches_per_s)


def _mean(values: Sequence[float]) -> float | None:
    newest = values[-RATE_SLOTS:]
    return sum(newest) / len(newest) if newest else None


def throughput(rows: Sequence[Row], now_s: float) -> Throughput:
    """Return the rates of closed slots, from the first one that has a commit."""
    end_s = int(now_s // SLOT_S * SLOT_S)
    of = {row["start_s"]: row for row in rows}
    # The first slot may be cut off by the query or by pruning.
    first = min(of, default=end_s) + SLOT_S
    starts = list(range(first, end_s, SLOT_S))
    return Throughput(
        starts,
        [of[s]["events"] / SLOT_S if s in of else 0.0 for s in starts],
        [of[s]["batches"] / SLOT_S if s in of else 0.0 for s in starts],
    )


class Behind:
    """How long the oldest entry waited, and events in flight, whenever that was looked at; None: not known."""

    def __init__(self) -> None:
        self._kept: deque[tuple[float, float | None, int | None]] = deque(maxlen=HISTORY_S)

    def note(self, at_s: float, waits_s: float | None, in_flight: int | None) -> None:
        """Keep one look; looks of before HISTORY_S are let go."""
        if self._kept and at_s - self._kept[-1][0] > HOLE_S:
            self._kept.append(((at_s + self._kept[-1][0]) / 2, None, None))  # nobody looked: a hole, not a line
        self._kept.append((at_s, waits_s, in_flight))
        while self._kept[0][0] < at_s - HISTORY_S:
            self._kept.popleft()

    def columns(self) -> dict[str, list[Any]]:
        """Return what was kept, oldest first."""
        at_s, waits_s, in_flight = zip(*self._kept, strict=True) if self._kept else ((), (), ())
        return {"at_s": list(at_s), "waits_s": list(waits_s), "in_flight": list(in_flight)}


def since_commit(view: View, now_s: float) -> float | None:
    """Return how long ago the newest commit was; None when there was none."""
    last_s = view.pipeline.last_commit_s
    return None if last_s is None else max(0.0, now_s - last_s)


def in_flight(view: View) -> int | None:
    """Return the events in flight of all services; None when they could not be counted."""
    if view.in_flight is None:
        return None
    return sum(view.in_flight.values()) + sum(service.open + service.parked for service in view.services)


class Account(NamedTuple):
    """One service: accepted = committed + dropped + quarantined + lost + in flight.

    What waits is in both sides; while it is not known, neither are they.
    """

    service: str
    accepted: int | None
    committed: int
    dropped: int
    dropped_why: str
    quarantined: int
    lost: int
    in_flight: int | None
    duplicates: int
    live: int
    seen_ago_s: float | None
    level: str
    verdict: str


def accounts(view: View) -> list[Account]:
    """Return the services, each with its verdict in words."""
    return [_account(view, service) for service in with_waiting(view.services, view.in_flight)]


def _account(view: View, s: Service) -> Account:
    dropped = sum(s.dropped.values())
    level, verdict = verdict_of(s.states.get("live", 0), dropped, s.quarantined, s.lost, s.open + s.parked)
    return Account(
        s.service,
        s.accepted_so_far(view.in_flight),
        s.committed,
        dropped,
        reasons(s.dropped),
        s.quarantined,
        s.lost,
        s.in_flight(view.in_flight),
        s.duplicates,
        s.states.get("live", 0),
        None if s.last_seen_s is None else max(0.0, view.head.now_s - s.last_seen_s),
        level,
        verdict,
    )


def verdict_of(live: int, dropped: int, quarantined: int, lost: int, gaps: int) -> tuple[str, str]:
    """Return level and words for what was not committed."""
    said = [
        f"{count(number)} {word}"
        for number, word in ((lost, "lost"), (quarantined, "quarantined"), (dropped, "dropped"), (gaps, "missing yet"))
        if number
    ]
    if said:
        return "degraded", ", ".join(said)
    return "ok", "complete" if live else "complete, no producer live"


class Producer(NamedTuple):
    """One life of one process."""

    name: str
    producer_id: str
    service: str
    shard: int
    state: str
    seen_ago_s: float
    accepted: int
    committed: int
    duplicates: int
    clock: str
    level: str
    verdict: str


def producers(rows: Sequence[Row], dropped: Sequence[Mapping[str, int]], now_s: float) -> list[Producer]:
    """Return the producers, those that need a look first."""
    found = [_producer(row, lost, now_s) for row, lost in zip(rows, dropped, strict=True)]
    order = {"live": 0, "unclean": 1, "ended": 2}
    return sorted(found, key=lambda p: (p.level == "ok", order.get(p.state, 3), p.service, p.name))


def _producer(row: Row, dropped: Mapping[str, int], now_s: float) -> Producer:
    level, verdict = verdict_of(1, sum(dropped.values()), row["quarantined"], row["lost"], row["in_gaps"])
    if row["state"] == "unclean":
        level, verdict = "degraded", f"ended without a farewell; {verdict}"
    offset_ms, spread_ms = row["clock_offset_us"] / 1000, row["clock_uncertainty_us"] / 1000
    return Producer(
        f"{row['service']}/{row['producer_no']}",
        row["producer_id"],
        row["service"],
        row["shard"],
        row["state"],
        max(0.0, now_s - row["last_seen_s"]),
        row["accepted"],
        row["committed"],
        row["duplicates"],
        f"{round(offset_ms, 1) + 0.0:+.1f} ± {spread_ms:.1f} ms",  # no -0.0
        level,
        verdict,
    )


class Stage(NamedTuple):
    """One box of the flow."""

    name: str
    number: float | None
    unit: str
    level: str
    notes: list[str]
    exact: bool = True
    """Whether all digits are worth showing."""


def stages(
    view: View | None, level: Mapping[str, str], rates: Throughput | None, facts: Mapping[str, list[str]]
) -> list[Stage]:
    """Return the five; `level` is by kind of component, `facts` has words made elsewhere."""
    if view is None:
        return [Stage(name, None, "", level.get(key, "unknown"), []) for name, key in _STAGES]
    states = [service.states for service in view.services]
    live, ended, unclean = (sum(s.get(state, 0) for s in states) for state in ("live", "ended", "unclean"))
    committed = sum(service.committed for service in view.services)
    batches = None if rates is None else rates.batches_now
    return [
        Stage(
            "producers",
            live,
            "live",
            level.get("producers", "unknown") if live else "unknown",
            [f"{plural(unclean, 'unclean end')}" if unclean else "", f"{count(ended)} ended well"],
        ),
        Stage("stream", in_flight(view), "events in flight", flows(level), facts["stream"]),
        Stage(
            "aggregators",
            view.pipeline.aggregators,
            "with a heartbeat",
            level.get("aggregators", "unknown"),
            ["" if batches is None else f"{batches:,.1f} batches/s", *facts["aggregators"]],
        ),
        Stage("database", committed, "events committed", level.get("database", "unknown"), facts["database"]),
        Stage("exporter", view.shown, "series shown", level.get("snapshot", "unknown"), facts["exporter"]),
    ]


def flows(level: Mapping[str, str]) -> str:
    """Return the level of the stream: of the server while it is ill, else of the entries in it."""
    redis = level.get("redis", "unknown")
    return redis if redis != "ok" else level.get("streams", "unknown")


_STAGES: Final = (
    ("producers", "producers"),
    ("stream", "redis"),
    ("aggregators", "aggregators"),
    ("database", "database"),
    ("exporter", "snapshot"),
)
