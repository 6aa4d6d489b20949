"""P2: rows in a default partition: no partition can be made for their range before they are moved.

Reads one row of each default partition, where the role may: statistics of it are estimates. Never automatic. An empty
default partition is silent.
"""

from dataclasses import dataclass
from typing import ClassVar

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity


@dataclass(frozen=True)
class DefaultPartition:
    """P2 has no thresholds."""

    id: ClassVar[str] = "P2"
    title: ClassVar[str] = "rows in a default partition"
    timeout_s: ClassVar[float] = 10.0

    async def look(self, look: Look) -> Answer:
        """Look into every default partition."""
        rows = await look.connection.fetch(load("check_p2_default_partitions"))
        found = [
            _finding(row["name"], row["parent"])
            for row in rows
            if row["is_readable"]
            and await look.connection.fetchval(load("check_p2_has_rows").format(table=row["name"]))
        ]
        hidden = [row["name"] for row in rows if not row["is_readable"]]
        return Answer(found, f"{', '.join(hidden[:5])} may not be read: grant the role SELECT" if hidden else None)


def _finding(name: str, parent: str) -> Finding:
    return Finding(
        object=name,
        severity=Severity.WARN,
        recommendation=f"The default partition {name} of {parent} holds rows: a partition for their range cannot be "
        "attached while they are there. Move them to a table of that range, then attach it.",
        evidence={"parent": parent},
        sql=f"SELECT * FROM {name} LIMIT 100",  # noqa: S608 - a name that PostgreSQL quoted, to be copied
    )
