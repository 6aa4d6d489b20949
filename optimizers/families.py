"""Relations under the table they are partitions of, so that a finding names what a person knows.

In: rows of a check (`name` and `root`, quoted as SQL writes them) with their severities, the worst first.
Out: one family per root. Promise: a table that is no partition is a family of its own.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from database.partitions import PARTS
from optimizers.check import Look, Severity
from optimizers.wording import worst

MOST_NAMED: Final = 20
"""Relations in one statement; the next run names the others."""


class Family(NamedTuple):
    """A table, or the partitions of one that are ill."""

    root: str
    severity: Severity
    rows: Sequence[Any]

    @property
    def text(self) -> str:
        """How a sentence names it."""
        if len(self.rows) == 1 and self.rows[0]["name"] == self.root:
            return self.root
        return f"{len(self.rows)} partition{'s'[: len(self.rows) > 1]} of {self.root} ({self.rows[0]['name']} first)"


def lasting(rows: Iterable[Any], look: Look) -> list[Any]:
    """Return rows without the partitions of our own parts: compaction drops them minutes after they were written."""
    return [row for row in rows if not (look.is_monitoring and row["root"].endswith(f".{PARTS.parent}"))]


def families(graded: Iterable[tuple[Any, Severity]]) -> list[Family]:
    """Put rows with the same root together; order is kept."""
    found: dict[str, list[tuple[Any, Severity]]] = {}
    for row, severity in graded:
        found.setdefault(row["root"], []).append((row, severity))
    return [
        Family(root, worst(*(severity for _, severity in members)) or Severity.INFO, [row for row, _ in members])
        for root, members in found.items()
    ]


def listed(names: Sequence[str]) -> str:
    """Return names as the list of relations of one VACUUM or ANALYZE."""
    return ", ".join(names[:MOST_NAMED])
