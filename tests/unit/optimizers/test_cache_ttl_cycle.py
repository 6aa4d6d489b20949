"""Cycles of cache lifetimes: one change, judged before the next, given back when that is asked for."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from database.cache_lifetimes import Cycle, Lifetime
from database.cache_samples import CacheSample
from database.settings import SettingsError, read_settings
from optimizers.cache_ttl.cycle import HOLD, Seen, Wishes, plan
from optimizers.cache_ttl.rules import Limits
from optimizers.cache_ttl_optimizer import wishes_of
from optimizers.settings import OptimizerSettings

SLOT = datetime(2026, 3, 1, 12, tzinfo=UTC)
MISSES = CacheSample(
    active_s=21_600,
    hits=5000,
    misses=5000,
    errors=0,
    recompute_s=216,
    recomputes=5000,
    changed=0,
    unchanged=5000,
    first=0,
    filled_bytes=1e6,
    age_p99_s=1000,
    ttl_s=60,
    used_bytes=50,
    max_bytes=100,
)
CHANGED = Lifetime(
    key_class="posts",
    seen_at=SLOT - timedelta(hours=6),
    judged_to=SLOT - timedelta(hours=6),
    applied_s=60.0,
    is_ours=True,
    published_at=SLOT - timedelta(hours=6),
    is_watched=True,
    baseline=0.01,
)
"""In the cycle before, the lifetime of posts was set to 60 s."""


def cycle(samples: Mapping[str, CacheSample], *known: Lifetime, apply: bool = True) -> Cycle:
    seen = Seen(SLOT, SLOT - timedelta(minutes=2), {one.key_class: one for one in known}, samples)
    return plan(seen, Wishes(apply, lambda _: Limits(0.9, 0.05, 86_400)))


def row(found: Cycle, key_class: str) -> Lifetime:
    return next(one for one in found.lifetimes if one.key_class == key_class)


def test_only_one_of_many_classes_changes() -> None:
    found = cycle(dict.fromkeys(("a", "b", "c"), MISSES))
    assert found.applied == "a"
    assert [one.key_class for one in found.lifetimes if one.applied_s is not None] == ["a"]
    assert {one["target"] for one in found.advice} == {"a", "b", "c"}
    assert row(found, "a").is_watched
    assert (row(found, "a").published_at, row(found, "b").is_ours) == (None, False)


def test_an_undo_is_the_one_change_of_its_cycle() -> None:
    """Recomputing is at 0.01 s per second now; before it cost 20.5 % less, or 19 % less."""
    bad = replace(CHANGED, baseline=0.0083)
    found = cycle({"posts": MISSES, "users": MISSES}, bad)
    assert [one.key_class for one in found.undone] == ["posts"]
    assert found.applied is None
    assert row(found, "posts").applied_s is None
    assert row(found, "posts").held_until == SLOT + HOLD
    assert cycle({"posts": MISSES}, replace(CHANGED, baseline=0.0084)).undone == []


def test_a_change_that_was_not_bad_is_followed_by_the_next_one() -> None:
    found = row(cycle({"posts": MISSES}, CHANGED), "posts")
    assert found.applied_s == pytest.approx(60 * 1.33)
    assert (found.before_applied_s, found.baseline, found.is_watched) == (60, 0.01, True)


def test_what_was_set_before_comes_back() -> None:
    undone = cycle({"posts": MISSES}, replace(CHANGED, baseline=0.001, before_applied_s=50.0))
    assert row(undone, "posts").applied_s == 50
    assert undone.undone[0].to_earlier


@pytest.mark.parametrize(
    "quiet", [{}, {"posts": MISSES._replace(hits=1, misses=998, recompute_s=900)}, {"posts": MISSES._replace(ttl_s=45)}]
)
def test_a_change_stays_watched_until_it_can_be_judged(quiet: dict[str, CacheSample]) -> None:
    """No look-ups, too few, and caches that do not follow: however much recomputing costs."""
    found = cycle(quiet, replace(CHANGED, baseline=0.001))
    assert found.undone == []
    assert row(found, "posts").is_watched
    assert row(found, "posts").applied_s == 60


def test_what_caches_do_not_follow_is_taken_back_in_the_second_cycle() -> None:
    """The first may be that Redis had lost it; too few look-ups say nothing."""
    other = MISSES._replace(ttl_s=45)
    first = row(cycle({"posts": other}, CHANGED), "posts")
    assert (first.status, first.applied_s) == ("unheard", 60)
    assert cycle({"posts": other._replace(hits=1, misses=1)}, first).undone == []
    found = cycle({"posts": other}, first)
    assert (row(found, "posts").status, row(found, "posts").applied_s) == ("undone", None)
    assert found.undone[0].evidence["lifetime_in_use_s"] == 45
    assert cycle({"posts": MISSES}, first).undone == [], "they follow now"


def test_a_class_whose_change_was_bad_is_left_alone_for_a_day() -> None:
    own: dict[str, Any] = {"is_watched": False, "applied_s": None}
    held = replace(CHANGED, held_until=SLOT + timedelta(seconds=1), **own)
    found = cycle({"posts": MISSES}, held)
    assert (found.applied, row(found, "posts").status, found.advice) == (None, "held", [])
    assert cycle({"posts": MISSES}, replace(held, held_until=SLOT)).applied == "posts"


def test_switched_off_everything_is_given_back() -> None:
    found = cycle({"posts": MISSES}, CHANGED, replace(CHANGED, key_class="quiet"), apply=False)
    assert [(one.applied_s, one.is_ours, one.published_at) for one in found.lifetimes] == [(None, True, None)] * 2
    assert found.detail.count("STREAMGAUGE_CACHE_TTL_APPLY is off") == 2
    assert found.advice == [], "what was measured under the lifetime given back proposes nothing"


def test_only_proposed_nothing_is_ours() -> None:
    found = cycle({"posts": MISSES}, apply=False)
    assert (found.applied, row(found, "posts").is_ours) == (None, False)
    assert row(found, "posts").proposed_s == pytest.approx(60 * 1.33)


def of_memory(used_bytes: float | None, max_bytes: float | None) -> dict[str, CacheSample]:
    """Two classes in one Redis; `wide` holds ten times the bytes for the same hits."""
    lean = MISSES._replace(used_bytes=used_bytes, max_bytes=max_bytes)
    return {"lean": lean, "wide": lean._replace(filled_bytes=1e7)}


def test_short_of_memory_one_class_shrinks_and_none_grows() -> None:
    """81 % of maxmemory."""
    found = cycle(of_memory(81, 100))
    assert (found.applied, row(found, "wide").applied_s) == ("wide", 45)
    assert [one["target"] for one in found.advice] == ["wide"]
    for used, limit in ((80, 100), (81, 0), (None, None), (81, None)):
        found = cycle(of_memory(used, limit))
        assert row(found, "lean").proposed_s != 45
        assert found.applied == "lean"


def test_each_class_is_judged_by_the_redis_that_holds_it() -> None:
    """The one in the full server shrinks, though the other saves less per byte; and only that one may not grow."""
    found = cycle({"lean": of_memory(99, 100)["lean"], "wide": of_memory(1, 100)["wide"]})
    assert (found.applied, row(found, "lean").applied_s) == ("lean", 45)
    assert row(found, "wide").status == "change"


def test_memory_that_nobody_tells_is_said_to_be_unknown() -> None:
    found = cycle({"posts": MISSES._replace(used_bytes=None, max_bytes=None)})
    assert "how full the Redis of posts is is not known" in found.detail
    assert found.facts["memory_unknown"] == ["posts"]
    assert "not known" not in cycle({"posts": MISSES}).detail


def test_short_of_memory_that_cannot_be_freed_is_said() -> None:
    found = cycle({"posts": MISSES._replace(filled_bytes=0, used_bytes=99)})
    assert "no class can be shortened" in found.detail


def test_a_proposal_stands_while_nothing_new_is_known() -> None:
    known = Lifetime(key_class="posts", seen_at=SLOT, status="change", proposed_s=80.0)
    found = cycle({"posts": MISSES._replace(hits=1, misses=1)}, known)
    assert (found.judged, row(found, "posts").proposed_s) == ([], 80)
    assert row(found, "posts").judged_to is None, "its look-ups are judged with those of the next cycle"
    assert found.status == "insufficient_data"


def test_expected_effects_are_those_of_the_model() -> None:
    (advice,) = cycle({"posts": MISSES._replace(changed=50, unchanged=4950)}, apply=False).advice
    assert advice["expected_effect"].startswith("hit ratio 50.0% -> about 57.1%, recomputing 0.01 -> about 0.00858")
    assert "stale hits 0.5% -> about 0.7%" in advice["expected_effect"]
    assert (advice["current"], advice["confidence"]) == ("60 s", "high")


def settings(**environ: str) -> OptimizerSettings:
    return read_settings(OptimizerSettings, {f"STREAMGAUGE_CACHE_TTL_{name}": value for name, value in environ.items()})


def test_settings_are_wishes_and_a_cap_of_a_class_wins_over_the_general_one() -> None:
    wishes = wishes_of(
        settings(APPLY="true", HIT_RATIO="0.8", STALE_SHARE="0.1", CAP_S="100", CAPS="posts=7200, a=b=5")
    )
    assert wishes.apply
    assert wishes.limits("posts") == Limits(0.8, 0.1, 7200)
    assert wishes.limits("a=b") == Limits(0.8, 0.1, 5)
    assert wishes.limits("users") == Limits(0.8, 0.1, 100)
    assert not wishes_of(settings()).apply, "only a person lets lifetimes be changed"


@pytest.mark.parametrize("caps", ["posts", "=5", "posts=0.5", "posts=nan", "posts=long"])
def test_a_cap_that_is_none_ends_the_start_by_its_name(caps: str) -> None:
    with pytest.raises(SettingsError, match=r"^STREAMGAUGE_CACHE_TTL_CAPS: .*is not class=seconds"):
        settings(CAPS=caps)
