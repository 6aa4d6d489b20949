"""First runs: every scheduled job once, with what it says, for a person who looks for the first time.

In: the address of PostgreSQL, jobs that the aggregators of a running stack register. Out: a line a job, as it ends.
Promise: an outcome is what the run wrote down: too little data says `insufficient_data`; what could not be run is said.
"""

import asyncio
import getpass
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from database import jobs
from database.connect import AWAY, Pool, open_pool
from database.settings import PostgresSettings, read_settings

DEADLINE_S: Final = 120.0
LOOK_EVERY_S: Final = 0.25


def first_runs(dsn: str, say: Callable[[str], None], check: Callable[[], None]) -> None:
    """Say how each job's run ended, in the order they end; `check` is called while waiting and may raise."""
    say("every job once:")
    asyncio.run(_first_runs(dsn, say, check))


async def _first_runs(dsn: str, say: Callable[[str], None], check: Callable[[], None]) -> None:
    settings = read_settings(PostgresSettings, {"POSTGRES_DSN": dsn})
    pool = await open_pool(settings, application="streamgauge-up", size=1)
    until_s = time.monotonic() + DEADLINE_S
    try:
        waiting = await _ask_for_all(pool, check, until_s)
        if not waiting:
            say(f"  no aggregator has offered a job within {DEADLINE_S:g} s")
        while waiting and time.monotonic() < until_s:
            check()
            for job, slot in list(waiting.items()):
                ended = await jobs.find_ended(pool, job, slot)
                if ended is not None:
                    del waiting[job]
                    say(_line(ended))
            await asyncio.sleep(LOOK_EVERY_S)
        for job in sorted(waiting):
            say(f"  {job:<24}has not ended after {DEADLINE_S:g} s")
    except (*AWAY, jobs.NoAggregator, jobs.NoSuchJob) as error:
        say(f"  the jobs could not be asked for: {type(error).__name__}: {error}")
    finally:
        await pool.close()


async def _ask_for_all(pool: Pool, check: Callable[[], None], until_s: float) -> dict[str, datetime]:
    """Ask once an aggregator is there: it registers its jobs when it is, and those of an earlier `up` may be known."""
    while time.monotonic() < until_s:
        check()
        names = [row["job"] for row in await jobs.list_jobs(pool)]
        if names and await jobs.is_aggregator_alive(pool):
            return {name: await jobs.request(pool, name, "cli", getpass.getuser()) for name in names}
        await asyncio.sleep(LOOK_EVERY_S)
    return {}


def _line(run: Mapping[str, Any]) -> str:
    took = f"{run['duration_s']:.1f} s" if run["duration_s"] is not None else ""
    return f"  {run['job']:<24}{run['outcome']:<19}{took:<8}{run['detail'] or ''}".rstrip()
