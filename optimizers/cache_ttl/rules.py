"""Rules of cache lifetimes: what the lifetime of a class of keys should be, from what its caches measured.

In: a CacheSample and Limits. Out: a Verdict; the one class to change; whether a change was bad. Pure.
Promise: a step is at most x0.75 to x1.33, never up past a ceiling; too little data changes nothing and says so.
Model: a lifetime that runs from the fill and Poisson reads, so that hit = λT / (1 + λT) and a value that changes
at rate μ is stale for 1 - (1 - e^-μT) / μT of its hits. Reads of a class come from many keys: λ is that of the one
key which would have the class's hit ratio. The step is the clipped one of d-TTL (Basu et al., arXiv 1704.04448).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import exp, expm1, inf, log
from typing import Any, Final, Literal, NamedTuple

from database.cache_samples import CacheSample

GAIN: Final = 1.0
MOST_DOWN: Final = 0.75
MOST_UP: Final = 1.33
DEAD_BAND: Final = 0.1
MIN_LOOKUPS: Final = 1000
MIN_REFRESHES: Final = 30
"""Fills that replaced a value: fewer say too little about how often values change."""
MIN_HITS: Final = 100
"""For the 99th percentile of ages to be one."""
AGE_MARGIN: Final = 1.2
FULL_SHARE: Final = 0.8
"""Of maxmemory, above which lifetimes are shortened."""
WORSE: Final = 1.2
"""A change is taken back when recomputing costs more than this times as much."""
SHORTEST_S: Final = 1.0
FOLLOWS: Final = 0.02
"""A cache that says a lifetime this far, as a share, from the one that is set does not follow it."""

Status = Literal["insufficient_data", "steady", "change", "held", "unheard"]


class Limits(NamedTuple):
    """What a person wants of a class."""

    hit_ratio: float
    stale_share: float
    """Of hits that may be answered with a value that has changed since."""
    cap_s: float


@dataclass(frozen=True)
class Verdict:
    """What is said of one class."""

    key_class: str
    status: Status
    says: str
    current_s: float | None = None
    wanted_s: float | None = None
    """Set with `change` only."""
    evidence: Mapping[str, Any] = field(default_factory=dict[str, Any])
    is_ceiling: bool = False
    """Whether the lifetime is above what it may be: such a change comes first."""
    weight: float = 0.0
    """Seconds of recomputing per second that the change is about, times how far it goes."""
    saved_per_byte: float | None = None
    """Seconds of recomputing that hits saved, per byte held; None: not known."""


def read_rate(hit_ratio: float, ttl_s: float) -> float:
    """Return λ per second of a hit ratio under a lifetime; infinite for a ratio of 1."""
    return hit_ratio / ((1 - hit_ratio) * ttl_s) if hit_ratio < 1 else inf


def lifetime_for(hit_ratio: float, rate: float) -> float:
    """Return the lifetime that gives a hit ratio at `rate` reads a second."""
    return hit_ratio / (rate * (1 - hit_ratio)) if rate > 0 else inf


def hit_ratio_at(ttl_s: float, rate: float) -> float:
    """Return the hit ratio under a lifetime."""
    return 1.0 if rate == inf else rate * ttl_s / (1 + rate * ttl_s)


def stale_share(changes: float) -> float:
    """Return the share of hits that are stale when a value changes `changes` (μT) times in its lifetime."""
    return 1 + expm1(-changes) / changes if changes > 1e-9 else changes / 2


def change_rate(changed: float, unchanged: float, ttl_s: float) -> float | None:
    """Return μ per second from fills that found another value or the same; None for too few fills.

    Half a fill is added to either side: a rate of exactly 0, or without limit, is never known.
    """
    fills = changed + unchanged
    if fills < MIN_REFRESHES:
        return None
    return -log(1 - (changed + 0.5) / (fills + 1)) / ttl_s


def staleness_ceiling(rate: float, allowed: float) -> float:
    """Return the longest lifetime whose stale share is at most `allowed`, by bisection on μT."""
    low, high = 0.0, 1 / (1 - allowed)  # there 1 - 1/x, which is less than the share, is what is allowed
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if stale_share(middle) <= allowed else (low, middle)
    return low / rate


def step(ttl_s: float, wanted_hit_ratio: float, hit_ratio: float) -> float:
    """Return the next lifetime towards a hit ratio, without any ceiling."""
    return ttl_s * min(max(exp(GAIN * (wanted_hit_ratio - hit_ratio)), MOST_DOWN), MOST_UP)


def is_worse(before: float, after: float) -> bool:
    """Whether recomputing, in seconds per second, rose so far that a change is taken back."""
    return after > before * WORSE


def is_full(sample: CacheSample) -> bool:
    """Whether the Redis of a class is known to be short of memory."""
    return (sample.used_share or 0.0) > FULL_SHARE


def judge(key_class: str, sample: CacheSample, limits: Limits, *, grow: bool = True) -> Verdict:
    """Say what the lifetime of a class should be; `grow`: whether there is memory for longer ones."""
    if sample.lookups < MIN_LOOKUPS:
        says = f"{sample.lookups:,.0f} look-ups, {MIN_LOOKUPS:,} needed"
        return Verdict(key_class, "insufficient_data", says, sample.ttl_s)
    if sample.ttl_s is None:
        return Verdict(key_class, "insufficient_data", "its caches do not say their lifetime")
    return _judge(key_class, sample, sample.ttl_s, limits, grow)


def _judge(key_class: str, sample: CacheSample, ttl_s: float, limits: Limits, grow: bool) -> Verdict:
    changes = change_rate(sample.changed, sample.unchanged, ttl_s)
    ceilings = _ceilings(sample, limits, changes)
    lowest = min(ceilings.values())
    wanted_s, why = step(ttl_s, limits.hit_ratio, sample.hit_ratio), "hit ratio"
    if wanted_s > lowest:
        wanted_s, why = max(lowest, ttl_s * MOST_DOWN), min(ceilings, key=lambda name: ceilings[name])
    # A cap is a person's word and not an estimate: it is not walked towards.
    wanted_s = min(max(wanted_s, min(SHORTEST_S, ttl_s)), limits.cap_s)
    evidence = _evidence(sample, ttl_s, limits, changes, ceilings)
    if wanted_s > ttl_s and (lack := _no_growth(changes, grow)):
        return _verdict(key_class, "steady", f"a longer lifetime would help, but {lack}", sample, evidence)
    is_capped = ttl_s > limits.cap_s
    if abs(wanted_s / ttl_s - 1) <= DEAD_BAND and not is_capped:
        says = f"{seconds(wanted_s)} would be within {DEAD_BAND:.0%} of {seconds(ttl_s)}"
        return _verdict(key_class, "steady", says, sample, evidence)
    return _verdict(
        key_class, "change", f"for its {why}", sample, evidence, wanted_s=wanted_s, is_ceiling=lowest < ttl_s
    )


def _ceilings(sample: CacheSample, limits: Limits, changes: float | None) -> dict[str, float]:
    found = {"class cap": limits.cap_s}
    if changes is not None:
        found["staleness"] = staleness_ceiling(changes, limits.stale_share)
    if sample.age_p99_s is not None and sample.hits >= MIN_HITS:
        found["age at hits"] = sample.age_p99_s * AGE_MARGIN
    return found


def _no_growth(changes: float | None, grow: bool) -> str:
    if not grow:
        return "Redis is short of memory"
    return f"fewer than {MIN_REFRESHES} refills say how often its values change" if changes is None else ""


def _verdict(
    key_class: str,
    status: Status,
    says: str,
    sample: CacheSample,
    evidence: Mapping[str, Any],
    *,
    wanted_s: float | None = None,
    is_ceiling: bool = False,
) -> Verdict:
    ttl_s = sample.ttl_s or 0.0
    return Verdict(
        key_class,
        status,
        says,
        ttl_s,
        wanted_s,
        evidence,
        is_ceiling,
        sample.recompute_rate * abs(log(wanted_s / ttl_s)) if wanted_s else 0.0,
        saved_per_byte(sample, ttl_s),
    )


def saved_per_byte(sample: CacheSample, ttl_s: float) -> float | None:
    """Return seconds saved by hits per byte held (by Little's law: bytes filled a second, for a lifetime)."""
    if not sample.recomputes or not sample.filled_bytes:
        return None
    held_bytes = sample.filled_bytes / sample.active_s * ttl_s
    return sample.hits * sample.recompute_s / sample.recomputes / held_bytes


def _evidence(
    sample: CacheSample, ttl_s: float, limits: Limits, changes: float | None, ceilings: Mapping[str, float]
) -> dict[str, Any]:
    rate = read_rate(sample.hit_ratio, ttl_s)
    found: dict[str, Any] = {
        "hit_ratio": round(sample.hit_ratio, 4),
        "wanted_hit_ratio": limits.hit_ratio,
        "lookups": round(sample.lookups),
        "lookups_per_second": sample.lookups / sample.active_s,
        "failed_lookups": round(sample.errors),
        "fills_of_new_keys": round(sample.first),
        "measured_s": sample.active_s,
        "recompute_seconds_per_second": sample.recompute_rate,
    }
    if 0 < rate < inf:
        found["lifetime_for_wanted_hit_ratio_s"] = lifetime_for(limits.hit_ratio, rate)
    if changes is not None:
        found["changed_share_of_refills"] = round(sample.changed / (sample.changed + sample.unchanged), 4)
        found["stale_share"] = round(stale_share(changes * ttl_s), 4)
    if sample.used_share is not None:
        found["redis_used_share"] = round(sample.used_share, 4)
    if sample.age_p99_s is not None:
        found["age_at_hit_p99_s"] = sample.age_p99_s
    found |= {f"ceiling_by_{name.replace(' ', '_')}_s": value for name, value in ceilings.items()}
    return found


def shrink_for_memory(verdicts: Iterable[Verdict]) -> Verdict | None:
    """Return the change of the class that saves least per byte, when memory is short; None when none can shrink."""
    able = [
        one
        for one in verdicts
        if one.status in ("steady", "change")
        and one.saved_per_byte is not None
        and one.current_s is not None
        and one.current_s * MOST_DOWN >= SHORTEST_S
    ]
    if not able:
        return None
    least = min(able, key=lambda one: (one.saved_per_byte or 0.0, one.key_class))
    assert least.current_s is not None, "BUG: only classes with a lifetime are able"
    evidence = {**least.evidence, "saved_seconds_per_byte": least.saved_per_byte}
    says = "for memory: it saves least per byte"
    wanted_s = min(least.current_s * MOST_DOWN, least.wanted_s or least.current_s)
    return Verdict(least.key_class, "change", says, least.current_s, wanted_s, evidence, is_ceiling=True)


def first_change(verdicts: Iterable[Verdict]) -> Verdict | None:
    """Return the one change to make: above a ceiling before below a target, then what most recomputing hangs on."""
    changes = [one for one in verdicts if one.status == "change"]
    return min(changes, key=lambda one: (not one.is_ceiling, -one.weight, one.key_class), default=None)


def seconds(value: float) -> str:
    """Return a lifetime for a person."""
    return f"{value:.3g} s" if value < 1000 else f"{value:,.0f} s"
