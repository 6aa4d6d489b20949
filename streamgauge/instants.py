"""Instants as a person writes them: `2026-01-31T12:00:00Z`, Unix seconds, `now`, or a time ago such as `15m`.

In: text and the present. Out: Unix seconds. Promise: text that is no instant is a ValueError that quotes it; a time
without a zone is UTC.
"""

from datetime import UTC, datetime
from math import ceil

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_instant(text: str, now_s: float) -> int:
    """Return Unix seconds."""
    if text == "now":
        return ceil(now_s)
    # The minus may be left out: argparse would read it as an option.
    ago = text.removeprefix("-")
    if ago[:-1].isdigit() and ago[-1] in _UNITS_S:
        return int(now_s) - int(ago[:-1]) * _UNITS_S[ago[-1]]
    if text.isdigit():
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no instant: give 2026-01-31T12:00:00Z, Unix seconds, now or 15m (ago)") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
