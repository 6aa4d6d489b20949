"""P2: rows in a default partition: no partition can be made for their range before they are moved.

Reads one row of each default partition, where the role may: statistics of it are estimates. Never automatic, and not
opt-in: while rows are moved in batches nobody finds them in their table, and foreign keys that point at it would refuse
the move or follow it. An empty default partition is silent.
"""

from dataclasses import dataclass
from typing import ClassVar, Final

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity

BATCH: Final = 10_000
"""Rows moved by one statement."""


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
            _finding(row["name"], row["parent"], row["key"])
            for row in rows
            if row["is_readable"]
            and await look.connection.fetchval(load("check_p2_has_rows").format(table=row["name"]))
        ]
        hidden = [row["name"] for row in rows if not row["is_readable"]]
        return Answer(found, f"{', '.join(hidden[:5])} may not be read: grant the role SELECT" if hidden else None)


def _finding(name: str, parent: str, key: str | None) -> Finding:
    return Finding(
        object=name,
        severity=Severity.WARN,
        recommendation=f"The default partition {name} of {parent} holds rows: a partition for their range cannot be "
        "attached while they are there. Move them to a table of that range, then attach it; until then they are not in "
        f"{parent}. See first which foreign keys point at it.",
        evidence={"parent": parent, "key": key},
        sql=f"SELECT * FROM {name} LIMIT 100" if key is None else _mover(name, parent, key),  # noqa: S608 - to be copied
    )


def _mover(name: str, parent: str, key: str) -> str:
    """Return what psql runs once its three variables are set; names are as PostgreSQL quoted them."""
    chosen = f"SELECT ctid FROM {name} WHERE {key} >= :'from' AND {key} < :'to' LIMIT {BATCH}"  # noqa: S608
    return f"""-- \\set new ... \\set from ... \\set to ...: a table to be made, and the range of its partition
CREATE TABLE :"new" (LIKE {parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
-- again and again until it moves none:
WITH batch AS (DELETE FROM {name} WHERE ctid = ANY (ARRAY({chosen})) RETURNING *)
INSERT INTO :"new" SELECT * FROM batch;
ALTER TABLE {parent} ATTACH PARTITION :"new" FOR VALUES FROM (:'from') TO (:'to');"""  # noqa: S608 - to be copied
