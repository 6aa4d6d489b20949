"""Execution: one attempt at a run, from its first beat to the row that says how it ended.

In: a claimed run, its job, the connection that holds the job's lock. Out: a Result, stored with the run.
Promise: an attempt that outlives its time, its lock or its aggregator is stopped; whatever a job raises ends its run,
never the service.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from redis.exceptions import RedisError

from aggregator.schedule_settings import ScheduleSettings
from aggregator.settled import describe, until_complete
from contract.crash import CrashPoint
from contract.errors import error_text
from database import jobs
from database.connect import AWAY, Connection, Pool
from database.jobs import Claim, Keep
from database.progress import MINUTE_S
from database.settings import SettingsError
from optimizers.job import Job, Outcome, Result, Run
from optimizers.settings import OptimizerSettings

log = logging.getLogger(__name__)

STOP_S: Final = 5.0
"""How long a job that was told to stop may take for it."""
RELEASE_S: Final = 3.0
FINISH_TRIES: Final = 5
SEALED_AFTER_S: Final = 1.0
"""Producers seal several times a second: what happened before a slot is in the streams so long after it."""

OUTSIDE: Final = (*AWAY, RedisError)


class Lost(Exception):
    """The connection that holds the lock is gone, or another aggregator has begun the run again."""


@dataclass(frozen=True)
class Execution:
    """What all attempts of one aggregator share."""

    settings: ScheduleSettings
    job_settings: OptimizerSettings
    consumer: str
    pool: Pool
    """For the schedule's own statements."""
    job_pool: Pool
    until_settled: Callable[[float], Awaitable[str | None]]
    """Waits for what the streams hold now to be committed; returns what was missing after so many seconds."""
    keep: Keep
    """Keeps the tallies of runs where a failover of PostgreSQL does not lose them."""
    crash: CrashPoint

    async def attempt(self, job: Job, claim: Claim, lock: Connection) -> None:
        """Run a job and write down how it ended; a cancelled attempt hands its run back."""
        log.info("run_began", extra={"job": job.name, "slot": str(claim.scheduled_for), "attempt": claim.attempt})
        try:
            result = await self._result(job, claim, lock)
        except asyncio.CancelledError:
            await self._release(claim)
            raise
        level = logging.WARNING if result.outcome in (Outcome.FAILED, Outcome.TIMED_OUT) else logging.INFO
        log.log(level, "run_ended", extra={"job": job.name, "outcome": result.outcome, "detail": result.detail})
        await self._finish(claim, result)

    async def _result(self, job: Job, claim: Claim, lock: Connection) -> Result:
        """Let the job work under its beats until it ends, its time is over or its lock is lost."""
        limit_s = job.timeout_s + (self.settings.streamgauge_schedule_wait_s if job.judges_data else 0.0)
        work = asyncio.create_task(self._work(job, claim), name=f"job {job.name}")
        beats = asyncio.create_task(self._beat(job, claim, lock), name=f"job {job.name} - beats")
        try:
            await asyncio.wait({work, beats}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            was_done = work.done()
            await _stop(work, beats)
        if was_done:
            return _judge(job, work)
        if beats.done() and not beats.cancelled() and (error := beats.exception()) is not None:
            return Result(Outcome.FAILED, f"stopped: {error}")
        return Result(Outcome.TIMED_OUT, f"stopped after {limit_s:g} s")

    async def _work(self, job: Job, claim: Claim) -> Result:
        missing = await self._until_complete(job, claim) if job.judges_data else None
        result = await job.run(Run(self.job_pool, self.job_settings, claim.scheduled_for, job.every_s))
        if missing is None:
            return result
        log.warning("data_not_settled", extra={"job": job.name, "reason": missing})
        detail = f"{missing}; {result.detail}" if result.detail else missing
        return replace(result, detail=detail, facts={**result.facts, "settled": False})

    async def _until_complete(self, job: Job, claim: Claim) -> str | None:
        """Wait until the windows that a job judges are complete; returns what is missing all the same."""
        slot_s = claim.scheduled_for.timestamp()
        await asyncio.sleep(min(max(slot_s + SEALED_AFTER_S - time.time(), 0.0), SEALED_AFTER_S))
        wait_s = self.settings.streamgauge_schedule_wait_s
        until_s = time.monotonic() + wait_s
        missing = await self.until_settled(wait_s)
        to_s = int(slot_s) // MINUTE_S * MINUTE_S
        from_s = to_s - max(int(job.judges_s), MINUTE_S) // MINUTE_S * MINUTE_S
        partial = await until_complete(self.pool, from_s, to_s, until_s - time.monotonic())
        if not partial.minutes:
            return missing
        waited = f"after {wait_s:g} s " if partial.may_come else ""
        return f"{f'{missing}; ' if missing else ''}{waited}{describe(partial)}"

    async def _beat(self, job: Job, claim: Claim, lock: Connection) -> None:
        """Beat on the connection that holds the lock: one without the other means nothing. Raises Lost."""
        self.crash.reach(f"in_job:{job.name}")
        while True:
            await asyncio.sleep(self.settings.streamgauge_schedule_beat_s)
            try:
                is_ours = await jobs.beat(lock, claim, self.consumer)
            except AWAY as error:
                raise Lost(f"the connection that holds its lock failed: {error_text(error)}") from error
            if not is_ours:
                raise Lost("another aggregator has begun it again")

    async def _finish(self, claim: Claim, result: Result) -> None:
        """Write the end down, for as long as a restart of the server takes; else the stopped beat tells."""
        for again in range(1, FINISH_TRIES + 1):
            try:
                outcome, detail = str(result.outcome), result.detail
                if not await jobs.finish(self.pool, claim, self.consumer, outcome, detail, result.facts, self.keep):
                    log.warning("run_taken_over", extra={"job": claim.job, "slot": str(claim.scheduled_for)})
                return
            except AWAY as error:
                log.warning("run_not_written", extra={"job": claim.job, "error": error_text(error)})
                await asyncio.sleep(again)

    async def _release(self, claim: Claim) -> None:
        try:
            async with asyncio.timeout(RELEASE_S):
                await jobs.release(self.pool, claim, self.consumer)
        except AWAY as error:
            log.warning("run_not_released", extra={"job": claim.job, "error": error_text(error)})


async def _stop(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    _, running = await asyncio.wait(tasks, timeout=STOP_S)
    for task in running:
        log.error("job_does_not_stop", extra={"task": task.get_name(), "waited_s": STOP_S})
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # seen: what a stopped task raises on its way out says nothing new


def _judge(job: Job, work: asyncio.Task[Result]) -> Result:
    """Turn what a job returned or raised into its result."""
    try:
        return work.result()
    except asyncio.CancelledError:
        return Result(Outcome.FAILED, "BUG: it cancelled itself")
    except SettingsError as error:
        return Result(Outcome.FAILED, f"bad setting: {error}")
    except OUTSIDE as error:
        log.warning("job_failed", extra={"job": job.name, "error": error_text(error)})
        return Result(Outcome.FAILED, error_text(error))
    except Exception as error:
        # A bug in one job must not stop the pipeline; its row, its metric and this line show it.
        log.exception("job_has_a_bug", extra={"job": job.name})
        return Result(Outcome.FAILED, f"BUG: {error_text(error)}")
