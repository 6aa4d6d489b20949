"""Statements of a target as pg_stat_statements counts them, and what was added in an hour.

In: a look. Out: per queryid counters, text and roles; deltas in which an entry that was thrown out is left out.
Promise: absence of the extension, or of the right to see queries, is said as Unsupported.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

import asyncpg

from database.queries import load
from optimizers.check import Look, Unsupported

EXTENSION: Final = "pg_stat_statements"
SHOWN_CHARACTERS: Final = 500
_PLANNED: Final = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:SELECT|WITH|UPDATE|DELETE)\b", re.IGNORECASE | re.DOTALL)
COUNTERS: Final = ("calls", "total_ms", "rows", "blocks_read", "temp_blocks")


class Statement(NamedTuple):
    """One normalised statement."""

    queryid: str
    query: str
    roles: list[str]
    counters: dict[str, float]

    @property
    def shown(self) -> str:
        """Its text on one line, cut."""
        text = re.sub(r"\s+", " ", self.query).strip()
        return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"

    @property
    def is_planned(self) -> bool:
        """Whether the planner has a choice: it reads rows."""
        return _PLANNED.match(self.query) is not None


class Spent(NamedTuple):
    """What statements did in an interval."""

    hours: float
    by_id: Mapping[str, Mapping[str, float]]

    @property
    def total_ms(self) -> float:
        """Time of all statements."""
        return sum(each["total_ms"] for each in self.by_id.values())


def require_extension(look: Look) -> None:
    """Raise Unsupported unless pg_stat_statements is there."""
    if EXTENSION not in look.extensions:
        raise Unsupported("pg_stat_statements is not there: add it to shared_preload_libraries and CREATE EXTENSION it")


async def read_statements(look: Look) -> dict[str, Statement]:
    """Return the statements of the target's database by queryid."""
    require_extension(look)
    rows = await look.connection.fetch(load("statements"))
    if any(row["queryid"] is None for row in rows):
        raise Unsupported("the role may not see statements of others: GRANT pg_monitor to it")
    return {row["queryid"]: _statement(row) for row in rows}


async def statements_if_any(look: Look) -> dict[str, Statement]:
    """Return the statements for a check that is glad of them but works without."""
    try:
        return await read_statements(look)
    except Unsupported:
        return {}


def _statement(row: asyncpg.Record) -> Statement:
    return Statement(row["queryid"], row["query"] or "", row["roles"], {name: row[name] for name in COUNTERS})


async def spent_since(look: Look, statements: Mapping[str, Statement]) -> Spent | None:
    """Return what the statements did since about an hour ago; None where nobody can tell yet."""
    epoch = await look.connection.fetchval(load("statements_epoch"))
    counters = {name: each.counters for name, each in statements.items()}
    interval = await look.since("statements", counters, epoch or "", is_complete=True)
    return None if interval is None else Spent(interval.hours, interval.deltas)
