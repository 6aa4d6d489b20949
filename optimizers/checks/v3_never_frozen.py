"""V3: tables that only grow and that no VACUUM has frozen: the wrap-around VACUUM will have to write all of it.

Reads pg_stat_user_tables, reloptions and the bounds of partitions. Automatic for partitions by time whose range has
ended: they are written once more now, then never again. Everything else is text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity, Tier
from optimizers.families import Family, families, lasting, listed
from optimizers.wording import count, span


@dataclass(frozen=True)
class NeverFrozen:
    """Thresholds of V3."""

    id: ClassVar[str] = "V3"
    title: ClassVar[str] = "inserted rows never frozen"
    timeout_s: ClassVar[float] = 10.0

    min_inserted_rows: float = 1000.0
    """Fewer are not worth a VACUUM; autovacuum's own insert threshold and scale factor are asked as well."""
    age_s_warn: float = 2 * 86_400.0

    async def look(self, look: Look) -> Answer:
        """Look at every table that enough was inserted into."""
        rows = lasting(await look.connection.fetch(load("check_v3_never_frozen"), self.min_inserted_rows), look)
        seen = await look.first_seen([row["name"] for row in rows if row["vacuum_age_s"] is None])
        aged = [{**row, "age_s": _age_s(row, seen, look.now)} for row in rows]
        old = [row for row in aged if row["age_s"] > self.age_s_warn]
        closed = families([(row, Severity.WARN) for row in old if (row["closed_s"] or 0) > 0])
        growing = families([(row, Severity.WARN) for row in old if (row["closed_s"] or 0) <= 0])
        roots = {family.root for family in closed}
        return Answer(
            [_closed(family) for family in closed]
            + [_growing(family, family.rows[0]["name"] if family.root in roots else family.root) for family in growing]
        )


def _age_s(row: Any, seen: Mapping[str, datetime], now: datetime) -> float:
    if row["vacuum_age_s"] is not None:
        return row["vacuum_age_s"]
    return (now - seen.get(row["name"], now)).total_seconds()


def _evidence(family: Family) -> dict[str, Any]:
    return {
        "inserted_rows": sum(row["inserted_rows"] for row in family.rows),
        "trigger_rows": family.rows[0]["trigger_rows"],
        "age_s": family.rows[0]["age_s"],
        "vacuum_age_s": family.rows[0]["vacuum_age_s"],
        "closed_s": family.rows[0]["closed_s"],
        "relations": [row["name"] for row in family.rows][:10],
    }


def _closed(family: Family) -> Finding:
    evidence = _evidence(family)
    sql = f"VACUUM (FREEZE) {listed([row['name'] for row in family.rows])}"
    return Finding(
        object=family.root,
        severity=family.severity,
        recommendation=f"{count(evidence['inserted_rows'])} rows were inserted into {family.text} since any VACUUM, "
        f"and its range ended {span(evidence['closed_s'])} ago: frozen once, no VACUUM has to write it again. {sql}.",
        evidence=evidence,
        sql=sql,
        tier=Tier.AUTOMATIC,
    )


def _growing(family: Family, name: str) -> Finding:
    evidence = _evidence(family)
    return Finding(
        object=name,
        severity=family.severity,
        recommendation=f"{count(evidence['inserted_rows'])} rows were inserted into {family.text} without a VACUUM for "
        f"{span(evidence['age_s'])}; autovacuum should have come at {count(evidence['trigger_rows'])}: see whether it "
        "is off for this table, too slow or always cancelled.",
        evidence=evidence,
        sql=f"VACUUM {listed([row['name'] for row in family.rows])}",
    )
