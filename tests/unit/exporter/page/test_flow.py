"""The numbers of the page's flow: throughput, lag, freshness, and completeness of services and producers."""

from typing import Any

import pytest

from exporter.ledger import Pipeline, Service
from exporter.page import flow
from exporter.snapshot import Head, View

NOW_S = 1_000_000.0
SHOP = Service("shop", 100, 100, 0, 0, 0, 0, 3, 0, {"live": 2, "ended": 1}, NOW_S - 4, {})
HEAD = Head("", "", 1, None, None, NOW_S)


def view(*services: Service, in_flight: dict[str, int] | None = None, last_commit_s: float | None = None) -> View:
    pipeline = Pipeline({}, 0, {}, {}, 1, last_commit_s)
    return View(HEAD, ([], []), "1", 12, True, 0.1, list(services), pipeline, in_flight, 0.0)


def slots(*events: tuple[float, int]) -> list[dict[str, Any]]:
    """Rows of commits: so many slots ago, so many events."""
    end_s = int(NOW_S // flow.SLOT_S * flow.SLOT_S)
    return [{"start_s": end_s - int(ago * flow.SLOT_S), "events": n, "batches": n // 10} for ago, n in events]


def test_throughput_is_the_mean_of_the_newest_closed_slots() -> None:
    found = flow.throughput(slots((5, 7), (4, 50), (3, 100), (2, 200), (1, 300), (0, 9999)), NOW_S)
    assert found.events_per_s == [10.0, 20.0, 40.0, 60.0], "neither the first, which may be cut off, nor the open one"
    assert (found.events_now, found.batches_now) == (50.0, 5.0)


def test_throughput_of_a_slot_without_commits_is_0_and_without_history_unknown() -> None:
    found = flow.throughput(slots((5, 7), (4, 50)), NOW_S)
    assert found.events_per_s == [10.0, 0.0, 0.0, 0.0]
    assert (found.events_now, flow.throughput([], NOW_S).events_now) == (0.0, None)


def test_freshness_is_the_time_since_the_newest_commit() -> None:
    assert flow.since_commit(view(last_commit_s=NOW_S - 2.5), NOW_S) == 2.5
    assert flow.since_commit(view(last_commit_s=NOW_S + 1), NOW_S) == 0.0, "clocks differ"
    assert flow.since_commit(view(), NOW_S) is None


def test_lag_is_kept_as_it_was_seen_with_a_hole_where_nobody_looked() -> None:
    behind = flow.Behind()
    for at_s, waits_s, events in ((0.0, 1.0, 10), (5.0, None, None), (30.0, 2.0, 20)):
        behind.note(at_s, waits_s, events)
    assert behind.columns() == {
        "at_s": [0.0, 5.0, 17.5, 30.0],
        "waits_s": [1.0, None, None, 2.0],
        "in_flight": [10, None, None, 20],
    }
    behind.note(flow.HISTORY_S + 10.0, 3.0, 30)
    assert behind.columns()["at_s"][0] >= 10.0


def test_events_in_flight_are_those_in_the_streams_and_in_gaps_or_unknown() -> None:
    assert flow.in_flight(view(SHOP._replace(open=4), in_flight={"shop": 6})) == 10
    assert flow.in_flight(view(SHOP._replace(open=4))) is None


@pytest.mark.parametrize(
    ("change", "level", "verdict"),
    [
        ({}, "ok", "complete"),
        ({"states": {"ended": 3}}, "ok", "complete, no producer live"),
        ({"lost": 7}, "degraded", "7 lost"),
        ({"quarantined": 2, "open": 5}, "degraded", "2 quarantined, 5 missing yet"),
        ({"dropped": {"limit": 3, "nonfinite": 1}}, "degraded", "4 dropped"),
    ],
)
def test_a_service_is_complete_or_what_is_not_is_counted(change: dict[str, Any], level: str, verdict: str) -> None:
    service = SHOP._replace(**change)
    (found,) = flow.accounts(view(service))
    assert (found.level, found.verdict) == (level, verdict)
    assert (found.live, found.seen_ago_s) == (service.states.get("live", 0), 4.0)


def test_an_account_adds_up_with_what_waits_in_the_streams_and_what_is_parked() -> None:
    """No committed batch has told of either yet: the ledger's own `accepted` lacks both."""
    shop = SHOP._replace(accepted=110, dropped={"limit": 3}, quarantined=2, lost=1, open=4, parked=5)
    found = flow.accounts(view(shop, in_flight={"shop": 106, "new": 7}))
    assert [(one.service, one.accepted, one.in_flight) for one in found] == [("new", 7, 7), ("shop", 221, 115)]
    for one in found:
        parts = one.committed + one.dropped + one.quarantined + one.lost
        assert one.in_flight is not None and one.accepted == parts + one.in_flight


def test_an_account_is_unknown_while_nobody_knows_what_waits() -> None:
    (found,) = flow.accounts(view(SHOP))
    assert (found.accepted, found.committed, found.in_flight) == (None, 100, None)


def row(number: int, state: str = "live", **fields: Any) -> dict[str, Any]:
    told = {"producer_no": number, "producer_id": "f" * 32, "service": "shop", "shard": 1, "state": state}
    told |= {"accepted": 10, "committed": 9, "quarantined": 0, "lost": 0, "in_gaps": 0, "duplicates": 0}
    return told | {"last_seen_s": NOW_S - 3, "clock_offset_us": -1500, "clock_uncertainty_us": 200} | fields


def test_producers_that_need_a_look_come_first_and_say_why() -> None:
    rows = [row(1), row(2, "ended"), row(3, "unclean", last_seen_s=NOW_S - 90), row(4, in_gaps=5), row(5, lost=2)]
    found = flow.producers(rows, [{}, {}, {}, {}, {"limit": 1}], NOW_S)
    assert [(one.name, one.level, one.verdict) for one in found] == [
        ("shop/4", "degraded", "5 missing yet"),
        ("shop/5", "degraded", "2 lost, 1 dropped"),
        ("shop/3", "degraded", "ended without a farewell; complete"),
        ("shop/1", "ok", "complete"),
        ("shop/2", "ok", "complete"),
    ]
    assert [one.seen_ago_s for one in found] == [3.0, 3.0, 90.0, 3.0, 3.0]
    assert {one.clock for one in found} == {"-1.5 ± 0.2 ms"}


def test_stages_have_their_numbers_and_before_a_view_none() -> None:
    words: dict[str, list[str]] = {"stream": ["s"], "aggregators": ["a"], "database": [], "exporter": []}
    level = dict.fromkeys(("producers", "redis", "aggregators", "database", "snapshot"), "ok") | {"streams": "degraded"}
    rates = flow.throughput(slots((3, 1), (2, 100), (1, 100)), NOW_S)
    found = {one.name: one for one in flow.stages(view(SHOP, in_flight={"shop": 6}), level, rates, words)}
    numbers = {name: one.number for name, one in found.items()}
    assert numbers == {"producers": 2, "stream": 6, "aggregators": 1, "database": 100, "exporter": 12}
    assert (found["stream"].level, found["aggregators"].notes) == ("degraded", ["2.0 batches/s", "a"])
    assert {one.number for one in flow.stages(None, level, None, words)} == {None}
