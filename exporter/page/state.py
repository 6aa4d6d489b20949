"""State: one word for all of it, and the reasons in sentences. Pure.

In: the health report and what the ledger adds to it. Out: a State: level, headline, reasons with what to do.
Promise: a level never rests on colour alone (each has a sign and a word), and what is unknown is not called well.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

SIGNS: Final = {"ok": "✓", "degraded": "▲", "down": "✕", "unknown": "?"}
_RANK: Final = {"ok": 0, "unknown": 1, "degraded": 2, "warn": 2, "down": 3, "critical": 3}
_HEADLINES: Final = {
    "ok": "All is well",
    "degraded": "Needs a look",
    "down": "Down",
    "unknown": "Not known",
}
_ADVICE: Final = {
    "database": "Check the server and POSTGRES_*. The stream holds what arrives; totals continue where they stood.",
    "redis": "Check the server and REDIS_URL. Producers merge what they measure: an outage costs detail, never totals.",
    "aggregators": "Start one with `streamgauge aggregate`. Events wait in the stream until then.",
}


class Reason(NamedTuple):
    """Why the level is what it is."""

    level: str
    what: str
    text: str
    advice: str = ""
    section: str = ""
    """Id of the section of the page that tells more."""


class State(NamedTuple):
    """One look."""

    level: str
    sign: str
    headline: str
    reasons: list[Reason]
    notices: list[Reason]
    """Worth knowing, though nothing is wrong now."""


def judge(health: Mapping[str, Any], notices: Sequence[Reason] = ()) -> State:
    """Return the state; `health` is what /metrics/health says."""
    reasons = [
        Reason(_level(one), name.replace("_", " "), _sentence(one), _ADVICE.get(name, ""), "components")
        for name, one in health["components"].items()
        if _level(one) != "ok"
    ]
    reasons.sort(key=lambda r: -_RANK[r.level])
    level = level_of(health["status"])
    return State(level, SIGNS[level], _HEADLINES[level], reasons, list(notices))


def level_of(status: str) -> str:
    """Return the level that a status word means."""
    known = {"warn": "degraded", "warning": "degraded", "critical": "down", "healthy": "ok", "unhealthy": "down"}
    status = known.get(status, status)
    return status if status in SIGNS else "unknown"


def outcome_level(outcome: str | None) -> str:
    """Return the level of how a run ended; what is too little data or still runs is neither well nor ill."""
    return {"done": "ok", "failed": "down", "timed_out": "down"}.get(outcome or "", "unknown")


def _level(component: Mapping[str, Any]) -> str:
    return level_of(str(component.get("status", "unknown")))


def _sentence(component: Mapping[str, Any]) -> str:
    return str(component.get("reason") or "gives no reason")
