"""What DatabaseOptimizer keeps: its runs, answers of checks, findings through their states, changes it made.

In: a connection or pool of the monitoring database. Out: rows, and the status that the exporter shows.
Promise: a finding is published after so many runs in a row, and resolved after so many without it; a check that
could not look changes no finding.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from database.connect import Connection, transaction
from database.queries import load

LOCK_CLASS: Final = 0x5347_4F50  # "SGOP"

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Answered:
    """One check's answer, ready to be stored."""

    target: str
    check_id: str
    title: str
    at: datetime
    duration_s: float
    findings: Sequence[Json] = ()
    """At most as many as are kept: fingerprint, object, severity, evidence, recommendation, sql, …"""
    fingerprints: Sequence[str] = ()
    """Of all that was found."""
    insufficient: str | None = None
    error_kind: str | None = None
    detail: str | None = None


async def try_lock(connection: Connection) -> bool:
    """Take the optimizer's lock until the connection goes back to its pool; False if somebody else has it."""
    return bool(await connection.fetchval(load("optimizer_lock"), LOCK_CLASS))


async def begin(connection: Connection) -> int:
    """Note the beginning of a run; the caller holds the lock."""
    return int(await connection.fetchval(load("optimizer_begin")))


async def end(connection: Connection, run_id: int, status: str, statement_s: float, connections: int) -> None:
    """Note the end of a run and its cost."""
    await connection.execute(load("optimizer_end"), run_id, status, statement_s, connections)
    await connection.execute(load("prune_optimization"))


async def skip(connection: Connection, reason: str) -> None:
    """Note a run that did not take place."""
    await connection.execute(load("optimizer_skip"), reason)


async def note_target(
    connection: Connection, target: str, epoch: str | None, stats_age_s: float | None, facts: Json
) -> None:
    """Note what a target said of itself; `epoch` None: it did not answer."""
    await connection.execute(load("note_target"), target, epoch, stats_age_s, encode(facts))


async def forget_others(connection: Connection, targets: Sequence[str], checks: Sequence[str]) -> None:
    """Resolve and forget what belongs to targets or checks that are gone."""
    await connection.execute(load("forget_targets"), targets, checks)


async def last_looks(connection: Connection, target: str) -> dict[str, datetime]:
    """Return when each check last answered."""
    return {row["check_id"]: row["at"] for row in await connection.fetch(load("last_looks"), target)}


async def store_answer(connection: Connection, answer: Answered, open_after: int, resolve_after: int) -> None:
    """Keep a check's answer and move its findings through their states, in one transaction."""
    status = "insufficient_data" if answer.insufficient else "ok"
    key = (answer.target, answer.check_id)
    async with transaction(connection):
        if not answer.error_kind:
            await connection.execute(
                load("store_findings"),
                *key,
                answer.at,
                encode(answer.findings),
                answer.fingerprints,
                open_after,
                resolve_after,
                answer.insufficient is None,
            )
        await connection.execute(
            load("store_check_result"),
            *key,
            answer.title,
            answer.at,
            status,
            answer.duration_s,
            len(answer.fingerprints),
            answer.error_kind,
            answer.detail or answer.insufficient,
        )


async def find(connection: Connection, fingerprint: str) -> list[asyncpg.Record]:
    """Return the finding whose fingerprint begins so; two when that is not enough to tell."""
    return await connection.fetch(load("find_finding"), fingerprint)


async def begin_action(connection: Connection, finding: Json, sql: str, before: Json) -> int:
    """Note a change before it is made: a process that dies in it leaves it visible."""
    key = (finding["target"], finding["check_id"], finding["fingerprint"], finding["tier"])
    found = await connection.fetchval(load("begin_action"), *key, sql, finding["rollback"], encode(before))
    return int(found)


async def end_action(connection: Connection, action_id: int, after: Json | None, error: str | None) -> None:
    """Note how a change ended."""
    await connection.execute(load("end_action"), action_id, None if after is None else encode(after), error)


def encode(value: object) -> str:
    """Return JSON of rows and evidence: times as ISO 8601, numeric as float."""
    return json.dumps(value, default=_encode_other, allow_nan=False)


def _encode_other(value: Any) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return float(value)
