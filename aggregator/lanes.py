"""Lanes: one schema each for real traffic and for every load-test run, with its pool and caches.

In: a run id, or None for real traffic. Out: a Lane, or None where the run was purged.
Promise: a load-test batch never touches a row of the real schema; however many runs batches name, few pools are open.
"""

import asyncio
import time
import weakref
from typing import Any, Final

from aggregator.decode import BlockCache
from aggregator.identities import Identities
from aggregator.settings import AggregatorSettings
from database.admission import Producer
from database.connect import SCHEMA, Pool, acquire, open_pool
from database.hosts import Hosts
from database.load_runs import ensure_run
from database.pooler import open_pooled
from database.queries import load

MAX_SEQ_JUMP: Final = 1_000_000
"""No producer seals so many batches while none arrives: a seq further above all others is not believed."""


OPEN_RUNS: Final = 4
"""Lanes of load-test runs that stay open, in each shard, when nothing is on its way in them."""
RUN_CACHE_BYTES: Final = 16 << 20


class Lane:
    """A schema, the pool whose names resolve in it, the caches of its numbers, and its database's clock."""

    def __init__(self, schema: str, pool: Pool, identities: Identities) -> None:
        self.schema = schema
        self.pool = pool
        self.identities = identities
        self.reconnected = True
        """Set by each new connection, cleared by the failover check."""
        self.users: weakref.WeakSet[object] = weakref.WeakSet()
        """What is on its way in this lane: while there is any its pool stays open."""
        self._offset_ms = 0.0
        self._top: dict[int, int] = {}

    async def set_clock(self) -> None:
        """Measure the database clock against our monotonic one: a step of our wall clock changes nothing."""
        before = time.monotonic()
        async with acquire(self.pool) as connection:
            database_s = float(await connection.fetchval(load("clock")))
        self._offset_ms = (database_s - (before + time.monotonic()) / 2) * 1000

    def now_ms(self) -> int:
        """Return the database clock's time as well as it is known."""
        return int(time.monotonic() * 1000 + self._offset_ms)

    def ahead_s(self) -> float:
        """Return how far the database clock is ahead of our wall clock."""
        return time.monotonic() + self._offset_ms / 1000 - time.time()

    def jumps(self, producer: Producer, seq: int) -> bool:
        """Whether a seq is too far above every one known of its producer."""
        return seq > max(self._top.get(producer.producer_no, 0), producer.top_seq) + MAX_SEQ_JUMP

    def saw_seq(self, producer_no: int, seq: int) -> None:
        """Note a seq that is accounted for."""
        self._top[producer_no] = max(self._top.get(producer_no, 0), seq)


class Lanes:
    """All lanes of one shard's committer."""

    def __init__(self, settings: AggregatorSettings, hosts: Hosts | None = None) -> None:
        self._settings = settings
        self._hosts = hosts or Hosts(settings)
        self._lanes: dict[str | None, Lane] = {}
        self._run_blocks: dict[str, BlockCache] = {}
        self._opening = asyncio.Lock()
        self._direct: Pool | None = None

    async def main(self) -> Lane:
        """Return the lane of real traffic."""
        return self._lanes.get(None) or await self._open(None, SCHEMA)

    async def of(self, run_id: str | None, events: int) -> Lane | None:
        """Return the lane of a run, making its schema if needed; None if it was purged (`events` are counted).

        TooManyRuns: it is new, and there are as many as may be.
        """
        main = await self.main()
        if run_id is None:
            return main
        most = self._settings.streamgauge_load_runs
        schema = await ensure_run(await self._direct_pool(main), run_id, events, most)
        if schema is None:
            await self._close(run_id)
            return None
        lane = self._lanes.get(run_id) or await self._open(run_id, schema)
        # The one used longest ago is the first.
        self._lanes[run_id] = self._lanes.pop(run_id)
        await self._close_others(run_id)
        return lane

    async def _close_others(self, used: str) -> None:
        """Keep no more lanes of runs open than OPEN_RUNS, but for those something is on its way in."""
        others = [run_id for run_id, lane in self._lanes.items() if run_id not in (None, used) and not lane.users]
        surplus = len(self._lanes) - 1 - OPEN_RUNS
        for run_id in others[: max(0, surplus)]:
            assert run_id is not None
            await self._close(run_id)

    async def _direct_pool(self, main: Lane) -> Pool:
        """Return a pool with sessions of its own, which a run's schema is made with."""
        if self._settings.postgres_pooled_dsn is None:
            return main.pool
        if self._direct is None:
            self._direct = await open_pool(
                self._settings, application="streamgauge-aggregator-runs", size=1, hosts=self._hosts
            )
        return self._direct

    def blocks_of(self, run_id: str) -> BlockCache:
        """Return the cache of a run's blocks: it is decoded before anybody asks whether there may be such a run."""
        while len(self._run_blocks) > 2 * OPEN_RUNS:
            self._run_blocks.pop(next(iter(self._run_blocks)))
        return self._run_blocks.setdefault(run_id, BlockCache(RUN_CACHE_BYTES))

    async def _open(self, run_id: str | None, schema: str) -> Lane:
        async with self._opening:
            known = self._lanes.get(run_id)
            if known is None:
                known = self._lanes[run_id] = await self._connect(run_id, schema)
            return known

    async def _connect(self, run_id: str | None, schema: str) -> Lane:
        """Return a lane whose clock is measured: without it good data could look as if it came from the future."""
        opened: list[Lane] = []

        def connected() -> None:
            for each in opened:
                each.reconnected = True

        options: dict[str, Any] = {
            "application": "streamgauge-aggregator",
            "size": 3 if run_id is None else 1,
            "connected": connected,
            "hosts": self._hosts,
        }
        # A run's schema is not the role's, so that it needs a session.
        real = schema == SCHEMA
        pool = await (open_pooled(self._settings, **options) if real else open_pool(self._settings, schema, **options))
        identities = Identities(pool, self._settings.streamgauge_series_budget)
        if run_id is not None:
            identities.blocks = self.blocks_of(run_id)
        lane = Lane(schema, pool, identities)
        opened.append(lane)
        try:
            await lane.set_clock()
        except BaseException:
            pool.terminate()
            raise
        return lane

    async def _close(self, run_id: str) -> None:
        self._run_blocks.pop(run_id, None)
        lane = self._lanes.pop(run_id, None)
        if lane is not None:
            await lane.pool.close()

    async def aclose(self) -> None:
        """Close every pool."""
        for lane in self._lanes.values():
            await lane.pool.close()
        if self._direct is not None:
            await self._direct.close()
            self._direct = None
        self._lanes.clear()

    def open_lanes(self) -> list[Lane]:
        """Return the lanes that are open now."""
        return list(self._lanes.values())
