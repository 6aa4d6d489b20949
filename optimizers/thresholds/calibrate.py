"""Calibrate: from the history of one metric to new limits, or the reason why the old ones stay.

In: samples, what a person allows (Rule), the limits held now, medians of earlier runs, the time. Out: a Decision. Pure.
Promise: incidents, deploys and a slow leak do not teach a threshold; whatever keeps it is named.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from optimizers.thresholds import rules
from optimizers.thresholds.rules import DAY_S, STEP_S, Flags, Floats, Ints, Limits, Side

HISTORY_DAYS: Final = 28
JUDGED_DAYS: Final = 7
FEWEST_COVERED: Final = 0.70
MOST_DROPPED: Final = 0.10
MOST_SHIFTED: Final = 0.30
COMPARED_DAYS: Final = 28.0
CALIBRATED: Final = frozenset({"global", "seasonal"})


class Rule(NamedTuple):
    """What a person says about one side of a metric."""

    side: Side
    is_log: bool
    static_warn: float
    static_critical: float
    hard_min: float
    hard_max: float


class Held(NamedTuple):
    """A bucket's limits as they are."""

    warn: float
    critical: float
    method: str
    is_pinned: bool
    age_days: float


class Decision(NamedTuple):
    """What a run decided."""

    values: dict[int, Limits]
    """Buckets to set; empty when all stays."""
    method: str
    frozen: str | None
    """Why the old limits stay."""
    dropped: int
    median: float | None
    """Of all kept samples; None where too few."""
    unproved: int = 0
    """Buckets whose limit the back-test could not judge: too few samples of theirs in the last 7 days."""


def decide(
    at_s: Ints,
    values: Floats,
    excluded: Flags,
    rule: Rule,
    held: Mapping[int, Held],
    medians: Sequence[tuple[float, float]],
    now_s: float,
) -> Decision:
    """Return what becomes of a threshold. `excluded`: samples of deploys; `medians`: age in days, and value."""
    days = (now_s - int(at_s[0])) / DAY_S if len(at_s) else 0.0
    # A history a sample short of 14 days is one of 14 days.
    method = method_of(days + STEP_S / DAY_S)
    if method == "static":
        return _static(rule, held)
    drop = excluded | _incidents(at_s, values, rule, held)
    dropped = int(drop.sum())
    kept_at, kept = at_s[~drop], values[~drop]
    if not len(kept):
        return Decision(_missing(rule, held), "static", "every sample was dropped", dropped, None)
    median = float(np.median(kept))
    why, unproved = _freeze(at_s, values, drop, rule, held, days) or _shift(median, medians), 0
    if why is None:
        learn = rules.seasonal if method == "seasonal" else _everywhere
        found = learn(kept_at, kept, rule.side, is_log=rule.is_log)
        found = {bucket: rules.clamp(one, rule.hard_min, rule.hard_max) for bucket, one in found.items()}
        recent = (kept_at >= now_s - JUDGED_DAYS * DAY_S) & ~_first_incidents(kept_at, kept, found, rule, held)
        moved = _moved(found, held, rule)
        why, unproved = _prove(kept_at[recent], kept[recent], found, moved, rule, held)
        if why is None:
            return Decision(moved, method, None, dropped, median, unproved)
    return Decision(_missing(rule, held), "static", why, dropped, median, unproved)


def _first_incidents(
    at_s: Ints, values: Floats, found: Mapping[int, Limits], rule: Rule, held: Mapping[int, Held]
) -> Flags:
    """Return the samples that the new limits call an incident, where no learnt ones told them apart yet."""
    if _is_learnt(held):
        return np.zeros(len(at_s), dtype=bool)
    critical = np.array([found[b].critical if b in found else np.nan for b in range(rules.BUCKETS)])
    return rules.in_row(at_s, rules.is_over(values, critical[rules.buckets(at_s)], rule.side))


def _prove(
    at_s: Ints,
    values: Floats,
    found: Mapping[int, Limits],
    moved: Mapping[int, Limits],
    rule: Rule,
    held: Mapping[int, Held],
) -> tuple[str | None, int]:
    """Return why the limits that would be published are not, and how many buckets nothing could be said of.

    They are a step from the old ones towards what was learnt, so both ends count: what was learnt must serve, and
    the step must serve unless the old limits do not either; else they would keep themselves for ever.
    """
    old = {bucket: one.warn for bucket, one in held.items()}
    learnt = rules.back_test(at_s, values, {bucket: one.warn for bucket, one in found.items()}, rule.side)
    step = rules.back_test(at_s, values, old | {bucket: one.warn for bucket, one in moved.items()}, rule.side)
    why = learnt.fault
    if why is None and step.fault is not None and rules.back_test(at_s, values, old, rule.side).fault is None:
        why = f"on the way to what was learnt it {step.fault}"
    return why, len(step.unproved)


def method_of(days: float) -> str:
    """Return how much a history of so many days allows."""
    if days < rules.STATIC_DAYS:
        return "static"
    return "global" if days < rules.SEASONAL_DAYS else "seasonal"


def _everywhere(_: Ints, values: Floats, side: Side, *, is_log: bool) -> dict[int, Limits]:
    return rules.everywhere(values, side, is_log=is_log)


def _static(rule: Rule, held: Mapping[int, Held]) -> Decision:
    if any(one.method in CALIBRATED for one in held.values()):
        return Decision({}, "static", "less than 7 days of history are left", 0, None)
    one = Limits(rule.static_warn, rule.static_critical, float("nan"), float("nan"), 0)
    free = [b for b in range(rules.BUCKETS) if b not in held or not held[b].is_pinned]
    return Decision(dict.fromkeys(free, one), "static", None, 0, None)


def _missing(rule: Rule, held: Mapping[int, Held]) -> dict[int, Limits]:
    """Return static limits for buckets without any: a threshold that does not exist would silence its alert."""
    one = Limits(rule.static_warn, rule.static_critical, float("nan"), float("nan"), 0)
    return {bucket: one for bucket in range(rules.BUCKETS) if bucket not in held}


def _is_learnt(held: Mapping[int, Held]) -> bool:
    return any(one.method in CALIBRATED or one.is_pinned for one in held.values())


def _limit_of(at_s: Ints, rule: Rule, held: Mapping[int, Held], *, critical: bool) -> Floats:
    static = rule.static_critical if critical else rule.static_warn
    per_bucket = [
        static if (one := held.get(bucket)) is None else one.critical if critical else one.warn
        for bucket in range(rules.BUCKETS)
    ]
    return np.array(per_bucket)[rules.buckets(at_s)]


def _incidents(at_s: Ints, values: Floats, rule: Rule, held: Mapping[int, Held]) -> Flags:
    """Return the samples of 15 minutes and more over the critical limit.

    Only against learnt or pinned limits: a static default that does not fit would call everything an incident.
    """
    if not _is_learnt(held):
        return np.zeros(len(at_s), dtype=bool)
    return rules.in_row(at_s, rules.is_over(values, _limit_of(at_s, rule, held, critical=True), rule.side))


def _freeze(at_s: Ints, values: Floats, drop: Flags, rule: Rule, held: Mapping[int, Held], days: float) -> str | None:
    coverage = len(at_s) / max(days * DAY_S / STEP_S, 1.0)
    if coverage < FEWEST_COVERED:
        return f"only {coverage:.0%} of the history is there"
    if drop.mean() > MOST_DROPPED:
        return f"{drop.mean():.0%} of the samples lie in incidents, exclusions or deploys"
    newest = slice(-rules.IN_A_ROW, None)
    over = rules.is_over(values, _limit_of(at_s, rule, held, critical=False), rule.side)
    if _is_learnt(held) and rules.in_row(at_s[newest], over[newest]).any():
        return "the metric is over its threshold now"
    return None


def _shift(median: float, medians: Sequence[tuple[float, float]]) -> str | None:
    """Compare with the newest median that is 28 days old, else the oldest."""
    old = [value for age, value in medians if age >= COMPARED_DAYS][-1:] or [value for _, value in medians[:1]]
    if not old or old[0] == 0:
        return None
    moved = median / old[0] - 1
    if abs(moved) <= MOST_SHIFTED:
        return None
    return f"its median moved by {moved:+.0%}: a level shift, which a person must accept by a pin or a revert"


def _moved(found: Mapping[int, Limits], held: Mapping[int, Held], rule: Rule) -> dict[int, Limits]:
    """Leave pinned buckets out, and bound how fast learnt limits move, also from one method to the other.

    A static limit is a person's guess before anything was known: it may be far off, and is left at once.
    """
    out: dict[int, Limits] = {}
    for bucket, one in found.items():
        old = held.get(bucket)
        if old is not None and old.is_pinned:
            continue
        if old is not None and old.method in CALIBRATED:
            warn = rules.limit_move(old.warn, one.warn, old.age_days)
            one = one._replace(warn=warn, critical=rules.limit_move(old.critical, one.critical, old.age_days))
            # What a person allows may have narrowed since: it holds at once, at any pace.
            one = rules.clamp(one, rule.hard_min, rule.hard_max)
        out[bucket] = one
    return out
