"""Said: what a signal answers, and the advice that may come with it.

Promise: `insufficient_data` says what is missing and never comes with advice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["ok", "warn", "insufficient_data", "error"]


@dataclass(frozen=True)
class Advice:
    """One recommendation of a signal."""

    target: str
    current: str
    proposed: str
    expected_effect: str
    evidence: Mapping[str, Any]
    """Numbers with units in their names."""
    confidence: Literal["low", "medium", "high"]


@dataclass(frozen=True)
class Said:
    """One signal's answer."""

    signal: str
    status: Status
    detail: str
    advice: tuple[Advice, ...] = ()
    judged: tuple[str, ...] | None = None
    """The targets there was enough data for; advice on others stays as it is. None: all that can be."""


def insufficient(signal: str, missing: str) -> Said:
    """Return the answer of a signal that cannot judge."""
    return Said(signal, "insufficient_data", f"insufficient data: {missing}")
