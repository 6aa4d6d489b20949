"""Rule: one thing that must hold, and how it is found out.

In: a Files or a Live. Out: a Verdict. Promise: what a check raises becomes its verdict, never an end of the whole.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from streamgauge.hardening.files import Files, MissingFile
from streamgauge.hardening.live import Live, Skip

Severity = Literal["critical", "warning", "info"]
Faults = Iterable[str]
"""What is wrong, a sentence each; nothing: the rule holds."""

SHOWN: Final = 5


class Status(StrEnum):
    """How a rule came out."""

    PASS = "pass"  # noqa: S105 (no password)
    FAIL = "fail"
    SKIP = "skip"
    ERROR = "error"


class Rule(NamedTuple):
    """`static` looks at files, `live` at what runs; one of them may be missing."""

    id: str
    severity: Severity
    holds: str
    """What must hold."""
    fix: str
    static: Callable[[Files], Faults] | None = None
    live: Callable[[Live], Awaitable[Faults]] | None = None


@dataclass(frozen=True)
class Verdict:
    """What is said of one rule."""

    id: str
    severity: Severity
    status: Status
    evidence: str
    fix: str


def judge_files(rule: Rule, files: Files) -> Verdict:
    """Check a rule on files."""
    if rule.static is None:
        return _verdict(rule, Status.SKIP, "files do not tell: check what runs")
    try:
        return _told(rule, list(rule.static(files)))
    except MissingFile as error:
        return _verdict(rule, Status.FAIL, f"{error} is missing")
    except Exception as error:  # noqa: BLE001 (whatever a check raises is its verdict)
        return _failed(rule, error)


async def judge_live(rule: Rule, live: Live) -> Verdict:
    """Check a rule on what runs."""
    if rule.live is None:
        return _verdict(rule, Status.SKIP, "what runs does not tell: check the files")
    try:
        return _told(rule, list(await rule.live(live)))
    except Exception as error:  # noqa: BLE001 (whatever a check raises is its verdict)
        return _failed(rule, error)


def _told(rule: Rule, faults: list[str]) -> Verdict:
    if not faults:
        return _verdict(rule, Status.PASS, rule.holds)
    more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return _verdict(rule, Status.FAIL, "; ".join(faults[:SHOWN]) + more)


def _failed(rule: Rule, error: Exception) -> Verdict:
    if isinstance(error, Skip):
        return _verdict(rule, Status.SKIP, str(error))
    # The text of a driver's error may hold an address with its password.
    return _verdict(rule, Status.ERROR, f"the check broke: {type(error).__name__}")


def _verdict(rule: Rule, status: Status, evidence: str) -> Verdict:
    return Verdict(rule.id, rule.severity, status, evidence, "" if status is Status.PASS else rule.fix)
