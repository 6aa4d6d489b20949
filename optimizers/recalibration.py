"""Recalibration: the daily job that learns thresholds from 28 days of 5-minute samples.

In: rollups of minutes, the definitions, the limits held. Out: new limits in PostgreSQL, a row per change.
Promise: a run that is repeated changes nothing more; one metric without data does not keep the others from theirs.
"""

import asyncio
from collections.abc import Sequence
from math import isnan
from typing import Any, Final

import numpy as np

from database import thresholds
from database.connect import Connection, acquire, transaction
from database.queries import load
from database.retention import RETIRE_AFTER_S
from database.threshold_samples import Samples, read_history
from database.thresholds import Value, moment
from optimizers.job import Job, Outcome, Result, Run
from optimizers.thresholds.calibrate import HISTORY_DAYS, Decision, Held, Rule, decide
from optimizers.thresholds.definitions import Definition, read_definitions
from optimizers.thresholds.deploys import SHORTEST_LIFE_S, Life, Span, deploys
from optimizers.thresholds.rules import DAY_S, STEP_S, Flags, Limits

NAME: Final = "recalibrate_thresholds"
EMPTY: Final = Samples(np.empty(0, dtype=np.int64), np.empty(0))


async def recalibrate(run: Run) -> Result:
    """Judge every threshold."""
    definitions = read_definitions(run.settings.streamgauge_thresholds_file)
    now_s = int(run.scheduled_for.timestamp()) // STEP_S * STEP_S
    methods: dict[str, int] = {}
    frozen: dict[str, str] = {}
    unproved: dict[str, int] = {}
    changed = 0
    judged: list[int] = []
    async with acquire(run.pool) as connection:
        deploying = await note_deploys(connection, now_s)
        for definition in definitions:
            for threshold_id, label, decision, n in await _recalibrate_one(connection, definition, deploying, now_s):
                judged.append(threshold_id)
                changed += n
                if decision.unproved:
                    unproved[label] = decision.unproved
                if decision.frozen:
                    frozen[label] = decision.frozen
                else:
                    methods[decision.method] = methods.get(decision.method, 0) + 1
        await connection.execute(load("thresholds_retire"), judged)
    facts: dict[str, Any] = {"methods": methods, "frozen": frozen, "unproved": unproved, "changed_buckets": changed}
    learnt = methods.get("global", 0) + methods.get("seasonal", 0)
    said = f"{learnt} learnt, {methods.get('static', 0)} static, {len(frozen)} frozen; {changed} buckets changed"
    if unproved:
        said += f"; of {len(unproved)} too few samples of some hours for the back-test"
    if not learnt and not frozen:
        return Result(Outcome.INSUFFICIENT_DATA, f"less than 7 days of history: {said}", facts)
    return Result(Outcome.DONE, said, facts)


async def _recalibrate_one(
    connection: Connection, definition: Definition, deploying: Sequence[Span], now_s: int
) -> list[tuple[int, str, Decision, int]]:
    from_s = now_s - HISTORY_DAYS * DAY_S
    history = await read_history(connection, definition.source, from_s, now_s)
    routes = sorted(history) if definition.source.by_route else [""]
    wanted = [(definition.name, route, rule.side, definition.source) for route in routes for rule in definition.rules]
    if not wanted:
        return []
    ids = await thresholds.register(connection, wanted)
    excluded = await _excluded(connection, definition, deploying, from_s)
    found: list[tuple[int, str, Decision, int]] = []
    for route in routes:
        samples = history.get(route, EMPTY)
        out = _within(samples, excluded)
        for rule in definition.rules:
            threshold_id = ids[definition.name, route, rule.side]
            decision, n = await _judge(connection, threshold_id, samples, out, rule, now_s)
            found.append((threshold_id, f"{definition.name} {route} {rule.side}", decision, n))
    return found


async def note_deploys(connection: Connection, now_s: float) -> list[Span]:
    """Keep the deploys of the last days, whose producers will retire; returns those that may still be going on."""
    rows = await connection.fetch(load("producer_lives"))
    lives = [Life(row["service"], row["began_s"], row["seen_s"]) for row in rows]
    # A day less than producers are kept: all that were there then still are.
    found = deploys(lives, now_s - RETIRE_AFTER_S + DAY_S, now_s)
    over = [span for span in found if span.to_s < now_s - SHORTEST_LIFE_S]
    columns = [s.service for s in over], [moment(s.from_s) for s in over], [moment(s.to_s) for s in over]
    forgotten = moment(now_s - HISTORY_DAYS * DAY_S)
    await connection.execute(load("threshold_exclude_deploys"), *columns, NAME, forgotten)
    return [span for span in found if span not in over]


async def _excluded(
    connection: Connection, definition: Definition, deploying: Sequence[Span], from_s: int
) -> list[tuple[float, float]]:
    since = moment(from_s)
    rows = await connection.fetch(load("threshold_exclusions"), definition.name, since, definition.service)
    own = [span for span in deploying if definition.service in ("", span.service)]
    return [(row["from_s"], row["to_s"]) for row in rows] + [(span.from_s, span.to_s) for span in own]


def _within(samples: Samples, spans: list[tuple[float, float]]) -> Flags:
    """Return which samples overlap a span."""
    out = np.zeros(len(samples.at_s), dtype=bool)
    for low, high in spans:
        out |= (samples.at_s + STEP_S > low) & (samples.at_s < high)
    return out


async def _judge(
    connection: Connection, threshold_id: int, samples: Samples, excluded: Flags, rule: Rule, now_s: int
) -> tuple[Decision, int]:
    rows = await connection.fetch(load("threshold_values"), threshold_id)
    held = {r["bucket"]: Held(r["warn"], r["critical"], r["method"], r["is_pinned"], r["age_days"]) for r in rows}
    old = [(row["age_days"], row["median"]) for row in await connection.fetch(load("threshold_medians"), threshold_id)]
    decision = await asyncio.to_thread(decide, *samples, excluded, rule, held, old, now_s)
    async with transaction(connection):
        n = await _store(connection, threshold_id, decision) if decision.values else 0
        await connection.execute(load("threshold_judged"), threshold_id, decision.frozen)
        if decision.frozen is None and decision.median is not None:
            await connection.execute(load("threshold_add_median"), threshold_id, decision.median)
    return decision, n


async def _store(connection: Connection, threshold_id: int, decision: Decision) -> int:
    values = [_value(bucket, one) for bucket, one in sorted(decision.values.items())]
    options: dict[str, Any] = {"method": decision.method, "dropped": decision.dropped}
    return await thresholds.set_values(connection, threshold_id, values, reason="recalibrated", actor=NAME, **options)


def _value(bucket: int, one: Limits) -> Value:
    known = not isnan(one.median)
    return Value(bucket, one.warn, one.critical, one.n, one.median if known else None, one.mad if known else None)


JOB: Final = Job(
    NAME,
    "Learn alert thresholds from 28 days",
    DAY_S,
    recalibrate,
    judges_s=HISTORY_DAYS * DAY_S,
    timeout_s=900.0,
)
