"""The optimizer's own cost: how many connections it has open, and how long its statements took.

In: every connection it opens or borrows. Out: peak and sum of a run.
Promise: never more than MAX_CONNECTIONS at once; each statement on a metered connection is counted.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from asyncpg.connection import LoggedQuery

from database.connect import Connection, is_lost

MAX_CONNECTIONS: Final = 5
MAX_SHARE: Final = 0.01
"""Of the time between two runs."""
LEAST_BUDGET_S: Final = 1.0
"""However short that is: a run is to get somewhere."""


def budget_s(interval_s: float) -> float:
    """Return the database time that a run may take."""
    return max(interval_s * MAX_SHARE, LEAST_BUDGET_S)


class Meter:
    """What one run cost so far."""

    def __init__(self, budget_s: float) -> None:
        self.budget_s = budget_s
        self.statement_s = 0.0
        self.open = 0
        self.peak = 0
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)

    @property
    def left_s(self) -> float:
        """What is left of the run's share of database time."""
        return max(self.budget_s - self.statement_s, 0.0)

    @property
    def is_spent(self) -> bool:
        """Whether it is used up."""
        return not self.left_s

    @asynccontextmanager
    async def place(self) -> AsyncGenerator[None, None]:
        """Hold one of the places for connections."""
        async with self._places:
            self.open += 1
            self.peak = max(self.peak, self.open)
            try:
                yield
            finally:
                self.open -= 1

    @asynccontextmanager
    async def metered(self, connection: Connection) -> AsyncGenerator[None, None]:
        """Count the statements of a connection."""
        connection.add_query_logger(self._count)
        try:
            yield
        finally:
            if not is_lost(connection):
                connection.remove_query_logger(self._count)

    def _count(self, query: LoggedQuery) -> None:
        self.statement_s += query.elapsed
