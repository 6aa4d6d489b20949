"""Partitions: made ahead by the database clock and for windows actually seen, dropped as a whole.

In: a connection. Out: partitions of parts (by minute of arrival) and of the rollups (by window).
Promise: idempotent, safe for many callers at once; attaching takes no lock that a commit waits for; there is no
default partition, so a row without its partition is an error that is retried, never a row in the wrong place.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from database.connect import Connection, transaction
from database.queries import load


class Kind(NamedTuple):
    """A partitioned table, how wide its partitions are and how many are made ahead."""

    parent: str
    width_s: int
    ahead: int


class Partition(NamedTuple):
    """One partition: half-open in time."""

    name: str
    start_s: int
    end_s: int


PARTS: Final = Kind("parts", 60, 60)
ROLLUPS: Final = {
    "10s": Kind("rollup_10s", 6 * 3600, 5),
    "1m": Kind("rollup_1m", 86_400, 5),
    "1h": Kind("rollup_1h", 30 * 86_400, 5),
}
"""Five: four are ahead also at the moment when the next one has begun, and that is what P1 asks for."""


async def ensure(connection: Connection, windows_s: Iterable[int] = ()) -> None:
    """Make the partitions that commits of the next hour, and rollup rows of `windows_s`, need."""
    now_s = int(await connection.fetchval(load("clock")))
    wanted = {partition(PARTS, now_s + i * PARTS.width_s): PARTS for i in range(PARTS.ahead + 1)}
    windows = set(windows_s)
    for kind in ROLLUPS.values():
        times = windows | {now_s + i * kind.width_s for i in range(kind.ahead + 1)}
        wanted |= {partition(kind, at): kind for at in times}
    rows = await connection.fetch(load("missing_tables"), [p.name for p in wanted])
    missing = {row["name"] for row in rows}
    for part, kind in sorted(wanted.items()):
        if part.name in missing:
            await _make(connection, part, kind)


def partition(kind: Kind, at_s: int) -> Partition:
    """Return the partition of a table that holds an instant; names sort by time."""
    start_s = at_s // kind.width_s * kind.width_s
    return Partition(f"{kind.parent}_{start_s:010d}", start_s, start_s + kind.width_s)


async def _make(connection: Connection, part: Partition, kind: Kind) -> None:
    async with transaction(connection):
        await connection.execute(load("make_partition"), kind.parent, part.name, part.start_s, part.end_s)


async def existing(connection: Connection, kind: Kind) -> list[Partition]:
    """Return the partitions there are, oldest first."""
    rows = await connection.fetch(load("list_partitions"), kind.parent)
    starts = [int(row["name"].rpartition("_")[2]) for row in rows]
    return [partition(kind, start) for start in starts]


async def drop(connection: Connection, part: Partition) -> None:
    """Drop a partition within the caller's transaction; LockNotAvailable if others use it."""
    await connection.execute(load("drop_partition"), part.name)
