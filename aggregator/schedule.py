"""The schedule: APScheduler in every aggregator says when a job is due, PostgreSQL says whose run it is.

In: jobs, settings, the servers. Out: each slot run by one aggregator, also runs asked for by hand or left by a crash.
Promise: a job never runs twice at once; a run whose aggregator died is begun again by another, three times at most;
a stop hands unfinished runs back.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC
from typing import Any, Final

from apscheduler.schedulers.asyncio import AsyncIOScheduler  # pyright: ignore[reportMissingTypeStubs]

from aggregator.execution import OUTSIDE, Execution
from aggregator.schedule_settings import ScheduleSettings
from aggregator.settings import AggregatorSettings
from aggregator.slots import SlotTrigger
from contract.crash import CrashPoint
from contract.errors import error_text
from database import jobs
from database.connect import AWAY, Connection, open_pool
from database.hosts import Hosts
from database.jobs import Claim, Keep, Planned
from optimizers.job import Job

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0
"""How long a run that was asked for waits at most, while this aggregator has nothing else to begin."""
REGISTER_EVERY_S: Final = 600.0
STOP_GRACE_S: Final = 5.0
"""How long a stop waits for jobs under way before their runs are handed back."""
CLOSE_S: Final = 5.0
CLOCK_STEP_S: Final = 1.0
JOB_CONNECTIONS: Final = 8
"""Shared by all jobs that run at once in one aggregator."""


def with_intervals(planned: Sequence[Job], settings: ScheduleSettings) -> tuple[Job, ...]:
    """Return jobs with the intervals that the settings give them; one without a setting keeps its own."""
    every_s = {job.name: getattr(settings, f"streamgauge_{job.name}_interval_s", job.every_s) for job in planned}
    assert len(every_s) == len(planned), "BUG: two jobs of one name"
    return tuple(replace(job, every_s=every_s[job.name]) for job in planned)


async def run_schedule(
    planned: Sequence[Job],
    settings: AggregatorSettings,
    consumer: str,
    ahead_s: Callable[[], float],
    until_settled: Callable[[float], Awaitable[str | None]],
    keep: Keep,
    crash: CrashPoint,
    stopping: asyncio.Event,
    hosts: Hosts | None = None,
) -> None:
    """Run the schedule of one aggregator, with pools of its own, until stopped.

    Slots missed before the start are made up for at once; the first job's before the others', which may judge what it
    has to do.
    """
    # A run keeps one connection for its lock, whatever its job does with the other pool.
    pool = await open_pool(settings, application="streamgauge-schedule", size=len(planned) + 3, hosts=hosts)
    job_pool = await open_pool(settings, application="streamgauge-jobs", size=JOB_CONNECTIONS, hosts=hosts)
    try:
        execution = Execution(settings, settings, consumer, pool, job_pool, until_settled, keep, crash)
        await Schedule(planned, settings, execution, ahead_s).run(stopping)
    finally:
        for each in (job_pool, pool):
            try:
                await asyncio.wait_for(each.close(), CLOSE_S)
            except TimeoutError:
                each.terminate()


class Schedule:
    """Begins runs, one at a time per job, until stopped."""

    def __init__(
        self,
        planned: Sequence[Job],
        settings: ScheduleSettings,
        execution: Execution,
        ahead_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._jobs: Mapping[str, Job] = {job.name: job for job in with_intervals(planned, settings)}
        self._settings = settings
        self._execution = execution
        self._ahead_s = ahead_s
        """How far the database clock is ahead of ours."""
        self._due = {planned[0].name}
        """Jobs whose slot nobody is known to have begun."""
        self._first = planned[0].name
        self._not_made_up = set(self._jobs)
        """Jobs of which we have not yet looked for a slot missed while we were away."""
        self._running: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._registered_at = float("-inf")
        self._clocks = (0.0, 0.0)

    async def run(self, stopping: asyncio.Event) -> None:
        """Fire, begin, watch; raises what a task of ours dies of."""
        scheduler = self._scheduler()
        scheduler.start()
        self._clocks = self._read_clocks()
        stop = asyncio.create_task(stopping.wait(), name="schedule - stop")
        try:
            while not stopping.is_set():
                try:
                    await self._register()
                    await self._begin_all()
                    self._follow_clocks(scheduler)
                except OUTSIDE as error:
                    log.warning("step_failed", extra={"step": "schedule", "error": error_text(error)})
                self._raise_dead()
                await self._pause(stop)
        finally:
            stop.cancel()
            scheduler.shutdown(wait=False)
            await self._hand_back()

    def _scheduler(self) -> Any:
        """Return the scheduler with every job in it.

        It only says that a slot has begun. How late a slot may begin and whether missed ones coalesce is decided
        with the claim, where it holds for all aggregators; so here nothing is ever too late.
        """
        logging.getLogger("apscheduler").setLevel(logging.WARNING)
        scheduler: Any = AsyncIOScheduler(timezone=UTC)
        for job in self._jobs.values():
            trigger = SlotTrigger(job.every_s, self._settings.streamgauge_schedule_jitter_s, self._ahead_s)
            scheduler.add_job(
                self._fire,
                trigger,
                args=[job.name],
                id=job.name,
                coalesce=True,
                misfire_grace_time=None,
                max_instances=1,
            )
        return scheduler

    def _read_clocks(self) -> tuple[float, float]:
        """Return our wall clock against the monotonic one, and the database's against it."""
        wall_s = time.time() - time.monotonic()
        return wall_s, wall_s + self._ahead_s()

    def _follow_clocks(self, scheduler: Any) -> None:
        """Find the next slots anew when a clock was set: else a job waits for as long as it was set back."""
        now = self._read_clocks()
        if all(abs(new - old) <= CLOCK_STEP_S for new, old in zip(now, self._clocks, strict=True)):
            return
        log.warning("clock_set", extra={"ours_s": now[0] - self._clocks[0], "database_s": now[1] - self._clocks[1]})
        self._clocks = now
        for job in scheduler.get_jobs():
            scheduler.reschedule_job(job.id, trigger=job.trigger)

    async def _fire(self, name: str) -> None:
        self._due.add(name)
        self._wake.set()

    async def _register(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._registered_at + REGISTER_EVERY_S:
            return
        known = [Planned(job.name, job.title, job.every_s, job.judges_data) for job in self._jobs.values()]
        await jobs.register(self._execution.pool, known)
        self._registered_at = now

    async def _begin_all(self) -> None:
        """Begin what is due, what was asked for and what a crash left, except where a run of the job is under way."""
        if self._not_made_up and self._first not in self._due:
            self._due |= self._not_made_up
            self._not_made_up.clear()
        stale_s = self._settings.streamgauge_schedule_stale_s
        left = await jobs.open_runs(self._execution.pool, list(self._jobs), stale_s)
        for name in sorted({*left, *self._due} - self._running.keys()):
            if not await self._begin(self._jobs[name]) and left.get(name):
                log.warning("run_evicted", extra={"job": name})
                await jobs.evict(self._execution.pool, name, stale_s)

    async def _begin(self, job: Job) -> bool:
        """Claim a run of this job and start it; False if another session holds its lock."""
        async with AsyncExitStack() as stack:
            lock = await stack.enter_async_context(jobs.locked(self._execution.pool, job.name))
            if lock is None:
                return False
            claim = await self._claim(job, lock)
            if claim is not None:
                # The task keeps the connection, and the lock with it, until the run has ended.
                held = stack.pop_all()
                task = asyncio.create_task(self._attempt(job, claim, lock, held), name=f"run {job.name}")
                self._running[job.name] = task
                task.add_done_callback(lambda _: self._wake.set())
        return True

    async def _claim(self, job: Job, lock: Connection) -> Claim | None:
        settings, consumer, keep = self._settings, self._execution.consumer, self._execution.keep
        claim = await jobs.take(lock, job.name, consumer, settings.streamgauge_schedule_stale_s, keep)
        if claim is not None or job.name not in self._due:
            return claim
        claim = await jobs.claim_slot(
            lock,
            job.name,
            job.every_s,
            consumer,
            grace_s=settings.streamgauge_schedule_misfire_grace_s,
            coalesce=settings.streamgauge_schedule_coalesce,
            keep=keep,
        )
        if claim is None and not await jobs.is_open(lock, job.name):
            self._due.discard(job.name)
        return claim

    async def _attempt(self, job: Job, claim: Claim, lock: Connection, held: AsyncExitStack) -> None:
        try:
            await self._execution.attempt(job, claim, lock)
        finally:
            try:
                await held.aclose()
            except AWAY as error:
                log.warning("lock_lost", extra={"job": job.name, "error": error_text(error)})

    def _raise_dead(self) -> None:
        for name, task in list(self._running.items()):
            if task.done():
                del self._running[name]
                task.result()

    async def _pause(self, stop: "asyncio.Task[Any]") -> None:
        """Wait until a slot begins, a run ends, it is time to look, or we are stopping."""
        wake = asyncio.create_task(self._wake.wait(), name="schedule - wake")
        try:
            await asyncio.wait({wake, stop}, timeout=LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            wake.cancel()
            self._wake.clear()

    async def _hand_back(self) -> None:
        """Let runs under way end, or stop them so that another aggregator begins them again."""
        if not self._running:
            return
        _, running = await asyncio.wait(self._running.values(), timeout=STOP_GRACE_S)
        for task in running:
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
