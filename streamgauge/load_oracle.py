"""Oracle: what a load generator is about to emit, written down outside the library, and compared afterwards.

In: bursts of (series key, value). Out: one JSON line per series and burst, on disk before the burst is emitted.
Promise: a line counts what was meant, whatever became of the process; `compare` finds each series whose stored
totals differ from the sum of the lines: counts and `le` counts exactly, sums within 1e-9 relative.
"""

import json
import os
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

SUM_TOLERANCE: Final = 1e-9


@dataclass(slots=True)
class Expected:
    """What a series should hold. `le`: counts per bound, not cumulative, +Inf last; empty for a counter."""

    n: int = 0
    sum: float = 0.0
    le: list[int] = field(default_factory=list[int])

    def add(self, n: int, total: float, le: Sequence[int]) -> None:
        """Add another count of the same series."""
        self.n += n
        self.sum += total
        if len(self.le) < len(le):
            self.le.extend([0] * (len(le) - len(self.le)))
        for i, count in enumerate(le):
            self.le[i] += count


class Difference(NamedTuple):
    """One disagreement: of which series, in what (`n`, `sum`, `le`), what was meant and what is stored."""

    key: str
    what: str
    expected: object
    stored: object

    def __str__(self) -> str:
        return f"{self.key}: {self.what} should be {self.expected} and is {self.stored}"


class OracleWriter:
    """Appends the lines of one process to its own file; `write` returns after fsync."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write(self, burst: Iterable[tuple[str, float, Sequence[float] | None]]) -> None:
        """Note (key, value, bounds of its histogram or None) of every event of a burst."""
        lines: dict[str, Expected] = {}
        for key, value, bounds in burst:
            line = lines.get(key)
            if line is None:
                line = lines[key] = Expected(le=[0] * (len(bounds) + 1) if bounds is not None else [])
            line.n += 1
            line.sum += value
            if bounds is not None:
                line.le[bisect_left(bounds, value)] += 1
        text = "".join(f"{json.dumps([key, x.n, x.sum, x.le])}\n" for key, x in lines.items())
        os.write(self._fd, text.encode())
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def read_oracle(files: Iterable[Path | str]) -> dict[str, Expected]:
    """Add up the lines of all files; a last line that a kill cut off was never followed by its burst."""
    expected: dict[str, Expected] = {}
    for file in files:
        for line in Path(file).read_text().splitlines(keepends=True):
            if not line.endswith("\n"):
                continue
            key, n, total, le = json.loads(line)
            expected.setdefault(key, Expected()).add(n, total, le)
    return expected


def compare(expected: dict[str, Expected], stored: dict[str, Expected]) -> list[Difference]:
    """Return every difference, by series; a stored series that was never meant is one too."""
    found: list[Difference] = []
    for key in sorted(expected.keys() | stored.keys()):
        meant, kept = expected.get(key, Expected()), stored.get(key, Expected())
        if meant.n != kept.n:
            found.append(Difference(key, "n", meant.n, kept.n))
        if abs(meant.sum - kept.sum) > SUM_TOLERANCE * max(abs(meant.sum), abs(kept.sum)):
            found.append(Difference(key, "sum", meant.sum, kept.sum))
        if meant.le != kept.le:
            found.append(Difference(key, "le", meant.le, kept.le))
        if meant.le and sum(kept.le) != kept.n:
            found.append(Difference(key, "le in all", kept.n, sum(kept.le)))
    return found
