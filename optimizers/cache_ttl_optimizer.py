"""CacheTtlOptimizer: the lifetimes of cached keys, judged every six hours and changed one at a time.

In: minutes that are rolled up, settings. Out: recommendations; when enabled, lifetimes in Redis for the caches to read.
Promise: a slot is judged once, in one transaction; begun again after a crash it only publishes what was decided.
"""

import logging
from datetime import UTC, datetime
from typing import Final

from database.cache_lifetimes import Cycle, note_published, read_cycle, read_lifetimes, store_cycle
from database.cache_samples import MINUTE_S, read_classes
from database.connect import Connection, acquire
from optimizers.cache_ttl.cycle import Seen, Wishes, plan
from optimizers.cache_ttl.publish import publish
from optimizers.cache_ttl.rules import Limits
from optimizers.job import Job, Outcome, Result, Run
from optimizers.settings import OptimizerSettings

log = logging.getLogger(__name__)

NAME: Final = "cache_ttl"
INTERVAL_S: Final = 6 * 3600
LONGEST_S: Final = 24 * 3600
"""Of what a class did, at most so much is judged at once."""
SETTLE_S: Final = 120
"""The newest minutes may not be rolled up yet; the next cycle takes them."""


def wishes_of(settings: OptimizerSettings) -> Wishes:
    """Return what a person set."""
    caps = settings.cache_ttl_caps()

    def limits(key_class: str) -> Limits:
        return Limits(
            settings.streamgauge_cache_ttl_hit_ratio,
            settings.streamgauge_cache_ttl_stale_share,
            caps.get(key_class, settings.streamgauge_cache_ttl_cap_s),
        )

    return Wishes(settings.streamgauge_cache_ttl_apply, limits)


class CacheTtlOptimizer:
    """Judges lifetimes and publishes them."""

    async def run_cycle(self, run: Run) -> Result:
        """Judge every class of keys, unless this slot was judged already, and publish what is decided."""
        async with acquire(run.pool) as connection:
            found = await read_cycle(connection, run.scheduled_for)
            if found is not None:
                await _publish(connection, run.settings)
                outcome, detail, facts = found
                return Result(Outcome(outcome), detail, facts)
            # What Redis was not told has not been tried, and cannot be judged.
            await _publish(connection, run.settings, only_missed=True)
            cycle = await self._judge(connection, run)
            await store_cycle(connection, cycle)
            _tell(cycle)
            await _publish(connection, run.settings)
        return Result(Outcome(cycle.outcome), cycle.detail, cycle.facts)

    async def _judge(self, connection: Connection, run: Run) -> Cycle:
        known = await read_lifetimes(connection)
        end_s = (int(run.scheduled_for.timestamp()) - SETTLE_S) // MINUTE_S * MINUTE_S
        starts = {
            one.key_class: _minute_from(max(limits))
            for one in known.values()
            if (limits := [at.timestamp() for at in (one.judged_to, one.published_at) if at is not None])
        }
        bounded = {key_class: max(at_s, end_s - LONGEST_S) for key_class, at_s in starts.items()}
        samples = await read_classes(connection, bounded, end_s - INTERVAL_S, end_s)
        seen = Seen(run.scheduled_for, datetime.fromtimestamp(end_s, UTC), known, samples)
        return plan(seen, wishes_of(run.settings))


def _minute_from(at_s: float) -> int:
    """Return the first whole minute that begins at `at_s` or after."""
    return -int(-at_s // MINUTE_S) * MINUTE_S


async def _publish(connection: Connection, settings: OptimizerSettings, *, only_missed: bool = False) -> None:
    lifetimes = (await read_lifetimes(connection)).values()
    if only_missed:
        # What is about to be given back is not set once more before.
        is_set = settings.streamgauge_cache_ttl_apply
        lifetimes = [one for one in lifetimes if one.published_at is None and (is_set or one.applied_s is None)]
    published = await publish(settings, lifetimes)
    if published:
        await note_published(connection, published)


def _tell(cycle: Cycle) -> None:
    if cycle.applied is not None:
        log.info("cache_ttl_changed", extra={"change": cycle.facts["change"]})
    for undo in cycle.undone:
        log.warning("cache_ttl_undone", extra={"class": undo.key_class, **undo.evidence})


async def run_cycle(run: Run) -> Result:
    """Judge the lifetimes once."""
    return await CacheTtlOptimizer().run_cycle(run)


JOB: Final = Job(NAME, "Judge cache lifetimes", INTERVAL_S, run_cycle, judges_s=INTERVAL_S)
