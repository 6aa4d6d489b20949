"""Who holds back the xmin horizon: while somebody does, no VACUUM removes what was deleted since.

In: a connection whose role reads all statistics. Out: holders, the oldest first.
Promise: autovacuum workers, lazy VACUUMs and our own session are no holders.
"""

from typing import NamedTuple

from database.connect import Connection
from database.queries import load


class Holder(NamedTuple):
    """A session, replication slot, prepared transaction or standby."""

    kind: str
    name: str
    """Its role and application, slot name, global transaction id or standby name."""
    pid: int | None
    age_xids: int
    age_s: float | None
    """How long it has been there; None where PostgreSQL does not say (slots, standbys)."""
    state: str | None

    def __str__(self) -> str:
        """Return it as a sentence names it."""
        return f"{self.kind} {self.name}" + (f" (pid {self.pid})" if self.pid is not None else "")


async def holders(connection: Connection) -> list[Holder]:
    """Return all who hold the horizon of the current database."""
    rows = await connection.fetch(load("check_v6_xmin_horizon"))
    return [Holder(**row) for row in rows]


async def blocking(connection: Connection, xids: int, seconds: float) -> Holder | None:
    """Return the holder that keeps VACUUM from its work, if the oldest has held longer than either bound."""
    old = [h for h in await holders(connection) if h.age_xids >= xids or (h.age_s or 0) >= seconds]
    return old[0] if old else None


async def reads_all_statistics(connection: Connection) -> bool:
    """Whether the role sees the sessions of other roles (pg_read_all_stats, in pg_monitor)."""
    return bool(await connection.fetchval(load("check_v6_privilege")))
