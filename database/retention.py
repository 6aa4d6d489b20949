"""Retention: what is dropped, retired, closed or pruned as time passes, and the sums that keep totals whole.

In: a connection that holds the upkeep lock. Out: fewer rows; their sums in `archived` and `retired`.
Promise: what a served number or the audit needs is added to its base in the transaction that deletes it; a
partition that a coarser level has still to be computed from is kept.
"""

from collections.abc import Iterable
from typing import Final

from contract.windows import LEVELS_S
from database import partitions
from database.connect import Connection, transaction
from database.partitions import ROLLUPS, Partition
from database.queries import load
from database.rollup import ABOVE, closed_parts, moments
from database.settings import RetentionSettings

BACKLOG_S: Final = 3600
"""Nothing is dropped while parts wait for compaction longer than this: they may belong to old windows."""
SILENT_S: Final = 60
"""A producer that says nothing for so long has ended: its heartbeat comes every 5 s."""
RETIRE_AFTER_S: Final = 7 * 86_400


async def due(connection: Connection, settings: RetentionSettings) -> list[tuple[str, Partition]]:
    """Return the partitions beyond their retention with their levels, the oldest first, as many as a run may drop."""
    now_s = float(await connection.fetchval(load("clock")))
    if any(part.end_s < now_s - BACKLOG_S for part in await closed_parts(connection)):
        return []
    found: list[tuple[str, Partition]] = []
    for level in LEVELS_S:
        oldest_s = now_s - float(getattr(settings, f"streamgauge_retention_{level}"))
        parts = await partitions.existing(connection, ROLLUPS[level])
        found += [(level, part) for part in parts if part.end_s <= oldest_s]
    return found[: settings.streamgauge_retention_partitions]


async def drop_old(connection: Connection, settings: RetentionSettings) -> int:
    """Drop what is due now; returns how many."""
    return await drop(connection, await due(connection, settings))


async def drop(connection: Connection, parts: Iterable[tuple[str, Partition]]) -> int:
    """Drop partitions that `due` names; returns how many."""
    return sum([await _archive(connection, level, part) for level, part in parts])


async def _archive(connection: Connection, level: str, part: Partition) -> bool:
    """Add a partition's sums to the base and drop it; False if it holds windows that are to be rolled up again."""
    start, end = moments([part.start_s, part.end_s])
    async with transaction(connection, "REPEATABLE READ"):
        await connection.execute(f"LOCK TABLE {part.name} IN SHARE ROW EXCLUSIVE MODE")
        if await connection.fetchval(load("has_marks"), ABOVE.get(level, ""), start, end):
            return False
        await connection.execute(load("archive_rows").format(table=part.name), level)
        await connection.execute(load("forget_windows"), level, start, end)
        await partitions.drop(connection, part)
    return True


async def prune(connection: Connection) -> None:
    """Delete records that have served: old commits, runs, heartbeats and quarantined entries."""
    for name in ("prune_commits", "prune_runs", "prune_aggregators", "prune_quarantine"):
        await connection.execute(load(name))


async def note_activity(connection: Connection) -> None:
    """Bring `series.active_at` up to date from the commits, and recount each metric's active series."""
    await connection.execute(load("note_active_series"))
    async with transaction(connection):
        # Excludes admissions, which count up what this counts anew.
        await connection.execute(load("admission_lock"))
        await connection.execute(load("recount_active"))


async def close_gaps(connection: Connection, replay_window_s: float) -> None:
    """Count as lost what can no longer come: gaps older than the replay window, or whose producer has ended."""
    await connection.execute(load("close_gaps"), replay_window_s, float(SILENT_S))


async def prune_checksums(connection: Connection, replay_window_s: float) -> None:
    """Forget checksums of batches that no stream holds any more."""
    await connection.execute(load("prune_checksums"), replay_window_s)


async def retire_producers(connection: Connection) -> int:
    """Move the counters of producers long gone to their service's row; returns how many there were."""
    if not await connection.fetchval(load("count_retirable"), float(RETIRE_AFTER_S)):
        return 0
    async with transaction(connection):
        await connection.execute(load("exclude_commits"))
        return int(await connection.fetchval(load("retire_producers"), float(RETIRE_AFTER_S)))
