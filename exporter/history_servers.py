"""History's servers: replicas that are as far as the primary first, in turn, and the primary when none is.

In: pools. Out: the replicas to try for one answer, and what each says of itself.
Promise: a replica answers only while it is a standby whose heartbeat row, in the very snapshot that is read, is
younger than `STREAMGAUGE_REPLICA_LAG_S`; one that failed is left alone for a while, so that it delays nobody.
"""

import logging
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from contract.errors import error_text
from database.connect import Connection, Pool
from database.queries import load

log = logging.getLogger(__name__)

REST_S: Final = 10.0
"""How long a replica that failed is not asked."""


class Behind(Exception):
    """A replica is too far behind, or none any more."""


class Served(NamedTuple):
    """Who answered, and how old its newest heartbeat was by its own clock; None: the primary is never behind."""

    server: str
    heartbeat_age_s: float | None = None


PRIMARY: Final = Served("primary")


class Replica:
    """One replica."""

    def __init__(self, name: str, pool: Pool, limit_s: float) -> None:
        self.pool = pool
        self._name = name
        self._limit_s = limit_s
        self._not_before = float("-inf")

    def is_resting(self) -> bool:
        """Whether it failed just now."""
        return time.monotonic() < self._not_before

    def rest(self, error: BaseException) -> None:
        """Leave it alone for a while."""
        self._not_before = time.monotonic() + REST_S
        said = {"replica": self._name, "error": error_text(error), "for_s": REST_S}
        log.warning("history_from_elsewhere", extra=said)

    async def check(self, connection: Connection) -> Served:
        """Say how far the snapshot of this transaction is; raises Behind."""
        row = await connection.fetchrow(load("monitor_replica"))
        assert row is not None, "BUG: a SELECT without FROM has a row"
        age_s = row["beat_age_s"]
        if not row["is_standby"] or age_s is None or age_s > self._limit_s:
            raise Behind(self._name)
        return Served(self._name, max(0.0, age_s))


class HistoryServers:
    """Whom to ask."""

    def __init__(self, primary: Pool, replicas: Mapping[str, Pool], limit_s: float) -> None:
        self.primary = primary
        self._replicas = [Replica(name, pool, limit_s) for name, pool in replicas.items()]
        self._turn = 0

    def replicas(self) -> list[Replica]:
        """Return those to try, another one first each time."""
        self._turn += 1
        at = self._turn % max(1, len(self._replicas))
        return [one for one in self._replicas[at:] + self._replicas[:at] if not one.is_resting()]

    def pools(self) -> list[Pool]:
        """Return the replicas' pools."""
        return [one.pool for one in self._replicas]
