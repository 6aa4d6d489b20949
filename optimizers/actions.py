"""Acting on findings: the automatic tier in the monitoring database, and one opt-in finding when a person says so.

In: findings as stored, and a connection that may change things. Out: changes, noted before and after they are made.
Promise: nothing runs by itself but ANALYZE, plain VACUUM, the making of partitions and the configured retention.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import asyncpg

from contract.errors import error_text
from database import optimization, partitions, retention
from database.connect import AWAY, SCHEMA, Connection, is_lost
from database.partitions import Partition
from database.queries import load
from optimizers.check import Remedy
from optimizers.settings import OptimizerSettings

log = logging.getLogger(__name__)

MAX_AUTOMATIC: Final = 20
"""Changes a run makes by itself; the rest is for the next run."""
AUTOMATIC_TIMEOUT_S: Final = 300
"""Of one such change; a person may let it take longer."""

_NAME: Final = r'(?:[a-z_][a-z0-9_$]*|"(?:[^"\x00]|"")+")'
_RELATION: Final = rf"{_NAME}(?:\.{_NAME})?"
_AUTOMATIC: Final = re.compile(
    r"(?:ANALYZE|VACUUM(?: \((?:ANALYZE|FREEZE|FREEZE, ANALYZE|ANALYZE, FREEZE)\))?) "
    rf"(?P<first>{_RELATION})(?:, {_RELATION})*"
)

Row = Mapping[str, Any]
Due = tuple[str, Partition]
"""A partition beyond its retention, and its level."""


class Busy(TimeoutError):
    """The upkeep is at work: it does the same."""


class PassedOver(PermissionError):
    """PostgreSQL did nothing and called it a success: before 17 VACUUM and ANALYZE are the owner's alone."""


def is_automatic(sql: str) -> bool:
    """Whether a statement is one that may run unasked."""
    return _AUTOMATIC.fullmatch(sql) is not None


async def act(
    store: Connection,
    connection: Connection,
    settings: OptimizerSettings,
    findings: Sequence[Row],
    left_s: Callable[[], float],
) -> int:
    """Act on findings of the automatic tier in the monitoring database; returns how many changes were made.

    A statement may take what is left of the run's share of database time: a VACUUM that needs longer is autovacuum's.
    """
    done = 0
    for finding in findings[:MAX_AUTOMATIC]:
        if left_s() <= 0 or is_lost(connection):
            break
        limit_ms = max(int(min(left_s(), AUTOMATIC_TIMEOUT_S) * 1000), 1)
        await connection.execute(f"SET statement_timeout = {limit_ms}")
        if finding["remedy"] == Remedy.SQL and finding["sql"] is None:
            continue
        if finding["remedy"] == Remedy.SQL and not is_automatic(finding["sql"]):
            log.error("action_refused", extra={"check": finding["check_id"], "sql": finding["sql"]})
            continue
        done += await change(store, connection, settings, finding) is None
    return done


async def change(store: Connection, connection: Connection, settings: OptimizerSettings, finding: Row) -> str | None:
    """Make one change and note it; returns the error, None when it was made."""
    sql, parts = finding["sql"] or f"-- upkeep: {finding['remedy']}", list[Due]()
    if finding["remedy"] == Remedy.RETENTION:
        parts = await _due(connection, settings)
        sql += f", drops {', '.join(part.name for _, part in parts) or 'nothing'}"
    action = await optimization.begin_action(store, finding, sql, await _state(connection, finding))
    error: str | None = None
    try:
        await _remedy(connection, settings, finding, parts)
    except AWAY as failure:
        error = f"{type(failure).__name__}: {failure}"[:500]
        log.warning("action_failed", extra={"check": finding["check_id"], "sql": sql, "error": error})
    after = None if is_lost(connection) else await _state(connection, finding)
    await optimization.end_action(store, action, after, error)
    return error


async def _due(connection: Connection, settings: OptimizerSettings) -> list[Due]:
    """Return what retention would drop: it is written down before anything is."""
    try:
        await connection.execute(f"SET search_path = {SCHEMA}")
        return await retention.due(connection, settings)
    except AWAY as error:
        log.warning("retention_unread", extra={"error": error_text(error)})
        return []


async def _remedy(connection: Connection, settings: OptimizerSettings, finding: Row, parts: Sequence[Due]) -> None:
    if finding["remedy"] == Remedy.SQL:
        await _execute(connection, finding["sql"])
        return
    await connection.execute(f"SET search_path = {SCHEMA}")
    if not await connection.fetchval(load("upkeep_lock")):
        raise Busy("the upkeep is at work")
    try:
        if finding["remedy"] == Remedy.PARTITIONS:
            await partitions.ensure(connection)
        else:
            # What the upkeep dropped meanwhile is gone, and what has become due since was not written down.
            still = await retention.due(connection, settings)
            await retention.drop(connection, [part for part in parts if part in still])
    finally:
        if not is_lost(connection):
            await connection.fetchval(load("upkeep_unlock"))


async def _execute(connection: Connection, sql: str) -> None:
    warnings: list[str] = []

    def note(_: object, message: asyncpg.PostgresLogMessage) -> None:
        warnings.append(message.as_dict().get("message", ""))

    connection.add_log_listener(note)
    try:
        await connection.execute(sql)
    finally:
        if not is_lost(connection):
            connection.remove_log_listener(note)
    skipped = next((warning for warning in warnings if "skipping" in warning), None)
    if skipped is not None:
        raise PassedOver(skipped)


def _relation(finding: Row) -> str:
    """Return the relation a finding is about: the first of its statement, else its object without columns."""
    named = _AUTOMATIC.fullmatch(finding["sql"] or "")
    return named["first"] if named else str(finding["object"]).partition(" (")[0]


async def _state(connection: Connection, finding: Row) -> dict[str, Any]:
    """Return what can be said of the finding's object now; empty for what is no relation or is gone."""
    try:
        row = await connection.fetchrow(load("table_state"), _relation(finding))
    except AWAY:
        # An object may be a setting or a sentence: to_regclass refuses what is no name.
        row = None
    return {} if row is None else {key: value for key, value in row.items() if value is not None}
