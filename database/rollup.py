"""Roll-up: closed minutes of parts become rows of rollup_10s, those become rollup_1m, those rollup_1h.

In: a connection that holds the upkeep lock. Out: rows, revisions and marks of the next level, in one transaction
each. Promise: at every commit, base + retained windows = totals at each level (dirty windows read from the level
below); a window is replaced as a whole, and exactly the marks that were read are deleted.
"""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import numpy as np

from contract.windows import LEVELS_S, WINDOW_S
from database import partitions
from database.connect import Connection, transaction
from database.partitions import PARTS, ROLLUPS, Partition
from database.queries import load
from database.rows import Rows, join, measure, merge, read, take_out, write
from database.sketches import Ints

SETTLE_S: Final = 5
"""How long after its end a window may be written: later parts of it would make it `restated`."""
ROLL_UP_AFTER_S: Final = 90
"""How long after its end a coarser window is rolled up: its last minute of arrival must be compacted first."""
CLOSED_FOR_S: Final = 2
"""Transactions that began before the end of their minute have reached its partition by then."""
WINDOWS_AT_ONCE: Final = {"1m": 10, "1h": 1}
BELOW: Final = {"1m": "10s", "1h": "1m"}
ABOVE: Final = {"10s": "1m", "1m": "1h"}
SCAN_IN_ORDER: Final = "SET LOCAL synchronize_seqscans = off; SET LOCAL max_parallel_workers_per_gather = 0"


def moments(windows_s: Iterable[int]) -> list[datetime]:
    """Return Unix seconds as asyncpg takes timestamps."""
    return [datetime.fromtimestamp(at, UTC) for at in sorted(set(windows_s))]


async def closed_parts(connection: Connection) -> list[Partition]:
    """Return the arrival minutes that nobody writes to any more, oldest first."""
    now_s = float(await connection.fetchval(load("clock")))
    return [p for p in await partitions.existing(connection, PARTS) if p.end_s + CLOSED_FOR_S <= now_s]


async def compact(connection: Connection, part: Partition) -> int:
    """Merge one closed arrival minute into rollup_10s and drop it; returns how many rows it held."""
    seen = await connection.fetch(load("closed_windows").format(table=part.name))
    await partitions.ensure(connection, [row["window_s"] for row in seen])
    carry_to_s = await _next_minute(connection, part)
    async with transaction(connection, "REPEATABLE READ"):
        # First of all, before any snapshot exists: waits for writers still in flight and lets readers go on.
        await connection.execute(f"{SCAN_IN_ORDER}; LOCK TABLE {part.name} IN SHARE ROW EXCLUSIVE MODE")
        span = await measure(connection, part.name)
        rolled = await _rolled(connection, "10s", [row["window_s"] for row in seen])
        written: set[int] = set()
        for low, high in span.chunks():
            written |= await _compact_chunk(connection, part, (low, high), rolled, carry_to_s)
        await _note(connection, "10s", written)
        await partitions.drop(connection, part)
    return span.rows


async def _next_minute(connection: Connection, part: Partition) -> int:
    """Return the start of the arrival minute that takes what is carried over."""
    later = [p for p in await partitions.existing(connection, PARTS) if p.start_s > part.start_s]
    assert later, "BUG: partitions are made ahead before one is compacted"
    return later[0].start_s


async def _rolled(connection: Connection, level: str, windows_s: Sequence[int]) -> Ints:
    rows = await connection.fetch(load("rolled_windows"), level, moments(windows_s))
    return np.array([row["window_s"] for row in rows], dtype=np.int64)


async def _compact_chunk(
    connection: Connection, part: Partition, series: tuple[int, int], rolled: Ints, carry_to_s: int
) -> set[int]:
    """Write one range of series; returns the windows written."""
    rows = await _in_order(connection, part, series)
    merged = await asyncio.to_thread(merge, rows, WINDOW_S)
    is_open = merged.window_s + WINDOW_S + SETTLE_S > part.end_s
    # Still open at the end of the minute: carried on, so that a window is normally written once.
    await write(connection, PARTS.parent, merged.take(is_open), arrived_s=carry_to_s)
    closed = merged.take(~is_open)
    late = np.isin(closed.window_s, rolled)
    if late.any():
        closed = await _merge_stored(connection, closed, closed.take(late))
    await write(connection, ROLLUPS["10s"].parent, closed)
    return set(np.unique(closed.window_s).tolist())


async def _in_order(connection: Connection, part: Partition, series: tuple[int, int]) -> Rows:
    """Read parts in order of arrival: what was carried over stands last in the table but came first."""
    start, carried = moments([part.start_s])[0], "series_id >= $1 AND series_id < $2 AND arrived = $3"
    first = await read(connection, part.name, carried, *series, start)
    return join(first, await read(connection, part.name, carried.replace("arrived =", "arrived >"), *series, start))


async def _merge_stored(connection: Connection, closed: Rows, late: Rows) -> Rows:
    """Take the stored rows of late series and windows out, and merge them in."""
    windows, series = moments(late.window_s.tolist()), np.unique(late.series).tolist()
    condition = "series_id = ANY ($1::int[]) AND window_start = ANY ($2::timestamptz[])"
    condition += " AND window_start >= $3 AND window_start <= $4"
    stored = await take_out(connection, ROLLUPS["10s"].parent, condition, series, windows, windows[0], windows[-1])
    return await asyncio.to_thread(merge, join(stored, closed), WINDOW_S)


async def _note(connection: Connection, level: str, windows_s: set[int]) -> None:
    """Count a revision of each window written, and mark the window of the next level that it belongs to."""
    await connection.execute(load("note_windows"), level, moments(windows_s))
    if above := ABOVE.get(level):
        width_s = LEVELS_S[above]
        coarser = moments(at // width_s * width_s for at in windows_s)
        await connection.execute(load("mark_dirty"), above, coarser)


async def roll_up(connection: Connection, level: str) -> int:
    """Recompute some due windows of `level` from the level below; returns how many (0: nothing is due)."""
    arguments = (level, LEVELS_S[level], ROLL_UP_AFTER_S, WINDOWS_AT_ONCE[level])
    due = await connection.fetch(load("due_marks"), *arguments)
    if not due:
        return 0
    await partitions.ensure(connection, [int(row["window_start"].timestamp()) for row in due])
    async with transaction(connection, "REPEATABLE READ"):
        await connection.execute(SCAN_IN_ORDER)
        due = await connection.fetch(load("due_marks"), *arguments)
        windows = [row["window_start"] for row in due]
        await connection.execute(load("delete_windows").format(table=ROLLUPS[level].parent), windows)
        await _recompute(connection, level, [int(at.timestamp()) for at in windows])
        await _note(connection, level, {int(at.timestamp()) for at in windows})
        await connection.execute(load("delete_marks"), [mark for row in due for mark in row["marks"]])
    return len(windows)


async def _recompute(connection: Connection, level: str, windows_s: Sequence[int]) -> None:
    width_s, step_s = LEVELS_S[level], LEVELS_S[BELOW[level]]
    source = moments(at for window_s in windows_s for at in range(window_s, window_s + width_s, step_s))
    table = ROLLUPS[BELOW[level]].parent
    # The two limits are for the planner: they leave out partitions, which ANY of a parameter does not.
    condition = "window_start = ANY ($1::timestamptz[]) AND window_start >= $2 AND window_start <= $3"
    limits = (source, source[0], source[-1])
    span = await measure(connection, table, condition, *limits)
    for low, high in span.chunks():
        rows = await read(connection, table, condition + " AND series_id >= $4 AND series_id < $5", *limits, low, high)
        await write(connection, ROLLUPS[level].parent, await asyncio.to_thread(merge, rows, width_s))
