"""Releases: the newest in use is compared with the one before it, never on a handful of requests."""

import pytest

from optimizers.release_history import Known, choose
from optimizers.signals.release import Pair, Served, judge_releases

NOW_S = 1_700_000_000.0


def pair(p95_s: float, requests: int = 200, before: int = 5000) -> Pair:
    return Pair(Served("2", p95_s, requests), Served("1", 0.1, before), 3600)


def test_a_slower_release_is_found_with_both_releases_as_evidence() -> None:
    said = judge_releases({"/slow": pair(0.131), "/same": pair(0.13)})
    assert (said.status, said.judged) == ("warn", ("/same", "/slow"))
    (advice,) = said.advice
    assert (advice.target, advice.confidence) == ("/slow", "medium")
    assert (advice.evidence["release"], advice.evidence["release_before"], advice.evidence["ratio"]) == ("2", "1", 1.31)
    assert judge_releases({"/slow": pair(0.2, 1000)}).advice[0].confidence == "high"


def test_a_release_as_fast_as_the_one_before_is_no_advice() -> None:
    assert judge_releases({"/same": pair(0.1)}).status == "ok"


@pytest.mark.parametrize(
    ("few", "says"),
    [
        (pair(0.5, requests=199), "/a: 199 requests with release 2, 200 needed"),
        (pair(0.5, before=0), "/a: 0 requests with release 1, 200 needed"),
    ],
)
def test_a_handful_of_requests_judges_no_release(few: Pair, says: str) -> None:
    said = judge_releases({"/a": few})
    assert (said.status, said.detail) == ("insufficient_data", f"insufficient data: {says}")
    assert judge_releases({"/a": few, "/b": pair(0.1)}).judged == ("/b",)


def test_without_releases_the_setting_is_named() -> None:
    assert "STREAMGAUGE_RELEASE" in judge_releases({}).detail


def known(name: str, began_s: float, seen_s: float) -> Known:
    return Known(name, NOW_S - began_s, NOW_S - seen_s, (1,))


def test_the_newest_release_that_still_serves_is_compared_with_the_one_before_it() -> None:
    releases = [known("3", 5000, 4000), known("1", 90_000, 8000), known("2", 9000, 10)]
    found = choose({one.name: one for one in releases}, NOW_S)
    assert found is not None
    assert (found[0].name, found[1].name) == ("2", "1")


def test_a_first_release_or_one_that_no_longer_serves_is_not_compared() -> None:
    assert choose({"1": known("1", 9000, 10)}, NOW_S) is None
    assert choose({"1": known("1", 9000, 2000), "2": known("2", 8000, 1801)}, NOW_S) is None
