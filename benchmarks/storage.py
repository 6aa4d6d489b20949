"""Storage: what a row of rollups and a million events take in PostgreSQL, and whether updates of totals stay HOT.

In: a scratch stack. Out: a Section, bytes. Each batch fills another ten-second window of the past hour, ten samples a
series, so that a rollup row holds ten samples. The aggregator is stopped before its own code compacts what it left.
"""

import asyncio
from typing import Any, Final

import asyncpg

from benchmarks.backlog import Backlog, push
from benchmarks.measure import OURS, Section
from benchmarks.scratch import Scratch, wait_committed
from contract.windows import WINDOW_S
from database.partitions import PARTS, existing
from database.rollup import compact, roll_up

SAMPLES: Final = 10
SERIES: Final = 5_000
ROW_GOAL_BYTES: Final = 120.0
STATISTICS_S: Final = 1.5
LEVELS: Final = ("10s", "1m")
STATE: Final = """SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 AS wal,
    sum(n_tup_upd) FILTER (WHERE relname = 'totals')::float8 AS updated,
    sum(n_tup_hot_upd) FILTER (WHERE relname = 'totals')::float8 AS hot,
    pg_total_relation_size('streamgauge.totals')::float8 AS totals
    FROM pg_stat_user_tables WHERE schemaname = 'streamgauge'"""
SIZE: Final = """SELECT (SELECT count(*) FROM streamgauge.{table})::float8 AS rows,
    coalesce(sum(pg_table_size(inhrelid)), 0)::float8 AS heap,
    coalesce(sum(pg_indexes_size(inhrelid)), 0)::float8 AS indexes
    FROM pg_inherits WHERE inhparent = 'streamgauge.{table}'::regclass"""
SKETCH: Final = "SELECT avg(pg_column_size(sketch))::float8 AS sketch FROM streamgauge.rollup_10s"
Facts = dict[str, float]


def run(full: bool) -> Section:
    """Fill windows, measure, compact, measure."""
    windows = 120 if full else 30
    section = Section("storage", "PostgreSQL: bytes per rollup row and per million events", less_is_better=True)
    backlog = Backlog(1, SERIES)
    with Scratch() as stack:
        aggregator = stack.aggregator()
        _commit(stack, backlog, 2, 0.25)
        first, before = backlog.events, _state(stack)
        _commit(stack, backlog, windows, float(WINDOW_S))
        events, after = backlog.events - first, _state(stack)
        stack.stop(aggregator)
        parts = _ask(stack, SIZE.format(table="parts"))
        asyncio.run(_compact(stack.dsn))
        compacted = _state(stack)
        sizes = {level: _ask(stack, SIZE.format(table=f"rollup_{level}")) for level in LEVELS}
        sketch = _ask(stack, SKETCH)["sketch"]
    _rows(section, events, parts, sizes)
    section.add("an event: WAL of its commit", OURS, "bytes", [(after["wal"] - before["wal"]) / events])
    section.add("an event: WAL of its roll-ups", OURS, "bytes", [(compacted["wal"] - after["wal"]) / events])
    section.add("totals, a series", OURS, "bytes", [after["totals"] / SERIES])
    updated, hot = after["updated"] - before["updated"], after["hot"] - before["hot"]
    section.notes.append(
        f"{hot:,.0f} of {updated:,.0f} updates of totals were HOT ({hot / updated:.1%}); a sketch of {SAMPLES} samples "
        f"takes {sketch:.0f} bytes."
    )
    section.notes.append(
        f"{windows} windows x {SERIES:,} histogram series x {SAMPLES} distinct random samples, one producer; sizes on "
        "disk, pages and free space included, right after writing. One commit a window is the dearest case for parts, "
        "WAL and totals: every event's share of them is largest. "
        "Bytes an event are megabytes per million events."
    )
    return section


def _rows(section: Section, events: float, parts: Facts, sizes: dict[str, Facts]) -> None:
    fine = sizes["10s"]
    section.add("rollup_10s row: table", OURS, "bytes", [fine["heap"] / fine["rows"]], at_most=ROW_GOAL_BYTES)
    section.add("rollup_10s row: index", OURS, "bytes", [fine["indexes"] / fine["rows"]])
    section.add("parts row, before roll-up", OURS, "bytes", [parts["heap"] / parts["rows"]])
    if sizes["1m"]["rows"]:
        section.add("rollup_1m row: table", OURS, "bytes", [sizes["1m"]["heap"] / sizes["1m"]["rows"]])
    for level in LEVELS:
        size = sizes[level]
        section.add(
            f"an event: rollup_{level} with its index",
            OURS,
            "bytes",
            [(size["heap"] + size["indexes"]) / events],
        )


def _commit(stack: Scratch, backlog: Backlog, batches: int, step_s: float) -> None:
    """Let each batch be committed by itself: a commit takes what there is."""
    committed = backlog.events
    for one in backlog.seal(batches, SAMPLES, step_s=step_s):
        push(stack.client(), [one])
        committed += SERIES * SAMPLES
        wait_committed(stack.dsn, committed)


async def _compact(dsn: str) -> None:
    """Roll up as upkeep does, without waiting for the minute to be over: nobody writes any more."""
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "streamgauge"}, timeout=10)
    try:
        for part in (await existing(connection, PARTS))[:-1]:
            await compact(connection, part)
        while await roll_up(connection, "1m"):
            pass
    finally:
        await connection.close(timeout=10)


def _state(stack: Scratch) -> Facts:
    return _ask(stack, STATE, STATISTICS_S)


def _ask(stack: Scratch, query: str, after_s: float = 0.0) -> Facts:
    """Return the one row of a query; statistics of other sessions arrive within `after_s`."""

    async def ask() -> dict[str, Any]:
        await asyncio.sleep(after_s)
        connection = await asyncpg.connect(stack.dsn, timeout=10)
        try:
            return dict(await connection.fetchrow(query) or {})
        finally:
            await connection.close(timeout=10)

    return asyncio.run(ask())
