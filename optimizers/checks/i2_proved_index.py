"""I2: indexes that would halve the cost of a statement, proved by its plan with the index pretended.

Reads pg_stat_statements (the costliest statements of an hour) and plans by HypoPG; each statement gets at most two
indexes, a second column only where it halves the cost again. Opt-in: an index costs every write and its room on disk.
Method: dexter's, with generic plans, since the values of the statements are not known.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import asyncpg

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity, Tier, Unsupported
from optimizers.hypothetical import Index, NotPlanned, Plan, Planner
from optimizers.index_sql import create_index
from optimizers.statements import Spent, Statement, read_statements, spent_since
from optimizers.wording import size


@dataclass
class Gain:
    """An index and the statements it would help."""

    size_bytes: int
    queries: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


@dataclass(frozen=True)
class Tables:
    """Tables that an index could serve, by root and by (schema, name)."""

    rows: Sequence[asyncpg.Record]

    def of(self, schema: str, name: str) -> asyncpg.Record | None:
        """Return a table, None if it is too small to matter."""
        return next((row for row in self.rows if (row["schema_name"], row["bare_name"]) == (schema, name)), None)

    @property
    def relations(self) -> dict[str, list[str]]:
        """The tables behind each root."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            found.setdefault(row["root"], []).append(row["name"])
        return found

    def has(self, index: Index) -> bool:
        """Whether an index that there is begins with these columns."""
        width = len(index.columns)
        return any(
            tuple(columns[:width]) == index.columns
            for row in self.rows
            if row["root"] == index.root
            for columns in json.loads(row["indexed"])
        )


@dataclass(frozen=True)
class ProvedIndex:
    """Thresholds of I2."""

    id: ClassVar[str] = "I2"
    title: ClassVar[str] = "missing index, proved"
    timeout_s: ClassVar[float] = 30.0

    statements: int = 20
    """The costliest of an hour."""
    calls_per_hour: float = 10.0
    mean_ms: float = 1.0
    rows: int = 10_000
    """Of a table."""
    saving: float = 0.5
    """Of the statement's cost."""
    second_column_cost: float = 100.0
    """Where a first column leaves more, a second one is tried."""
    indexes_per_statement: int = 2
    candidates: int = 12
    """Columns tried for a statement."""

    async def look(self, look: Look) -> Answer:
        """Return the indexes that are worth it, those that help most first."""
        if "hypopg" not in look.extensions:
            raise Unsupported("HypoPG is not there: install it and CREATE EXTENSION hypopg; I1 names tables without it")
        statements = await read_statements(look)
        spent = await spent_since(look, statements)
        if spent is None:
            return Answer(insufficient="no hour of statement counters yet")
        tables = Tables(await look.connection.fetch(load("check_i2_tables"), float(self.rows)))
        schema = await look.connection.fetchval(load("hypothetical_schema"))
        await look.connection.execute(
            f"SET LOCAL search_path = {look.search_path}; SET LOCAL plan_cache_mode = force_generic_plan"
        )
        planner = Planner(look.connection, schema, tables.relations)
        chosen = self._costly(statements, spent)
        gains, refusals = await self._gains(planner, tables, chosen, spent)
        hidden = f"{len(refusals)} of {len(chosen)} statements: {refusals[0]}" if refusals else None
        findings = [_finding(index, gains[index], tables, look) for index in sorted(gains, key=_worth(gains))]
        return Answer(findings, insufficient=hidden)

    def _costly(self, statements: Mapping[str, Statement], spent: Spent) -> list[Statement]:
        def is_worth(name: str) -> bool:
            each = spent.by_id[name]
            is_often = each["calls"] >= self.calls_per_hour * spent.hours
            return is_often and each["total_ms"] >= self.mean_ms * each["calls"] and statements[name].is_planned

        names = sorted(filter(is_worth, spent.by_id), key=lambda name: -spent.by_id[name]["total_ms"])
        return [statements[name] for name in names[: self.statements]]

    async def _gains(
        self, planner: Planner, tables: Tables, chosen: Sequence[Statement], spent: Spent
    ) -> tuple[dict[Index, Gain], list[str]]:
        gains, refusals = dict[Index, Gain](), list[str]()
        for statement in chosen:
            try:
                before = await planner.plan(statement.query)
                after = await self._best(planner, tables, statement.query, before)
            except NotPlanned as why:
                # Others are not planned because values decide their types; that is no fault.
                refusals += [str(why)] if why.is_forbidden else []
                continue
            for index, size_bytes in after.used.items() if after else ():
                gain = gains.setdefault(index, Gain(size_bytes))
                gain.queries.append(_proof(statement, spent, before, after))
        # (a, b) serves what (a) would.
        longer = {(index.root, index.columns[:1]) for index in gains if len(index.columns) > 1}
        return {
            i: gain for i, gain in gains.items() if len(i.columns) > 1 or (i.root, i.columns) not in longer
        }, refusals

    async def _best(self, planner: Planner, tables: Tables, query: str, before: Plan) -> Plan | None:
        """Return the best plan with hypothetical indexes; None where none is worth it."""
        candidates = self._candidates(tables, before)
        if not candidates:
            return None
        wide = await planner.plan(query, candidates)
        if not wide.used:
            return None
        alone = [await planner.plan(query, [index]) for index in wide.used]
        best = min(alone, key=lambda plan: plan.cost)
        if best.cost > self.second_column_cost:
            best = await self._better(planner, query, best, _longer(best, candidates))
        if self.indexes_per_statement > 1:
            more = [[*best.used, other] for other in wide.used if other not in best.used]
            best = await self._better(planner, query, best, more)
        return best if best.cost <= (1 - self.saving) * before.cost else None

    async def _better(self, planner: Planner, query: str, best: Plan, sets: Sequence[Sequence[Index]]) -> Plan:
        """Return the cheapest plan among sets of indexes that each save as much again, else the best so far."""
        plans = [await planner.plan(query, indexes) for indexes in sets]
        good = [plan for plan in plans if plan.cost <= (1 - self.saving) * best.cost]
        return min(good, key=lambda plan: plan.cost, default=best)

    def _candidates(self, tables: Tables, plan: Plan) -> list[Index]:
        found: dict[Index, None] = {}
        for scan in plan.scans:
            table = tables.of(scan.schema, scan.name)
            if table is not None:
                columns = [name for name in plan.columns_of(scan) if name in table["columns"]]
                found |= dict.fromkeys(Index(table["root"], (name,)) for name in columns)
        return [index for index in found if not tables.has(index)][: self.candidates]


def _longer(plan: Plan, candidates: Sequence[Index]) -> list[list[Index]]:
    """Return the plan's index with each other candidate column of its table behind it."""
    return [
        [Index(index.root, index.columns + second.columns)]
        for index in plan.used
        for second in candidates
        if second.root == index.root and second.columns != index.columns
    ]


def _worth(gains: Mapping[Index, Gain]) -> Any:
    def saved(index: Index) -> float:
        return -sum((q["cost_before"] - q["cost_after"]) * q["calls_per_hour"] for q in gains[index].queries)

    return saved


def _proof(statement: Statement, spent: Spent, before: Plan, after: Plan | None) -> dict[str, Any]:
    counters = spent.by_id[statement.queryid]
    return {
        "queryid": statement.queryid,
        "query": statement.shown,
        "calls_per_hour": counters["calls"] / spent.hours,
        "mean_ms": counters["total_ms"] / counters["calls"],
        "cost_before": before.cost,
        "cost_after": after.cost if after else before.cost,
    }


def _finding(index: Index, gain: Gain, tables: Tables, look: Look) -> Finding:
    rows = [row for row in tables.rows if row["root"] == index.root]
    is_partitioned = any(row["is_partition"] for row in rows)
    sql, rollback = create_index(
        rows[0]["root_schema"], rows[0]["root_name"], index.columns, is_partitioned=is_partitioned
    )
    writes = sum(row["writes"] for row in rows) / look.stats_age_s * 3600 if look.stats_age_s else None
    best = max(gain.queries, key=lambda query: query["cost_before"] - query["cost_after"])
    paid = "" if writes is None else f", {writes:.0f} writes/h on the table"
    locks = " The table is partitioned: writers wait while it is built." if is_partitioned else ""
    columns = ", ".join(index.columns)
    return Finding(
        object=f"{index.root} ({columns})",
        severity=Severity.WARN,
        recommendation=(
            f"An index on {index.root} ({columns}) takes the cost of query {best['queryid']} from "
            f"{best['cost_before']:.0f} to {best['cost_after']:.0f} ({len(gain.queries)} of the costliest statements "
            f"gain); about {size(gain.size_bytes)}{paid}.{locks}"
        ),
        evidence={"queries": gain.queries, "size_bytes": gain.size_bytes, "writes_per_hour": writes},
        sql=sql,
        rollback=rollback,
        tier=Tier.NEVER if is_partitioned else Tier.OPT_IN,
    )
