"""Forget: deletes series on request: everything they hold, at every level, and writes down that it was done.

In: a selector. Out: how many series and events are gone. Promise: commits and upkeep are excluded while it runs, so
that no row of a forgotten series is left or comes back; the audit stays ok, since the events are in `forgotten`.
"""

from typing import Final, NamedTuple

from database.connect import Connection, Pool, acquire, transaction
from database.queries import load
from database.selector import parse_selector

TABLES: Final = ("parts", "rollup_10s", "rollup_1m", "rollup_1h", "archived", "gauges", "totals", "series")
WAIT: Final = (
    "SET lock_timeout = '60s'; SET statement_timeout = '600s'; SET idle_in_transaction_session_timeout = '60s'"
)


class Forgotten(NamedTuple):
    """What was deleted."""

    series: int
    events: int


async def find(pool: Pool, selector: str) -> list[str]:
    """Return the keys that `selector` means, sorted."""
    async with acquire(pool) as connection:
        return sorted(key for _, key in await _find(connection, selector))


async def forget(pool: Pool, selector: str, requested_by: str) -> Forgotten:
    """Delete every series that `selector` means."""
    async with acquire(pool) as connection:
        await connection.execute(WAIT)
        if connection.get_server_version().major >= 17:
            await connection.execute("SET transaction_timeout = '900s'")
        async with transaction(connection):
            await connection.execute(load("exclude_upkeep"))
            await connection.execute(load("exclude_commits"))
            await connection.execute(load("admission_lock"))
            numbers = [number for number, _ in await _find(connection, selector)]
            return await _delete(connection, selector, numbers, requested_by)


async def _find(connection: Connection, selector: str) -> list[tuple[int, str]]:
    wanted = parse_selector(selector)
    rows = await connection.fetch(load("series_of_metric"), wanted.name)
    return [(row["series_id"], row["key"]) for row in rows if wanted.matches(row["key"].encode())]


async def _delete(connection: Connection, selector: str, numbers: list[int], requested_by: str) -> Forgotten:
    if not numbers:
        return Forgotten(0, 0)
    events = int(await connection.fetchval(load("events_of_series"), numbers))
    for table in TABLES:
        await connection.execute(load("delete_series").format(table=table), numbers)
    await connection.execute(load("note_forgotten"), selector, len(numbers), events, requested_by)
    await connection.execute(load("next_generation"))
    await connection.execute(load("recount_active"))
    return Forgotten(len(numbers), events)
