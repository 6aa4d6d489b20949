"""Plans of normalised statements with indexes that do not exist, by HypoPG.

In: a read-only transaction on the target, a statement as pg_stat_statements has it. Out: generic plans and their cost.
Promise: nothing is executed or built; the statement goes as one command, so that no text can hide a second one.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import asyncpg

from database.connect import Connection, is_lost
from database.queries import load
from optimizers.index_sql import quote

STATEMENT: Final = "streamgauge_look"
CONDITIONS: Final = ("Filter", "Join Filter", "Hash Cond", "Merge Cond", "Recheck Cond", "Index Cond", "Sort Key")
_HYPOTHETICAL: Final = re.compile(r"<(\d+)>")
_COLUMN: Final = r'("(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)'


class NotPlanned(Exception):
    """The statement cannot be planned here; the text is the server's."""

    def __init__(self, error: asyncpg.PostgresError) -> None:
        super().__init__(str(error))
        self.is_forbidden = isinstance(error, asyncpg.InsufficientPrivilegeError)


class Index(NamedTuple):
    """Columns of a table, whose partitions get an index each."""

    root: str
    """Quoted as SQL writes it."""
    columns: tuple[str, ...]


class Scan(NamedTuple):
    """A table that a plan reads whole."""

    schema: str
    name: str
    alias: str


@dataclass(frozen=True)
class Plan:
    """What the planner would do."""

    cost: float
    scans: Sequence[Scan]
    conditions: str
    """Text of all conditions and sort keys, columns with their alias."""
    used: Mapping[Index, int] = field(default_factory=dict[Index, int])
    """Hypothetical indexes that it would read, with their size in bytes."""

    def columns_of(self, scan: Scan) -> list[str]:
        """Return the columns of a scanned table that stand in conditions, in their order."""
        alias = scan.alias if re.fullmatch(r"[a-z_][a-z0-9_$]*", scan.alias) else quote(scan.alias)
        found = re.findall(rf'(?<![\w$".]){re.escape(alias)}\.{_COLUMN}', self.conditions)
        return list(dict.fromkeys(name[1:-1].replace('""', '"') if name.startswith('"') else name for name in found))


class Planner:
    """Plans statements on one connection."""

    def __init__(self, connection: Connection, schema: str, relations: Mapping[str, Sequence[str]]) -> None:
        """`schema` of HypoPG, quoted; `relations` are the tables that stand behind each root."""
        self._connection = connection
        self._schema = schema
        self._relations = relations

    async def plan(self, query: str, indexes: Sequence[Index] = ()) -> Plan:
        """Plan a statement as if the indexes existed; NotPlanned says why it cannot be."""
        await self._connection.execute("SAVEPOINT look")
        try:
            made = await self._make(indexes)
            await self._connection.fetch(f"PREPARE {STATEMENT} AS {query}")
            count = await self._connection.fetchval(load("prepared_parameters"), STATEMENT)
            given = f"({', '.join(['NULL'] * count)})" if count else ""
            text = await self._connection.fetchval(f"EXPLAIN (FORMAT JSON, VERBOSE) EXECUTE {STATEMENT}{given}")
        except asyncpg.QueryCanceledError:
            raise
        except asyncpg.PostgresError as error:
            await self._connection.execute("ROLLBACK TO SAVEPOINT look")
            raise NotPlanned(error) from error
        finally:
            await self._forget()
        return _read(json.loads(text)[0]["Plan"], made)

    async def _make(self, indexes: Sequence[Index]) -> dict[int, tuple[Index, int]]:
        made: dict[int, tuple[Index, int]] = {}
        for index in indexes:
            listed = ", ".join(map(quote, index.columns))
            for relation in self._relations[index.root]:
                statement = f"CREATE INDEX ON {relation} ({listed})"
                row = await self._connection.fetchrow(load("hypothetical_index").format(schema=self._schema), statement)
                assert row is not None
                made[row["index_id"]] = (index, row["size_bytes"])
        return made

    async def _forget(self) -> None:
        # Neither prepared statements nor hypothetical indexes go with a rollback.
        if is_lost(self._connection):
            return
        try:
            await self._connection.fetch(load("hypothetical_reset").format(schema=self._schema))
            if await self._connection.fetchval(load("prepared_parameters"), STATEMENT) is not None:
                await self._connection.execute(f"DEALLOCATE {STATEMENT}")
        except asyncpg.InFailedSQLTransactionError:
            return  # cancelled: the check is at its end, and the connection with it


def _read(root: Mapping[str, Any], made: Mapping[int, tuple[Index, int]]) -> Plan:
    scans, conditions, used = list[Scan](), list[str](), dict[Index, int]()
    for node in _nodes(root):
        if node["Node Type"] == "Seq Scan":
            scans.append(Scan(node["Schema"], node["Relation Name"], node["Alias"]))
        for key in CONDITIONS:
            value = node.get(key, "")
            conditions.append(value if isinstance(value, str) else " , ".join(value))
        named = _HYPOTHETICAL.match(node.get("Index Name", ""))
        if named and int(named[1]) in made:
            index, size_bytes = made[int(named[1])]
            used[index] = used.get(index, 0) + size_bytes
    return Plan(root["Total Cost"], scans, " ; ".join(conditions), used)


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)
