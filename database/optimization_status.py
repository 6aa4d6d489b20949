"""The state of DatabaseOptimizer as one document: last run, checks, findings, changes, targets.

In: a pool of the monitoring database. Out: plain values, named as /api/monitoring/database-optimization/status has it.
Promise: one snapshot; what nobody has measured is None.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

import asyncpg

from database.connect import Pool, acquire, transaction
from database.queries import load

SHOWN_FINDINGS: Final = 500
SHOWN_ACTIONS: Final = 100
JOB: Final = "run_optimization"

Rows = Sequence[asyncpg.Record]


async def read_status(pool: Pool, findings: int = SHOWN_FINDINGS, actions: int = SHOWN_ACTIONS) -> dict[str, Any]:
    """Return the document, with at most so many findings and changes."""
    async with acquire(pool) as connection, transaction(connection, "REPEATABLE READ READ ONLY"):
        last = await connection.fetchrow(load("optimization_last_run"))
        checks = await connection.fetch(load("optimization_checks"))
        found = await connection.fetch(load("optimization_findings"), findings)
        changes = await connection.fetch(load("optimization_actions"), actions)
        jobs = await connection.fetch(load("list_jobs"))
        targets = [_target(row) for row in await connection.fetch(load("optimization_targets"))]
    own = next((target for target in targets if target["target"] == "monitoring"), None)
    return {
        "last_run": None if last is None else _run(last),
        "next_run": next((row["next_run"] for row in jobs if row["job"] == JOB), None),
        "checks": [_check(row) for row in checks],
        "findings": [_finding(row) for row in found],
        "applied_actions": [_action(row) for row in changes],
        "targets": targets,
        "stats_age_days": own and own["stats_age_days"],
        "nodes_seen": [f"{target['target']}/{node}" for target in targets for node in target["nodes_seen"]],
    }


def _run(row: asyncpg.Record) -> dict[str, Any]:
    interval_s = row["interval_s"]
    took = row["finished_at"] and (row["finished_at"] - row["started_at"]).total_seconds() * 1000
    return {
        "started": row["started_at"],
        "finished": row["finished_at"],
        "duration_ms": took,
        "status": row["status"],
        "skipped_reason": row["skipped_reason"],
        "statement_ms": row["statement_s"] * 1000,
        "database_time_share": row["statement_s"] / interval_s if interval_s and row["finished_at"] else None,
        "connections": row["connections"],
    }


def _check(row: asyncpg.Record) -> dict[str, Any]:
    same = {name: row[name] for name in ("target", "title", "status", "at", "findings", "detail")}
    return same | {"id": row["check_id"], "duration_ms": row["duration_s"] * 1000, "error": row["error_kind"]}


def _finding(row: asyncpg.Record) -> dict[str, Any]:
    return {**row, "check": row["check_id"], "evidence": json.loads(row["evidence"])}


def _action(row: asyncpg.Record) -> dict[str, Any]:
    return {
        **row,
        "finished": row["finished_at"],
        "check": row["check_id"],
        "before": json.loads(row["before"]),
        "after": row["after"] and json.loads(row["after"]),
    }


def _target(row: asyncpg.Record) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(row["facts"])
    age_s = row["stats_age_s"]
    return {
        "target": row["target"],
        "seen_at": row["seen_at"],
        "observed_since": row["observed_since"],
        "stats_age_days": None if age_s is None else age_s / 86_400,
        "version": facts.get("version"),
        "has_pg_stat_statements": facts.get("has_pg_stat_statements"),
        "has_hypopg": facts.get("has_hypopg"),
        "nodes_seen": facts.get("nodes_seen", []),
        "nodes_unseen": facts.get("nodes_unseen", []),
        "error": facts.get("error"),
    }
