"""Words: how numbers, times and outcomes read on the page. Pure.

In: values as the sources give them; None where a value is unknown. Out: short text.
Promise: unknown reads as "unknown", never as 0; nothing is rounded to a whole that is not one (0.4 s, not 0 s).
"""

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

UNKNOWN: Final = "unknown"

_DURATIONS: Final = ((86_400.0, "d", 3600.0, "h"), (3600.0, "h", 60.0, "min"), (60.0, "min", 1.0, "s"))
_LARGE: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k"))
_SMALL: Final = ((1.0, "s", 1.0), (1e-3, "ms", 1e3), (1e-6, "µs", 1e6), (0.0, "ns", 1e9))
_OUTCOMES: Final = {
    "done": "done",
    "failed": "failed",
    "insufficient_data": "insufficient data",
    "skipped": "skipped",
    "timed_out": "timed out",
    "running": "running",
}


def count(number: float | None) -> str:
    """Return all digits in groups of three, for what must add up."""
    return UNKNOWN if number is None or math.isnan(number) else f"{number:,.0f}"


def short(number: float | None) -> str:
    """Return about three digits, for what is glanced at: 12.3 k, 4.56 M."""
    if number is None or not math.isfinite(number):
        return UNKNOWN
    for scale, suffix in _LARGE:
        if abs(number) >= scale:
            return f"{_three(number / (scale if suffix != 'k' else 1e3))} {suffix}"
    return f"{number:,.0f}" if number == int(number) else _three(number)


def duration(seconds: float | None) -> str:
    """Return a length of time: 240 µs, 3.2 ms, 1.5 s, 2 min 5 s, 3 h 20 min, 4 d."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 0:
        return "-" + duration(-seconds)
    if seconds < 60:
        return _below_a_minute(seconds)
    scale, suffix, smaller, below = next(unit for unit in _DURATIONS if seconds >= unit[0])
    whole = int(seconds // scale)
    left = int((seconds - whole * scale) // smaller)
    return f"{whole} {suffix} {left} {below}" if left and whole < 10 else f"{whole} {suffix}"


def _below_a_minute(seconds: float) -> str:
    if seconds == 0:
        return "0 s"
    for smallest, suffix, scale in _SMALL:
        if seconds >= smallest:
            return f"{_three(seconds * scale)} {suffix}"
    raise AssertionError("BUG: the last unit takes all")


def _three(number: float) -> str:
    places = max(0, 2 - math.floor(math.log10(abs(number)))) if number else 0
    text = f"{number:.{min(places, 4)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def value(number: float | None, unit: str = "") -> str:
    """Return a value with its unit as metrics name it (seconds, bytes, ratio, or none)."""
    if number is None or not math.isfinite(number):
        return UNKNOWN
    if unit == "seconds":
        return duration(number)
    if unit == "bytes":
        return size(number)
    return short(number) if unit == "ratio" else f"{short(number)} {unit}".rstrip()


def unit_of(name: str) -> str:
    """Return the unit that a metric's name ends with, as `value` takes it; empty when it names none."""
    return next((unit for unit in ("seconds", "bytes", "ratio") if name.endswith(f"_{unit}")), "")


def size(number: float | None) -> str:
    """Return an amount of bytes."""
    if number is None or not math.isfinite(number):
        return UNKNOWN
    for scale, suffix in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(number) >= scale:
            return f"{_three(number / scale)} {suffix}"
    return f"{number:.0f} B"


def ago(seconds: float | None) -> str:
    """Return how long ago something was."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    return "just now" if seconds < 1 else f"{duration(math.floor(seconds))} ago"


def ahead(seconds: float | None) -> str:
    """Return when something will be, or by how much it is overdue."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if abs(seconds) < 1:
        return "now"
    return f"in {duration(math.floor(seconds))}" if seconds > 0 else f"{duration(math.floor(-seconds))} ago"


def clock(at_s: float | None) -> str:
    """Return a time of day, UTC."""
    return UNKNOWN if at_s is None else f"{datetime.fromtimestamp(at_s, UTC):%H:%M:%S}"


def instant(at_s: float | None) -> str:
    """Return a date and time, UTC."""
    return UNKNOWN if at_s is None else f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S} UTC"


def outcome(name: str | None) -> str:
    """Return how a run ended."""
    return "running" if name is None else _OUTCOMES.get(name, name.replace("_", " "))


def reasons(counts: Mapping[str, int]) -> str:
    """Return counts by reason: `3 overflow, 1 late`."""
    return ", ".join(f"{count(n)} {why.replace('_', ' ')}" for why, n in sorted(counts.items()) if n)


def plural(number: int, one: str, many: str = "") -> str:
    """Return `1 producer`, `2 producers`."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def evidence(given: Any, name: str) -> str:
    """Return a value that stands beside a name which ends in its unit."""
    if given is None:
        return UNKNOWN
    if isinstance(given, list):
        return "; ".join(evidence(each, name) for each in cast("list[Any]", given)) or "none"
    if isinstance(given, dict):
        return ", ".join(
            f"{unit_free(key)} {evidence(each, key)}" for key, each in cast("dict[str, Any]", given).items()
        )
    if isinstance(given, bool) or not isinstance(given, int | float):
        return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    for ending, say in _EVIDENCE:
        if name.endswith(ending):
            return say(float(given))
    return f"{given:,}" if isinstance(given, int) else _three(given) if math.isfinite(given) else UNKNOWN


_EVIDENCE: Final[tuple[tuple[str, Callable[[float], str]], ...]] = (
    ("_bytes", size),
    ("_per_s", lambda number: f"{_three(number)}/s"),
    ("_ms", lambda number: duration(number / 1000)),
    ("_s", duration),
    ("_h", lambda number: duration(number * 3600)),
    ("_days", lambda number: duration(number * 86_400)),
    ("_percent", lambda number: f"{_three(number)} %"),
)


def unit_free(name: str) -> str:
    """Return a name of evidence for people: its unit stands beside the value."""
    for ending, _ in _EVIDENCE:
        name = name.removesuffix(ending)
    return name.replace("_", " ")


FILTERS: Final = {
    "evidence": evidence,
    "unit_free": unit_free,
    "count": count,
    "short": short,
    "duration": duration,
    "value": value,
    "size": size,
    "ago": ago,
    "ahead": ahead,
    "clock": clock,
    "instant": instant,
    "outcome": outcome,
    "reasons": reasons,
}
