"""The exporter service: wires PostgreSQL, Redis, snapshots and the web server, and keeps them.

In: settings. Out: a process that serves until it is told to stop.
Promise: it refuses to start on an old schema and says how to migrate; a stop answers the requests under way.
"""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any, TypeVar
from uuid import UUID

from contract.errors import error_text
from database.connect import AWAY, Pool, acquire
from database.hosts import Hosts
from database.pooler import open_pooled
from database.queries import load
from database.redis_link import open_link
from database.replicas import open_replicas, read_replicas
from exporter.derived import read_derived
from exporter.history_servers import HistoryServers
from exporter.monitor import ProductionMonitor
from exporter.refresh import Refresher
from exporter.settings import ExporterSettings
from exporter.snapshot import OtherDatabase, Snapshots, Unavailable, View
from exporter.streams import COUNT_DEADLINE_S, Streams, Waiting

log = logging.getLogger(__name__)
T = TypeVar("T")

POOL_SIZE = 6
REPLICA_POOL_SIZE = 3
STOP_GRACE_S = 5


class Exporter:
    """What stands behind the routes."""

    def __init__(self, settings: ExporterSettings) -> None:
        self.settings = settings
        self._derived = read_derived(settings.streamgauge_derived_file)
        self.streams = Streams(settings, open_link(settings, at_most_s=COUNT_DEADLINE_S), self._unaccounted)
        self.refresher = Refresher(self._take, settings.streamgauge_scrape_deadline_s)
        self.monitor = ProductionMonitor(settings, self.refresher)
        self._hosts = Hosts(settings)
        self._pool: Pool | None = None
        self._history: HistoryServers | None = None
        self._snapshots: Snapshots | None = None
        self._left_behind: set[asyncio.Future[Any]] = set()
        """Reads that did not answer in time; none is waited for."""

    @property
    def pool(self) -> Pool:
        """The open pool."""
        if self._pool is None:
            raise Unavailable("the exporter is not open")
        return self._pool

    @property
    def history(self) -> HistoryServers:
        """Who is asked for history."""
        if self._history is None:
            raise Unavailable("the exporter is not open")
        return self._history

    async def open(self) -> None:
        """Make the pools; connections are made when they are needed."""
        self._pool = await open_pooled(
            self.settings, application="streamgauge exporter", size=POOL_SIZE, hosts=self._hosts
        )
        self._snapshots = Snapshots(
            self.settings, self._pool, self.streams.acknowledged, self.streams.in_flight, self._derived
        )
        text = self.settings.streamgauge_postgres_replicas
        addresses = read_replicas(text.get_secret_value()) if text else {}
        replicas = await open_replicas(
            addresses, self.settings, application="streamgauge exporter", size=REPLICA_POOL_SIZE
        )
        self._history = HistoryServers(self._pool, replicas, self.settings.streamgauge_replica_lag_s)
        await self.monitor.open()

    async def aclose(self) -> None:
        """Close everything, within a deadline."""
        for task in self._left_behind:
            task.cancel()
        await self.monitor.aclose()
        await self.refresher.aclose()
        await self.streams.aclose()
        replicas = self._history.pools() if self._history is not None else []
        await asyncio.gather(*(_close(pool) for pool in (self._pool, *replicas) if pool is not None))

    async def in_time(self, read: Awaitable[T]) -> T:
        """Return what is read; TimeoutError after a probe's deadline.

        A read that is cancelled may hang on (a driver waits for the server to confirm), so it is not waited for.
        """
        task = asyncio.ensure_future(read)
        self._left_behind.add(task)
        task.add_done_callback(self._forget)
        try:
            done, _ = await asyncio.wait({task}, timeout=self.settings.streamgauge_probe_deadline_s)
        finally:
            task.cancel()
        if not done:
            raise TimeoutError
        return task.result()

    def _forget(self, task: "asyncio.Future[Any]") -> None:
        self._left_behind.discard(task)
        if not task.cancelled():
            task.exception()  # seen: nobody waits for it any more

    async def not_ready(self) -> list[str]:
        """Return why a scrape could not be served now; empty when it could."""
        deadline_s = self.settings.streamgauge_probe_deadline_s
        try:
            await asyncio.wait_for(self.refresher.fresh(), deadline_s)
        except (Unavailable, TimeoutError) as why:
            return [str(why) or f"no snapshot within {deadline_s:g} s"]
        return []

    async def _take(self) -> View:
        assert self._snapshots is not None
        self.streams.start_counting()
        try:
            return await self._snapshots.take()
        except OtherDatabase as error:
            self._hosts.require_identity(error.wanted)
            await self.pool.expire_connections()
            raise

    async def _unaccounted(self, waiting: list[Waiting]) -> dict[str, int]:
        ids = [UUID(bytes=entry.producer_id) for entry in waiting]
        try:
            async with acquire(self.pool) as connection:
                rows = await connection.fetch(load("exporter_unaccounted"), ids, [entry.seq for entry in waiting])
        except AWAY as error:
            raise ConnectionError(f"ledger: {error_text(error)}") from error
        found: dict[str, int] = {}
        for row in rows:
            entry = waiting[int(row["position"]) - 1]
            found[entry.service] = found.get(entry.service, 0) + entry.events
        return found


async def _close(pool: Pool) -> None:
    try:
        await asyncio.wait_for(pool.close(), STOP_GRACE_S)
    except TimeoutError:
        pool.terminate()
