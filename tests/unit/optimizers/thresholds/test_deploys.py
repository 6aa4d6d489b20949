"""What counts as a deploy, from made-up lives: who was begun when, and heard of until when."""

from optimizers.thresholds.deploys import Life, Span, deploys

NOW_S = 1_000_000.0
SINCE_S = NOW_S - 6 * 86_400
HOUR_S = 3600.0


def found(*lives: tuple[float, float], service: str = "shop") -> list[tuple[float, float]]:
    """Return spans, as hours before now; a life is (began, ended), hours before now."""
    told = [Life(service, NOW_S - began * HOUR_S, NOW_S - ended * HOUR_S) for began, ended in lives]
    return [((NOW_S - s.from_s) / HOUR_S, (NOW_S - s.to_s) / HOUR_S) for s in deploys(told, SINCE_S, NOW_S)]


def test_all_replicas_that_are_replaced_within_minutes_are_one_deploy() -> None:
    old = [(200.0, 50.0 - n / 30) for n in range(5)]
    new = [(50.0 - n / 30, 0.0) for n in range(5)]
    assert found(*old, *new) == [(50.25, 50.0 - 4 / 30 - 0.25)]


def test_one_of_five_that_is_replaced_is_no_deploy() -> None:
    assert found(*[(200.0, 0.0)] * 4, (200.0, 50.0), (50.0, 0.0)) == []


def test_half_is_not_most() -> None:
    assert found((200.0, 0.0), (50.0, 0.0)) == []


def test_a_script_that_runs_every_five_minutes_is_no_deploy() -> None:
    assert found(*[(n / 12, n / 12 - 0.01) for n in range(12, 600)]) == []


def test_a_script_that_runs_now_hides_no_quarter_of_an_hour_once_it_has_ended() -> None:
    assert found((0.3, 0.0)) != []
    assert found((0.3, 0.1)) == []


def test_workers_that_are_renewed_one_by_one_are_no_deploy() -> None:
    """Forty of them, each after two hours."""
    assert found(*[(n / 20 + 2, n / 20) for n in range(4000)]) == []


def test_workers_that_do_not_live_for_an_hour_are_no_deploy() -> None:
    """All forty are renewed within a quarter of an hour, again and again."""
    assert found(*[(n / 160 + 0.25, n / 160) for n in range(100, 4000)]) == []


def test_another_services_producers_do_not_make_it_most() -> None:
    shop, bots = Life("shop", NOW_S - 36_000, NOW_S), Life("bots", NOW_S - 36_000, NOW_S)
    old = [Life("bots", NOW_S - 720_000, NOW_S)] * 3
    assert deploys([shop, bots, *old], SINCE_S, NOW_S) == [Span("shop", NOW_S - 36_900, NOW_S - 35_100)]


def test_only_what_began_after_since_is_judged() -> None:
    assert found((6.1 * 24, 0.0)) == []
    assert found((5.9 * 24, 0.0)) != []
