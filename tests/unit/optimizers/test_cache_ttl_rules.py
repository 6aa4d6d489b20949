"""Rules of cache lifetimes, each with a case that it changes and one that it leaves alone."""

from math import exp, inf, isclose
from random import Random
from typing import Any

import pytest

from database.cache_samples import CacheSample
from optimizers.cache_ttl import rules
from optimizers.cache_ttl.rules import Limits, Verdict

LIMITS = Limits(hit_ratio=0.9, stale_share=0.05, cap_s=86_400)
HEALTHY = CacheSample(
    active_s=21_600,
    hits=9000,
    misses=1000,
    errors=0,
    recompute_s=100,
    recomputes=1000,
    changed=5,
    unchanged=900,
    first=95,
    filled_bytes=1e6,
    age_p99_s=60,
    ttl_s=60,
)


def sample(**changes: Any) -> CacheSample:
    return HEALTHY._replace(**changes)


def judge(**changes: Any) -> Verdict:
    return rules.judge("posts", sample(**changes), LIMITS)


def test_lifetimes_of_the_model_are_those_of_the_reference() -> None:
    """At one read in two seconds 18 s give 90 % and 38 s give 95 %, and back."""
    assert isclose(rules.lifetime_for(0.9, 0.5), 18)
    assert isclose(rules.lifetime_for(0.95, 0.5), 38)
    assert isclose(rules.hit_ratio_at(18, 0.5), 0.9)
    assert isclose(rules.read_rate(0.9, 18), 0.5)
    assert rules.hit_ratio_at(18, rules.read_rate(1.0, 18)) == 1.0
    assert rules.lifetime_for(0.9, 0.0) == inf


def test_stale_share_is_what_a_simulation_counts() -> None:
    """Values that change at random, read evenly over their lifetime."""
    rng, rate, ttl_s = Random(1), 0.02, 30.0
    ages = [(rng.uniform(0, ttl_s), rng.expovariate(rate)) for _ in range(40_000)]
    counted = sum(changed_after < age for age, changed_after in ages) / len(ages)
    assert rules.stale_share(rate * ttl_s) == pytest.approx(counted, abs=0.01)
    assert rules.stale_share(1e-12) == pytest.approx(5e-13)


@pytest.mark.parametrize("allowed", [0.001, 0.05, 0.5])
def test_a_value_at_the_ceiling_is_as_stale_as_allowed(allowed: float) -> None:
    ceiling_s = rules.staleness_ceiling(0.01, allowed)
    assert rules.stale_share(0.01 * ceiling_s) == pytest.approx(allowed)
    assert ceiling_s >= 2 * allowed / 0.01, "the rule of thumb for small shares is the lower bound"


def test_change_rate_comes_from_the_share_of_changed_fills() -> None:
    """Half the fills changed: one half-life."""
    rate = rules.change_rate(500, 500, 60)
    assert rate is not None
    assert exp(-rate * 60) == pytest.approx(0.5)
    assert rules.change_rate(29, 0, 60) is None
    for changed in (0, 30):
        rate = rules.change_rate(changed, 30 - changed, 60)
        assert rate is not None
        assert 0 < rate < 1


def test_a_class_at_its_target_is_left_alone() -> None:
    found = judge()
    assert (found.status, found.wanted_s) == ("steady", None)


def test_a_class_that_misses_too_often_lives_longer() -> None:
    """exp(0.9 - 0.75), under every ceiling."""
    found = judge(hits=7500, misses=2500, age_p99_s=70)
    assert found.status == "change"
    assert found.wanted_s == pytest.approx(60 * exp(0.15))
    assert not found.is_ceiling


@pytest.mark.parametrize("hits", [0, 3000])
def test_a_step_up_is_never_more_than_a_third(hits: int) -> None:
    found = judge(hits=hits, misses=10_000 - hits, age_p99_s=1000)
    assert found.wanted_s == pytest.approx(60 * 1.33)


def test_a_step_down_is_never_more_than_a_quarter() -> None:
    """The ceiling by age is far below: it is walked towards."""
    found = judge(age_p99_s=5)
    assert found.wanted_s == pytest.approx(45)
    assert "age at hits" in found.says
    assert found.is_ceiling
    assert rules.step(60, 0.1, 1.0) == 45


@pytest.mark.parametrize(("hit_ratio", "status"), [(0.79, "change"), (0.82, "steady")])
def test_a_step_within_a_tenth_is_not_made(hit_ratio: float, status: str) -> None:
    assert judge(hits=10_000 * hit_ratio, misses=10_000 * (1 - hit_ratio), age_p99_s=1000).status == status


def test_values_that_change_often_live_shorter_however_many_look_ups_miss() -> None:
    found = judge(hits=5000, misses=5000, changed=400, unchanged=500)
    assert found.wanted_s == pytest.approx(45)
    assert "staleness" in found.says
    assert found.evidence["stale_share"] > LIMITS.stale_share


def test_a_longer_lifetime_stops_at_the_staleness_ceiling() -> None:
    """Between one step up and nothing."""
    found = judge(hits=5000, misses=5000, changed=80, unchanged=920, age_p99_s=1000)
    rate = rules.change_rate(80, 920, 60)
    assert rate is not None
    assert found.wanted_s == pytest.approx(rules.staleness_ceiling(rate, 0.05))
    assert 66 < (found.wanted_s or 0) < 60 * 1.33


def test_no_lifetime_passes_the_highest_age_at_hits_by_more_than_a_fifth() -> None:
    found = judge(hits=5000, misses=5000, age_p99_s=58)
    assert found.wanted_s == pytest.approx(58 * 1.2)
    few = judge(hits=99, misses=5000, age_p99_s=1)
    assert few.wanted_s == pytest.approx(60 * 1.33), "99 hits have no 99th percentile"


def test_no_lifetime_passes_the_cap_of_its_class() -> None:
    """Also one that is above it already, at once and however little above."""
    capped = LIMITS._replace(cap_s=70)
    assert rules.judge("posts", sample(hits=5000, misses=5000, age_p99_s=1000), capped).wanted_s == 70
    found = rules.judge("posts", HEALTHY, LIMITS._replace(cap_s=10))
    assert (found.wanted_s, found.is_ceiling) == (10, True)
    assert rules.judge("posts", HEALTHY, LIMITS._replace(cap_s=58)).wanted_s == 58


def test_no_lifetime_grows_while_nobody_knows_how_often_values_change() -> None:
    found = judge(hits=5000, misses=5000, changed=0, unchanged=29, age_p99_s=1000)
    assert found.status == "steady"
    assert "how often its values change" in found.says


def test_no_lifetime_grows_while_memory_is_short() -> None:
    found = rules.judge("posts", sample(hits=5000, misses=5000, age_p99_s=1000), LIMITS, grow=False)
    assert found.status == "steady"
    assert "memory" in found.says


def test_no_lifetime_shrinks_below_a_second_by_itself() -> None:
    assert judge(ttl_s=1.0, age_p99_s=0.1).status == "steady"
    assert judge(ttl_s=1.2, age_p99_s=0.1).wanted_s == 1.0
    assert judge(ttl_s=0.5, age_p99_s=0.1).status == "steady"


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"hits": 900, "misses": 99}, "999 look-ups, 1,000 needed"), ({"ttl_s": None}, "do not say their lifetime")],
)
def test_too_little_is_said(changes: dict[str, Any], says: str) -> None:
    found = judge(**changes)
    assert (found.status, found.wanted_s) == ("insufficient_data", None)
    assert says in found.says


def test_failed_look_ups_are_no_misses() -> None:
    """A cache that is away is not helped by a longer lifetime."""
    assert judge(errors=90_000).status == "steady"


def test_one_class_is_changed_ceilings_first_then_what_costs_most() -> None:
    small = rules.judge("small", sample(hits=5000, misses=5000, age_p99_s=1000, recompute_s=1), LIMITS)
    large = rules.judge("large", sample(hits=5000, misses=5000, age_p99_s=1000, recompute_s=1000), LIMITS)
    above = rules.judge("above", sample(age_p99_s=5, recompute_s=1), LIMITS)
    assert rules.first_change([small, large, rules.judge("posts", HEALTHY, LIMITS)]) == large
    assert rules.first_change([small, large, above]) == above
    assert rules.first_change([rules.judge("posts", HEALTHY, LIMITS)]) is None


def test_memory_is_taken_from_the_class_that_saves_least_per_byte() -> None:
    """The same hits and seconds: the one with ten times the bytes."""
    lean = rules.judge("lean", HEALTHY, LIMITS)
    wide = rules.judge("wide", sample(filled_bytes=1e7), LIMITS)
    found = rules.shrink_for_memory([lean, wide])
    assert found is not None
    assert (found.key_class, found.wanted_s) == ("wide", 45)
    assert found.evidence["saved_seconds_per_byte"] == pytest.approx((lean.saved_per_byte or 0) / 10)


def test_saved_seconds_per_byte_are_hits_times_cost_over_bytes_held() -> None:
    """9000 hits of 0.1 s; 1 MB in 6 h, held for a minute."""
    assert rules.saved_per_byte(HEALTHY, 60) == pytest.approx(9000 * 0.1 / (1e6 / 21_600 * 60))
    assert rules.saved_per_byte(sample(filled_bytes=0), 60) is None


def test_memory_is_not_taken_where_nothing_is_known_or_left() -> None:
    unknown = rules.judge("unknown", sample(filled_bytes=0), LIMITS)
    short = rules.judge("short", sample(ttl_s=1.2, age_p99_s=1.2), LIMITS)
    few = rules.judge("few", sample(hits=10, misses=10), LIMITS)
    assert rules.shrink_for_memory([unknown, short, few]) is None


@pytest.mark.parametrize(("after", "is_worse"), [(1.0, False), (1.19, False), (1.21, True), (0.5, False)])
def test_a_change_is_bad_when_recomputing_rose_by_more_than_a_fifth(after: float, is_worse: bool) -> None:
    assert rules.is_worse(1.0, after) is is_worse
