"""Report: every verdict, for a person or a program; the exit code that a pipeline of deployments wants.

Promise: `skip` is counted apart and never as a pass; 1 when something critical fails or a check broke, else 0.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from streamgauge.hardening.rule import Status, Verdict

MARKS = {Status.PASS: "pass ", Status.FAIL: "FAIL ", Status.SKIP: "skip ", Status.ERROR: "ERROR"}


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """Return 1 when a critical rule fails or any check broke."""
    bad = (one.status is Status.ERROR or (one.status is Status.FAIL and one.severity == "critical") for one in verdicts)
    return int(any(bad))


def as_json(verdicts: Sequence[Verdict]) -> str:
    """Return one JSON object."""
    counts = Counter(one.status.value for one in verdicts)
    found = {"ok": exit_code(verdicts) == 0, "counts": dict(counts), "rules": [asdict(one) for one in verdicts]}
    return json.dumps(found, indent=2)


def as_text(verdicts: Sequence[Verdict]) -> str:
    """Return a line a rule, what to do below those that fail, and the counts."""
    lines: list[str] = []
    width = max((len(one.id) for one in verdicts), default=0) + 1
    for one in verdicts:
        lines.append(f"{one.id:<{width}}{one.severity:<9}{MARKS[one.status]}  {one.evidence}")
        if one.status in (Status.FAIL, Status.ERROR):
            lines.append(f"{'':<{width + 16}}fix: {one.fix}")
    counts = Counter(one.status for one in verdicts)
    lines.append(", ".join(f"{counts[status]} {status.value}" for status in Status))
    return "\n".join(lines)
