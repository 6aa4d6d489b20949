"""Upkeep on a timer: roll-ups, partitions and retention, once among all aggregators.

In: the database's slots (`runs`). Out: calls of database.upkeep.
Promise: a slot is done by whoever inserts its row first; a failed or crashed run leaves a visible row and the
next slot goes on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aggregator.committer import Committer
from aggregator.lanes import Lanes
from aggregator.redrive import redrive_parked
from aggregator.settings import AggregatorSettings
from aggregator.shard import OPERATIONAL
from database import upkeep

log = logging.getLogger(__name__)


class Upkeep:
    """Claims and runs upkeep slots."""

    def __init__(
        self,
        settings: AggregatorSettings,
        lanes: Lanes,
        consumer: str,
        is_drained: Callable[[], Awaitable[bool]],
        committer: Committer,
    ) -> None:
        self._settings = settings
        self._lanes = lanes
        self._consumer = consumer
        self._is_drained = is_drained
        self._committer = committer

    async def run(self, stopping: asyncio.Event) -> None:
        """Look for a free slot several times an interval, until stopped."""
        while not stopping.is_set():
            try:
                await self._once()
            except OPERATIONAL as error:
                log.warning("step_failed", extra={"step": "upkeep", "error": repr(error)})
            try:
                await asyncio.wait_for(stopping.wait(), self._settings.streamgauge_upkeep_interval_s / 4)
            except TimeoutError:
                continue

    async def _once(self) -> None:
        main = await self._lanes.main()
        slot = await upkeep.claim(main.pool, "upkeep", self._settings.streamgauge_upkeep_interval_s, self._consumer)
        if slot is None:
            return
        failed = await upkeep.run(
            main.pool,
            self._settings,
            drained=await self._is_drained(),
            replay_window_s=self._settings.streamgauge_replay_window_s,
        )
        await redrive_parked(main.pool, self._committer)
        await upkeep.finish(main.pool, "upkeep", slot, failed)
