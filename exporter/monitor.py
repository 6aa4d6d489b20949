"""ProductionMonitor: how everything is, in one look: each component with its reason, severity, latency and since-when.

In: settings, Redis, PostgreSQL, the refresher. Out: a Report. Promise: all probes run side by side, each under one
deadline; a probe that hangs is left behind, not waited for, and is not asked again before it has ended; nothing that
is told holds a user or a password.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from database.connect import AWAY, Pool, acquire, open_pool
from database.queries import load
from database.redis_link import Link, open_link
from database.replicas import open_replicas, read_replicas
from exporter.components import (
    aggregators,
    postgres,
    producers,
    redis_nodes,
    schedule,
    shards,
    snapshot,
    thresholds,
    watermark,
)
from exporter.components.component import AWAY as SILENT
from exporter.components.component import RANK, Component, Probe, Severity, Sources, Status, describe
from exporter.refresh import Refresher
from exporter.settings import ExporterSettings
from exporter.since import Since, State
from exporter.streams import COUNT_DEADLINE_S

log = logging.getLogger(__name__)

KINDS: Final = (postgres, redis_nodes, shards, aggregators, producers, watermark, schedule, snapshot)
POOL_SIZE: Final = 4
STOP_GRACE_S: Final = 2.0


class Reading(NamedTuple):
    """A component as it was found."""

    component: Component
    kind: str
    severity: Severity
    latency_ms: float
    since: datetime

    @property
    def status(self) -> Status:
        """How it is."""
        return self.component.status


class Report(NamedTuple):
    """All of it at one time."""

    status: Status
    at: datetime
    took_ms: float
    readings: list[Reading]


class Answered(NamedTuple):
    """What one probe gave."""

    probe: Probe
    components: list[Component]
    latency_ms: float


class ProductionMonitor:
    """Asks when it is asked; those who ask at the same time share one look."""

    def __init__(self, settings: ExporterSettings, refresher: Refresher) -> None:
        self._settings = settings
        self._refresher = refresher
        self._deadline_s = settings.streamgauge_probe_deadline_s
        replicas = settings.streamgauge_postgres_replicas
        self._addresses = read_replicas(replicas.get_secret_value()) if replicas else {}
        self._link: Link = open_link(settings, at_most_s=COUNT_DEADLINE_S)
        self._sources: Sources | None = None
        self._since = Since()
        self._breaches = thresholds.Breaches()
        self._looking: asyncio.Task[Report] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._hanging: dict[str, asyncio.Future[Any]] = {}
        self._names: dict[str, list[str]] = {}
        """Components that a probe told of when it last answered."""
        self._broken: set[str] = set()
        """Probes whose fault is in the log."""

    async def open(self) -> None:
        """Make the pools, apart from those that scrapes need; connections are made when they are needed."""
        shorter = {
            "streamgauge_statement_timeout_s": self._deadline_s,
            "streamgauge_postgres_connect_timeout_s": self._deadline_s,
        }
        settings = self._settings.model_copy(update=shorter)
        pool = await open_pool(settings, application="streamgauge monitor", size=POOL_SIZE)
        replicas = await open_replicas(self._addresses, settings)
        self._sources = Sources(self._settings, pool, self._link, self._refresher, replicas)

    async def aclose(self) -> None:
        """End what is under way and close everything."""
        tasks = [*self._hanging.values(), *filter(None, (self._looking, self._writing))]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_GRACE_S)
        await self._link.aclose()
        if self._sources is not None:
            for pool in (self._sources.pool, *self._sources.replicas.values()):
                await _close(pool)

    async def look(self) -> Report:
        """Return how everything is; takes no longer than the deadline of a probe."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="monitor - look")
        return await asyncio.shield(self._looking)

    async def _look(self) -> Report:
        assert self._sources is not None, "BUG: the monitor is not open"
        began = time.perf_counter()
        probes = [probe for kind in KINDS for probe in kind.probes(self._sources)]
        probes += thresholds.probes(self._sources, self._breaches)
        asked = asyncio.gather(*map(self._ask, probes))
        found, _ = await asyncio.gather(asked, self._load_since(self._sources.pool))
        now = datetime.now(UTC)
        statuses = {one.name: one.status.value for answer in found for one in answer.components}
        since = self._since.note(statuses, now)
        readings = [
            Reading(one, answer.probe.kind, answer.probe.severity, answer.latency_ms, since[one.name])
            for answer in found
            for one in answer.components
        ]
        self._write_since(self._sources.pool)
        return Report(judge(readings), now, _ms(began), readings)

    async def _ask(self, probe: Probe) -> Answered:
        began = time.perf_counter()
        try:
            components = await self._within_deadline(probe)
            self._names[probe.name] = [one.name for one in components]
            self._broken.discard(probe.name)
        except SILENT as error:
            late = isinstance(error, TimeoutError)
            reason = f"no answer within {self._deadline_s:g} s" if late else describe(error)
            components = self._all_of(probe, probe.if_silent, reason)
        except Exception as error:  # A fault of one probe must not take the sight of all the others.
            if probe.name not in self._broken:
                log.exception("probe_failed", extra={"probe": probe.name})
                self._broken.add(probe.name)
            components = self._all_of(probe, Status.UNKNOWN, f"its probe failed: {type(error).__name__}")
        return Answered(probe, components, _ms(began))

    def _all_of(self, probe: Probe, status: Status, reason: str) -> list[Component]:
        """Return the same of every component that a probe told of."""
        return [Component(name, status, reason) for name in self._names.get(probe.name) or [probe.name]]

    async def _within_deadline(self, probe: Probe) -> list[Component]:
        """Return what a probe says; TimeoutError when it hangs.

        A probe that is cancelled may hang on (a driver waits for the server to confirm), so it is not waited for.
        """
        task = self._hanging.pop(probe.name, None)
        if task is None or task.done():
            task = asyncio.ensure_future(probe.ask())
            task.add_done_callback(_take_result)
        else:
            self._hanging[probe.name] = task
            raise TimeoutError
        done, _ = await asyncio.wait({task}, timeout=self._deadline_s)
        if not done:
            self._hanging[probe.name] = task
            task.cancel()
            raise TimeoutError
        return task.result()

    async def _load_since(self, pool: Pool) -> None:
        """Read what is written down, once."""
        if self._since.is_loaded:
            return

        async def read() -> list[Component]:
            async with acquire(pool) as connection:
                rows = await connection.fetch(load("monitor_states"))
            self._since.load({row["name"]: State(row["status"], row["since"]) for row in rows})
            return []

        with contextlib.suppress(*SILENT):
            await self._within_deadline(Probe("states", "", Severity.INFO, read))

    def _write_since(self, pool: Pool) -> None:
        """Write changes down in the background; what fails is written with the next look."""
        changes = self._since.unwritten()
        if not changes or not self._since.is_loaded or (self._writing and not self._writing.done()):
            return

        async def write() -> None:
            names, states = zip(*changes, strict=True)
            columns = list(names), [one.status for one in states], [one.since for one in states]
            try:
                async with acquire(pool) as connection:
                    await connection.execute(load("monitor_store_states"), *columns)
                self._since.wrote(changes)
            except SILENT as error:
                log.warning("states_not_written", extra={"error": type(error).__name__})

        self._writing = asyncio.create_task(write(), name="monitor - states")


def judge(readings: Sequence[Reading]) -> Status:
    """Down when something critical is down; degraded while anything but information is not ok."""
    if any(one.severity is Severity.CRITICAL and one.status is Status.DOWN for one in readings):
        return Status.DOWN
    concerned = (one for one in readings if one.severity is not Severity.INFO)
    return Status.OK if all(one.status is Status.OK for one in concerned) else Status.DEGRADED


def worst(readings: Sequence[Reading]) -> Reading:
    """Return the one that is furthest from ok."""
    return max(readings, key=lambda one: RANK[one.status])


def _take_result(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


async def _close(pool: Pool) -> None:
    try:
        await asyncio.wait_for(pool.close(), STOP_GRACE_S)
    except AWAY:
        pool.terminate()


def _ms(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 2)
