"""One cycle over all classes of keys: what is judged, what is taken back, and the one lifetime that changes.

In: what is stored of each class, and what was measured since. Out: a Cycle to store. Pure.
Promise: a change is judged in the first cycle with enough look-ups after it, and until then no second one is made.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from database.cache_lifetimes import Cycle, Lifetime, Undo
from database.cache_samples import CacheSample
from optimizers.cache_ttl import rules
from optimizers.cache_ttl.rules import Limits, Verdict, seconds
from optimizers.job import Outcome
from optimizers.signals.said import Advice

HOLD: Final = timedelta(days=1)
"""A class whose change was taken back is left alone so long: else each cycle would make it and take it back."""
APPLY: Final = "STREAMGAUGE_CACHE_TTL_APPLY"


@dataclass(frozen=True)
class Wishes:
    """What a person set."""

    apply: bool
    limits: Callable[[str], Limits]


@dataclass(frozen=True)
class Seen:
    """What one cycle looks at."""

    slot: datetime
    end: datetime
    """Up to when look-ups are judged."""
    known: Mapping[str, Lifetime]
    samples: Mapping[str, CacheSample]


@dataclass
class _Plan:
    """What a cycle comes to, as it is found out."""

    lifetimes: dict[str, Lifetime]
    verdicts: dict[str, Verdict]
    undone: list[Undo]
    says: list[str]


def plan(seen: Seen, wishes: Wishes) -> Cycle:
    """Judge every class and choose the change."""
    found = _Plan({}, {}, [], [])
    for key_class in sorted({*seen.known, *seen.samples}):
        _look(found, key_class, seen, wishes)
    change = None if found.undone else _choose(found, seen)
    if change is not None:
        found.verdicts[change.key_class] = change
        old = found.lifetimes[change.key_class]
        found.lifetimes[change.key_class] = replace(old, status="change", detail=change.says)
    advice = [_advice(one, seen) for one in found.verdicts.values() if one.status == "change"]
    for one in found.verdicts.values():
        is_applied = wishes.apply and change is not None and one.key_class == change.key_class
        _keep(found, one, seen, is_applied=is_applied)
    return _cycle(found, seen, advice, change, wishes)


def _look(found: _Plan, key_class: str, seen: Seen, wishes: Wishes) -> None:
    sample = seen.samples.get(key_class)
    old = seen.known.get(key_class, Lifetime(key_class=key_class, seen_at=seen.slot))
    if sample is not None:
        old = replace(old, seen_at=seen.slot, current_s=sample.ttl_s)
    if not wishes.apply and old.applied_s is not None:
        _give_back(found, old, seen)
    elif sample is None:
        says = "no look-ups measured since it was last judged or changed"
        found.lifetimes[key_class] = replace(old, status="insufficient_data", detail=says)
    elif old.is_watched and old.baseline is not None and _turned_bad(old, sample):
        _undo_bad(found, old, sample, seen)
    elif old.status == "unheard" and _is_unheard(old, sample) and sample.lookups >= rules.MIN_LOOKUPS:
        _undo_unheard(found, old, sample, seen)
    else:
        verdict = _verdict(old, sample, wishes.limits(key_class), seen)
        was_judged = verdict.status not in ("insufficient_data", "unheard")
        found.verdicts[key_class] = verdict
        found.lifetimes[key_class] = replace(old, is_watched=old.is_watched and not was_judged)


def _verdict(old: Lifetime, sample: CacheSample, limits: Limits, seen: Seen) -> Verdict:
    key_class = old.key_class
    if _is_unheard(old, sample):
        says = f"its caches say {seconds(sample.ttl_s or 0)}, not the {seconds(old.applied_s or 0)} that is set"
        return Verdict(key_class, "unheard", says, sample.ttl_s)
    verdict = rules.judge(key_class, sample, limits, grow=not rules.is_full(sample))
    if verdict.status == "change" and old.held_until is not None and old.held_until > seen.slot:
        says = f"left alone until {old.held_until:%Y-%m-%d %H:%M} UTC: its last change was taken back"
        return replace(verdict, status="held", says=says, wanted_s=None)
    return verdict


def _is_unheard(old: Lifetime, sample: CacheSample) -> bool:
    if old.applied_s is None or sample.ttl_s is None:
        return False
    return abs(sample.ttl_s / old.applied_s - 1) > rules.FOLLOWS


def _turned_bad(old: Lifetime, sample: CacheSample) -> bool:
    if sample.lookups < rules.MIN_LOOKUPS or _is_unheard(old, sample):
        return False
    return rules.is_worse(old.baseline or 0.0, sample.recompute_rate)


def _give_back(found: _Plan, old: Lifetime, seen: Seen) -> None:
    says = f"given back: {APPLY} is off"
    found.undone.append(Undo(old.key_class, {"undone_because": f"{APPLY} is off"}, to_earlier=False))
    found.says.append(f"{old.key_class} has its own lifetime again: {APPLY} is off")
    back = replace(old, status="given_back", detail=says, applied_s=None, before_applied_s=None)
    found.lifetimes[old.key_class] = _unsettled(back, seen)


def _undo_bad(found: _Plan, old: Lifetime, sample: CacheSample, seen: Seen) -> None:
    before, now = old.baseline or 0.0, sample.recompute_rate
    evidence = {
        "undone_because": f"recomputing rose by more than {rules.WORSE - 1:.0%}",
        "recompute_seconds_per_second_before": before,
        "recompute_seconds_per_second_after": now,
        "lookups_per_second_after": sample.lookups / sample.active_s,
    }
    _undo(found, old, seen, f"recomputing rose from {before:.3g} to {now:.3g} s per second", evidence)


def _undo_unheard(found: _Plan, old: Lifetime, sample: CacheSample, seen: Seen) -> None:
    """Take back what caches did not follow for two cycles: the first may be that Redis had lost it."""
    evidence = {"undone_because": "its caches do not follow it", "lifetime_in_use_s": sample.ttl_s}
    _undo(found, old, seen, f"its caches still say {seconds(sample.ttl_s or 0)}", evidence)


def _undo(found: _Plan, old: Lifetime, seen: Seen, why: str, evidence: Mapping[str, Any]) -> None:
    says = f"taken back: {why}"
    found.undone.append(Undo(old.key_class, evidence, to_earlier=old.before_applied_s is not None))
    found.says.append(f"{old.key_class} {says}")
    back = replace(old, status="undone", detail=says, applied_s=old.before_applied_s, before_applied_s=None)
    found.lifetimes[old.key_class] = replace(_unsettled(back, seen), held_until=seen.slot + HOLD)


def _unsettled(one: Lifetime, seen: Seen) -> Lifetime:
    """Return a class whose field in Redis is about to change."""
    return replace(one, judged_to=seen.end, proposed_s=None, is_ours=True, published_at=None, is_watched=False)


def _choose(found: _Plan, seen: Seen) -> Verdict | None:
    full = [one for one in found.verdicts.values() if rules.is_full(seen.samples[one.key_class])]
    if not full:
        return rules.first_change(found.verdicts.values())
    least = rules.shrink_for_memory(full)
    if least is None:
        found.says.append("Redis is short of memory, and no class can be shortened")
    return least


def _keep(found: _Plan, one: Verdict, seen: Seen, *, is_applied: bool) -> None:
    """Write down what was said of a class, and its change."""
    was_judged = one.status not in ("insufficient_data", "unheard")
    old = found.lifetimes[one.key_class]
    new = replace(old, status=one.status, detail=one.says, proposed_s=one.wanted_s)
    if was_judged or one.status == "unheard":
        new = replace(new, judged_to=seen.end)
    elif one.status == "insufficient_data":
        new = replace(new, proposed_s=old.proposed_s)
    if is_applied:
        baseline = seen.samples[one.key_class].recompute_rate
        new = replace(
            _unsettled(new, seen),
            applied_s=one.wanted_s,
            before_applied_s=old.applied_s,
            is_watched=True,
            baseline=baseline,
        )
    found.lifetimes[one.key_class] = new


def _advice(one: Verdict, seen: Seen) -> dict[str, Any]:
    sample = seen.samples[one.key_class]
    assert one.current_s is not None and one.wanted_s is not None, "BUG: a change has both lifetimes"
    evidence = {**one.evidence, "lifetime_before_s": one.current_s, "lifetime_after_s": one.wanted_s}
    return asdict(
        Advice(
            one.key_class,
            seconds(one.current_s),
            f"{seconds(one.wanted_s)} {one.says}",
            _effect(one, sample, one.current_s, one.wanted_s),
            evidence,
            "high" if sample.lookups >= 10_000 else "medium" if sample.lookups >= 3000 else "low",
        )
    )


def _effect(one: Verdict, sample: CacheSample, ttl_s: float, wanted_s: float) -> str:
    rate = rules.read_rate(sample.hit_ratio, ttl_s)
    after = rules.hit_ratio_at(wanted_s, rate)
    parts = [f"hit ratio {sample.hit_ratio:.1%} -> about {after:.1%}"]
    if sample.hit_ratio < 1:
        cost = sample.recompute_rate * (1 - after) / (1 - sample.hit_ratio)
        parts.append(f"recomputing {sample.recompute_rate:.3g} -> about {cost:.3g} s per second")
    changes = rules.change_rate(sample.changed, sample.unchanged, ttl_s)
    if changes is not None:
        before, then = (rules.stale_share(changes * at) for at in (ttl_s, wanted_s))
        parts.append(f"stale hits {before:.1%} -> about {then:.1%}")
    if wanted_s < ttl_s:
        parts.append(f"about {1 - wanted_s / ttl_s:.0%} less memory")
    return ", ".join(parts)


def _cycle(
    found: _Plan, seen: Seen, advice: Sequence[Mapping[str, Any]], change: Verdict | None, wishes: Wishes
) -> Cycle:
    statuses = Counter(one.status for one in found.lifetimes.values())
    judged = [one.key_class for one in found.lifetimes.values() if one.status != "insufficient_data"]
    if judged:
        outcome, status = Outcome.DONE, "warn" if advice else "ok"
    else:
        outcome, status = Outcome.INSUFFICIENT_DATA, "insufficient_data"
    applied = change.key_class if change is not None and wishes.apply else None
    facts: dict[str, Any] = {"classes": dict(statuses), "applied": applied}
    if change is not None:
        facts["change"] = {"class": change.key_class, "before_s": change.current_s, "after_s": change.wanted_s}
    unknown = sorted(name for name, sample in seen.samples.items() if sample.max_bytes is None)
    if unknown:
        facts["memory_unknown"] = unknown
        found.says.append(f"how full the Redis of {', '.join(unknown)} is is not known")
    detail = _detail(found, statuses, change, wishes)
    lifetimes = list(found.lifetimes.values())
    return Cycle(seen.slot, outcome, status, detail, facts, lifetimes, advice, judged, applied, found.undone)


def _detail(found: _Plan, statuses: Mapping[str, int], change: Verdict | None, wishes: Wishes) -> str:
    if not found.lifetimes:
        return "insufficient data: no look-ups of cached keys; the newest 2 minutes are left to the next cycle"
    if statuses.get("insufficient_data", 0) == len(found.lifetimes):
        example = next(one for one in found.lifetimes.values())
        return f"insufficient data: {example.key_class}: {example.detail}"
    parts = list(found.says)
    if change is not None and change.current_s is not None and change.wanted_s is not None:
        what = "changed" if wishes.apply else f"proposed, {APPLY} is off"
        parts.append(
            f"{change.key_class} {seconds(change.current_s)} -> {seconds(change.wanted_s)} {change.says}: {what}"
        )
    counts = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in sorted(statuses.items()))
    return "; ".join((*parts, f"classes: {counts}"))
