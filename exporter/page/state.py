"""State: one word for all of it, and the reasons in sentences. Pure.

In: the monitor's report and what the ledger adds to it. Out: a State: level, headline, reasons with what to do.
Promise: a level never rests on colour alone (each has a sign and a word), and what is unknown is not called well.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from exporter.components.component import RANK, Severity, Status
from exporter.monitor import Reading, Report, worst

SIGNS: Final = {"ok": "✓", "degraded": "▲", "down": "✕", "unknown": "?"}
_HEADLINES: Final = {
    "ok": "All is well",
    "degraded": "Needs a look",
    "down": "Down",
    "unknown": "Not known",
}
_ADVICE: Final = {
    "database": "Check the server and POSTGRES_*. The stream holds what arrives; totals continue where they stood.",
    "redis": "Check the server and REDIS_URL. Producers merge what they measure: an outage costs detail, never totals.",
    "aggregators": "Start one: streamgauge aggregate. Events wait in the stream until then.",
    "snapshot": "/metrics answers 503 meanwhile: a gap is harmless, a fall is not.",
}
_SECTIONS: Final = {"thresholds": "thresholds", "schedule": "schedule"}
_WORDS: Final = {"warn": "degraded", "warning": "degraded", "critical": "down"}


class Reason(NamedTuple):
    """Why the level is what it is."""

    level: str
    what: str
    text: str
    since_s: float | None = None
    advice: str = ""
    section: str = "components"
    """Id of the section of the page that tells more."""


class State(NamedTuple):
    """One look."""

    level: str
    sign: str
    headline: str
    since_s: float | None
    reasons: list[Reason]
    notices: list[Reason]
    """Worth knowing, though nothing is wrong now."""


def judge(report: Report, notices: Sequence[Reason] = ()) -> State:
    """Return the state: what is wrong, the worst first, and since when."""
    ill = sorted((one for one in report.readings if one.status is not Status.OK), key=_weight, reverse=True)
    wrong = [reason(one) for one in ill if one.severity is not Severity.INFO]
    known = [reason(one) for one in ill if one.severity is Severity.INFO]
    level = level_of(report.status)
    return State(level, SIGNS[level], _HEADLINES[level], _since(report), wrong, [*notices, *known])


def reason(one: Reading) -> Reason:
    """Return what a component that is not ok says."""
    text = one.component.reason or "gives no reason"
    advice = _ADVICE.get(one.kind, "") if one.status is Status.DOWN else ""
    section = _SECTIONS.get(one.kind, "components")
    return Reason(level_of(one.status), one.component.name, text, one.since.timestamp(), advice, section)


def _since(report: Report) -> float | None:
    """Return since when it is so: of what is wrong the first, of what is well the last."""
    counted = [one for one in report.readings if one.severity is not Severity.INFO]
    ill = [one.since.timestamp() for one in counted if one.status is not Status.OK]
    return min(ill) if ill else max((one.since.timestamp() for one in counted), default=None)


def _weight(one: Reading) -> tuple[bool, int]:
    return one.severity is Severity.CRITICAL, RANK[one.status]


def level_of(status: str) -> str:
    """Return the level that a status word means."""
    status = _WORDS.get(str(status), str(status))
    return status if status in SIGNS else "unknown"


def outcome_level(outcome: str | None) -> str:
    """Return the level of how a run ended; what is too little data or still runs is neither well nor ill."""
    return {"done": "ok", "failed": "down", "timed_out": "down"}.get(outcome or "", "unknown")


def levels(report: Report) -> dict[str, str]:
    """Return the level of each kind of component: that of the worst."""
    kinds: dict[str, list[Reading]] = {}
    for one in report.readings:
        kinds.setdefault(one.kind, []).append(one)
    return {kind: level_of(worst(members).status) for kind, members in kinds.items()}


def facts(report: Report, kind: str) -> list[Mapping[str, Any]]:
    """Return the facts of each component of a kind."""
    return [one.component.facts for one in report.readings if one.kind == kind]


def latency_s(report: Report, kind: str) -> float | None:
    """Return how long a kind took to answer; None when it did not."""
    found = [one.latency_ms / 1000 for one in report.readings if one.kind == kind and one.status is not Status.DOWN]
    return max(found, default=None)


def waits_s(report: Report) -> float | None:
    """Return for how long the oldest entry of all streams waits; 0 when none does, None when that is not known."""
    shards = facts(report, "streams")
    if not shards or any("waiting_s" not in shard for shard in shards):
        return None
    return max(shard["waiting_s"] or 0.0 for shard in shards)


def lag(report: Report) -> int | None:
    """Return the entries behind, of all streams; None when one does not know."""
    known = [shard.get("lag") for shard in facts(report, "streams")]
    return sum(n for n in known if n is not None) if known and None not in known else None
