"""Upkeep: everything the store needs regularly, as one function.

In: pool and settings. Out: partitions ahead, closed minutes compacted, levels rolled up, old data archived.
Promise: once at a time in a schema; an error in one step is logged and reported and does not stop the others.
"""

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from contract.errors import error_text
from contract.sketch import SketchError
from database import partitions, retention, rollup
from database.connect import AWAY, Connection, Pool, acquire, is_failover, is_lost
from database.load_runs import list_runs
from database.queries import load
from database.settings import RetentionSettings

log = logging.getLogger(__name__)

LONGEST_ROLL_UP_S: Final = 30.0
"""A backlog of windows goes on in the next run: the steps after it must have their turn too."""
LIMITS: Final = (
    "SET statement_timeout = '120s'; SET lock_timeout = '2s'; SET idle_in_transaction_session_timeout = '60s'"
)
STEP_ERRORS: Final = (*AWAY, SketchError)

Step = Callable[[Connection], Awaitable[object]]


async def run(pool: Pool, settings: RetentionSettings, *, drained: bool, replay_window_s: float = 1800.0) -> list[str]:
    """Do all of it, here and for every load-test run; returns what failed (`step: error`).

    `drained`: nothing that was read from the streams waits for its commit, so that a gap is a gap.
    """
    failed = await run_schema(pool, None, settings, drained=drained, replay_window_s=replay_window_s)
    for each in await list_runs(pool):
        failed += await run_schema(pool, each.schema_name, settings, drained=drained, replay_window_s=replay_window_s)
    return failed


async def run_schema(
    pool: Pool, schema: str | None, settings: RetentionSettings, *, drained: bool, replay_window_s: float
) -> list[str]:
    """Do all of it in one schema (None: that of the pool); nothing if somebody else is at it."""
    steps: dict[str, Step] = {
        "partitions": partitions.ensure,
        "compaction": compact_closed,
        "roll-up 1m": partial(_roll_up, "1m"),
        "roll-up 1h": partial(_roll_up, "1h"),
        "retention": lambda connection: retention.drop_old(connection, settings),
        "activity": retention.note_activity,
        "retirement": retention.retire_producers,
        "pruning": retention.prune,
        "checksums": lambda connection: retention.prune_checksums(connection, replay_window_s),
    }
    if drained:
        steps["gaps"] = lambda connection: retention.close_gaps(connection, replay_window_s)
    failed: list[str] = []
    async with locked(pool, schema) as connection:
        if connection is None:
            return failed
        for name, step in steps.items():
            try:
                await step(connection)
            except STEP_ERRORS as error:
                log.warning("upkeep_step_failed", extra={"step": name, "schema": schema, "error": error_text(error)})
                failed.append(f"{name}: {error_text(error)}"[:500])
                if is_failover(error) or is_lost(connection):
                    raise
    return failed


@asynccontextmanager
async def locked(pool: Pool, schema: str | None) -> AsyncGenerator[Connection | None, None]:
    """Borrow a connection that holds the upkeep lock of a schema; None if somebody else holds it."""
    async with acquire(pool) as connection:
        await connection.execute(LIMITS)
        if connection.get_server_version().major >= 17:
            await connection.execute("SET transaction_timeout = '300s'")
        if schema is not None:
            # The pool resets it when the connection goes back.
            await connection.execute(f'SET search_path = "{schema}"')
        if not await connection.fetchval(load("upkeep_lock")):
            yield None
            return
        try:
            yield connection
        finally:
            if not is_lost(connection):
                await connection.fetchval(load("upkeep_unlock"))


async def compact_closed(connection: Connection) -> int:
    """Compact every closed arrival minute, oldest first; one that fails does not stop the next. Returns rows read."""
    rows, failures = 0, list[BaseException]()
    for part in await rollup.closed_parts(connection):
        try:
            rows += await rollup.compact(connection, part)
        except STEP_ERRORS as error:
            log.warning("compaction_failed", extra={"partition": part.name, "error": error_text(error)})
            failures.append(error)
            if is_failover(error) or is_lost(connection):
                break
    if failures:
        raise failures[0]
    return rows


async def _roll_up(level: str, connection: Connection) -> int:
    done, until_s = 0, time.monotonic() + LONGEST_ROLL_UP_S
    while count := await rollup.roll_up(connection, level):
        done += count
        if time.monotonic() > until_s:
            break
    return done
