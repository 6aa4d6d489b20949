"""Refresh: one flight at a time to the database, shared by the requests that arrived before it began.

In: something that takes a snapshot. Out: views.
Promise: a request is answered from a snapshot taken after it arrived, or not at all, within its deadline.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from contract.errors import error_text
from database.connect import AWAY
from exporter.snapshot import Restoring, Unavailable, View

log = logging.getLogger(__name__)


class Refresher:
    """Joins requests to flights."""

    def __init__(self, take: Callable[[], Awaitable[View]], deadline_s: float) -> None:
        self._take = take
        self._deadline_s = deadline_s
        self._flying: asyncio.Task[View] | None = None
        self._next: asyncio.Task[View] | None = None
        self.newest: View | None = None
        self.is_restoring = False
        """Whether the newest flight found totals that are being restored."""
        self.took_s: dict[str, float] = {}
        """How long the newest flight of each kind took."""

    async def fresh(self) -> View:
        """Return a view of a snapshot taken after this call; Unavailable says why there is none."""
        if self._next is None:
            self._next = asyncio.create_task(self._fly(self._flying), name="exporter - refresh")
            self._next.add_done_callback(ignore_result)
        flight = self._next
        try:
            async with asyncio.timeout(self._deadline_s):
                return await asyncio.shield(flight)
        except TimeoutError:
            raise Unavailable(f"no snapshot within {self._deadline_s:g} s") from None

    def age_s(self) -> float | None:
        """Return the age of the newest view."""
        return None if self.newest is None else time.monotonic() - self.newest.taken_at

    async def aclose(self) -> None:
        """End the flights."""
        flights = [task for task in (self._flying, self._next) if task is not None]
        for task in flights:
            task.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _fly(self, before: asyncio.Task[View] | None) -> View:
        if before is not None:
            await asyncio.wait({before})
        self._flying, self._next = self._next, None
        try:
            async with asyncio.timeout(self._deadline_s):
                view = self.newest = await self._take()
        except AWAY as error:
            log.warning("refresh_failed", extra={"error": error_text(error)})
            raise Unavailable(f"the database does not answer: {type(error).__name__}") from error
        except Restoring:
            self.is_restoring = True
            raise
        self.is_restoring = False
        self.took_s["full" if view.full else "incremental"] = view.took_s
        return view


def ignore_result(task: asyncio.Task[View]) -> None:
    """Take a flight's exception when nobody waits for it any more."""
    with contextlib.suppress(asyncio.CancelledError):
        task.exception()
