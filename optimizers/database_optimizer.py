"""DatabaseOptimizer: every check on every target, one run at a time, its findings kept and its cost measured.

In: the pool of the monitoring database and settings. Out: answers, findings and changes in its tables; a Result.
Promise: one runner among many, never more than 5 connections, no check once its share of database time is used;
a check that fails is an entry of its own and never fails the run.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from database import optimization
from database.connect import AWAY, Connection, Pool, acquire, is_lost
from database.optimization import Answered
from database.settings import SettingsError
from optimizers import actions
from optimizers.answering import answer, describe, failed
from optimizers.check import Check, Tier
from optimizers.check_settings import read_checks
from optimizers.checks import CHECKS
from optimizers.counters import Counters
from optimizers.job import Job, Outcome, Result, Run
from optimizers.meter import Meter, budget_s
from optimizers.settings import OptimizerSettings
from optimizers.target_look import Facts, Nodes, TargetLook, read_facts
from optimizers.targets import APPLICATION, Target, connected, read_targets

INTERVAL_S: Final = 3600.0
LONGEST_RUN_S: Final = 900.0
LOCKED: Final = "another run is under way"
_STORE_SESSION: Final = (
    f"SET application_name = '{APPLICATION}'; SET lock_timeout = '1s'; SET statement_timeout = '30s'"
)


@dataclass
class Tally:
    """What a run did."""

    statuses: Counter[str] = field(default_factory=Counter[str])
    found: int = 0
    changes: int = 0
    left: int = 0
    """Checks that wait for the next run: the share of database time was used."""

    def add(self, said: Answered) -> None:
        """Count one check's answer."""
        status = said.error_kind or ("insufficient_data" if said.insufficient else "answered")
        self.statuses[status] += 1
        self.found += len(said.fingerprints)


@dataclass(frozen=True)
class Visit:
    """What the checks of one target share."""

    target: Target
    nodes: Nodes
    facts: Facts
    store: Connection
    now: datetime


class DatabaseOptimizer:
    """The checks, the targets and the rules of a run."""

    def __init__(self, pool: Pool, settings: OptimizerSettings, kinds: Sequence[type[Check]] = CHECKS) -> None:
        """SettingsError names a bad target or threshold."""
        self.settings = settings
        self.targets = read_targets(settings)
        self.checks = read_checks(kinds, settings.streamgauge_checks_file)
        self._pool = pool

    async def run(self, now: datetime | None = None, *, only: str | None = None, every_s: float = INTERVAL_S) -> Result:
        """Look at every target (or `only` one) once, in a share of `every_s`; SKIPPED when another run is under way."""
        targets = [target for target in self.targets if only in (None, target.name)]
        if not targets:
            raise SettingsError(f"STREAMGAUGE_OPTIMIZER_TARGETS: no target is called {only}")
        meter, tally = Meter(budget_s(every_s)), Tally()
        async with self.store(meter) as store:
            if not await optimization.try_lock(store):
                await optimization.skip(store, LOCKED)
                return Result(Outcome.SKIPPED, LOCKED)
            run_id, status = await optimization.begin(store), "failed"
            try:
                for target in targets:
                    await self._look_at(target, store, meter, tally, now or datetime.now(UTC))
                names = [target.name for target in self.targets]
                await optimization.forget_others(store, names, [check.id for check in self.checks])
                status = "done"
            finally:
                if not is_lost(store):
                    await optimization.end(store, run_id, status, meter.statement_s, meter.peak)
        return _result(tally, meter)

    @asynccontextmanager
    async def store(self, meter: Meter) -> AsyncGenerator[Connection, None]:
        """Borrow a connection of the store, which says who it is and is metered."""
        async with meter.place(), acquire(self._pool) as store:
            # The pool resets these, and frees the advisory lock, when the connection goes back.
            await store.execute(_STORE_SESSION)
            async with meter.metered(store):
                yield store

    async def _look_at(self, target: Target, store: Connection, meter: Meter, tally: Tally, now: datetime) -> None:
        waiting, said = await self._in_turn(store, target), list[Answered]()
        why_not: str | None = None
        try:
            async with self._nodes(target, meter) as nodes:
                visit = Visit(target, nodes, await read_facts(nodes.primary), store, now)
                while waiting and not is_lost(nodes.primary) and not meter.is_spent:
                    said.append(await self._ask(waiting.pop(0), visit, tally))
                await _note(visit)
                why_not = "the connection was lost" if is_lost(nodes.primary) else None
        except AWAY as error:
            if is_lost(store):
                raise
            why_not = describe(error)
            await optimization.note_target(store, target.name, None, None, {"error": why_not})
        if why_not is not None:
            for check in waiting:
                blank = Answered(target.name, check.id, check.title, now, 0.0)
                await self._keep(failed(blank, "unreachable", why_not), store, tally)
        elif waiting:
            tally.left += len(waiting)
        await self._act(target, said, store, meter, tally)

    async def _in_turn(self, store: Connection, target: Target) -> list[Check]:
        """Return the checks, those that waited longest first: the share of database time is for all of them."""
        looked = await optimization.last_looks(store, target.name)
        never = datetime.min.replace(tzinfo=UTC)
        return sorted(self.checks, key=lambda check: looked.get(check.id, never))

    @asynccontextmanager
    async def _nodes(self, target: Target, meter: Meter) -> AsyncGenerator[Nodes, None]:
        limit_s = self.settings.streamgauge_postgres_connect_timeout_s
        replicas = {
            f"replica {number}": partial(connected, address, meter, limit_s)
            for number, address in enumerate(target.replicas, 1)
        }
        async with connected(target.address, meter, limit_s) as primary:
            nodes = Nodes(primary, replicas)
            await nodes.probe()
            yield nodes

    async def _ask(self, check: Check, visit: Visit, tally: Tally) -> Answered:
        shortest_s = self.settings.streamgauge_optimizer_shortest_interval_s
        name, epoch = visit.target.name, visit.facts.epoch
        counters = Counters(visit.store, name, check.id, epoch, visit.now, shortest_s)
        is_ours = visit.target.is_monitoring
        look = TargetLook(visit.nodes, self.settings, visit.now, is_ours, visit.facts, counters)
        said = await answer(check, visit.target, look)
        await self._keep(said, visit.store, tally)
        return said

    async def _keep(self, said: Answered, store: Connection, tally: Tally) -> None:
        tally.add(said)
        settings = self.settings
        until_open = settings.streamgauge_optimizer_open_after_runs
        until_resolved = settings.streamgauge_optimizer_resolve_after_runs
        await optimization.store_answer(store, said, until_open, until_resolved)

    async def _act(
        self, target: Target, said: Sequence[Answered], store: Connection, meter: Meter, tally: Tally
    ) -> None:
        findings = [found for each in said for found in each.findings if found["tier"] == Tier.AUTOMATIC]
        if not findings or target.apply is None or not self.settings.streamgauge_optimizer_automatic:
            return
        limit_s = self.settings.streamgauge_postgres_connect_timeout_s
        async with connected(target.apply, meter, limit_s, changes=True) as connection:
            tally.changes += await actions.act(store, connection, self.settings, findings, lambda: meter.left_s)


async def _note(visit: Visit) -> None:
    facts, nodes = visit.facts, visit.nodes
    seen = [name for name in ("primary", *nodes.replicas) if name not in nodes.unseen]
    shown: dict[str, Any] = {
        "version": facts.server_version,
        "has_pg_stat_statements": "pg_stat_statements" in facts.extensions,
        "has_hypopg": "hypopg" in facts.extensions,
        "nodes_seen": seen,
        "nodes_unseen": nodes.unseen,
    }
    await optimization.note_target(visit.store, visit.target.name, facts.epoch, facts.stats_age_s, shown)


def _result(tally: Tally, meter: Meter) -> Result:
    said = ", ".join(f"{count} {status}" for status, count in tally.statuses.most_common())
    facts = {
        "checks": dict(tally.statuses),
        "findings": tally.found,
        "changes": tally.changes,
        "left_for_next_run": tally.left,
        "statement_s": round(meter.statement_s, 3),
        "connections": meter.peak,
    }
    outcome = Outcome.DONE if tally.statuses["answered"] else Outcome.INSUFFICIENT_DATA
    if tally.statuses.total() and tally.statuses["unreachable"] == tally.statuses.total():
        outcome = Outcome.FAILED
    left = f"; {tally.left} left for the next run" if tally.left else ""
    return Result(outcome, f"checks: {said}; {tally.found} found, {tally.changes} changed{left}", facts)


def require_settings(settings: OptimizerSettings) -> None:
    """Raise SettingsError for a bad target or threshold, before the first run would."""
    read_targets(settings)
    read_checks(CHECKS, settings.streamgauge_checks_file)


async def run_optimization(run: Run) -> Result:
    """Run once for the schedule."""
    return await DatabaseOptimizer(run.pool, run.settings).run(every_s=run.every_s or INTERVAL_S)


JOB: Final = Job(
    "run_optimization", "database checks and findings", INTERVAL_S, run_optimization, timeout_s=LONGEST_RUN_S
)
