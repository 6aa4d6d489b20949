"""Numbers as a person reads them, and the grade that two thresholds give to a value.

In: plain numbers in base units. Out: short texts (`1.2 GB`, `3 d 4 h`, `12.5 %`) and severities.
Promise: pure; no text hides a number of the evidence, which stays beside it in base units.
"""

from typing import Final

from optimizers.check import Severity

MB: Final = 1024.0 * 1024
GB: Final = 1024 * MB

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB")
_SPANS: Final = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def size(value_bytes: float) -> str:
    """Return bytes in the largest unit that leaves at least one whole (1024 to the next)."""
    value = float(value_bytes)
    unit = 0
    while abs(value) >= 1024 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    text = f"{value:.0f}" if value >= 100 else f"{value:.1f}".removesuffix(".0")
    return f"{text} {_UNITS[unit]}"


def setting_size(value_bytes: float) -> str:
    """Return bytes as a PostgreSQL setting takes them: whole MB, GB where it is whole."""
    megabytes = max(1, round(value_bytes / MB))
    return f"{megabytes // 1024}GB" if megabytes % 1024 == 0 else f"{megabytes}MB"


def span(seconds: float) -> str:
    """Return a duration in its two largest units."""
    if abs(seconds) < 10:
        return f"{seconds:.1f} s"
    rest = round(seconds)
    words: list[str] = []
    for unit, width_s in _SPANS:
        whole, rest = divmod(rest, width_s)
        if whole:
            words.append(f"{whole} {unit}")
        elif words:
            break
        if len(words) == 2:
            break
    return " ".join(words)


def count(value: float) -> str:
    """Return a whole number, thousands apart."""
    return f"{round(value):,}".replace(",", " ")


def percent(share: float) -> str:
    """Return a share (1 is all of it) in percent."""
    value = share * 100
    return f"{value:.0f} %" if value >= 10 else f"{value:.1f} %"


def grade(value: float, warn: float, critical: float) -> Severity | None:
    """Return what a value is that is worse the larger it is; None below both thresholds. At a threshold counts."""
    if value >= critical:
        return Severity.CRITICAL
    return Severity.WARN if value >= warn else None


def worst(*grades: Severity | None) -> Severity | None:
    """Return the highest of some grades."""
    order = list(Severity)
    present = [one for one in grades if one is not None]
    return max(present, key=order.index) if present else None
