"""Traffic: when a client that was closed comes back."""

from producers.traffic import LONGEST_S, SPREAD_S, reconnect_delay_s


def test_after_a_restart_clients_come_back_spread_over_some_seconds() -> None:
    waits_s = [reconnect_delay_s(1012, tries, n / 100) for tries in (0, 20) for n in range(100)]
    assert min(waits_s) == 0
    assert SPREAD_S * 0.98 < max(waits_s) < SPREAD_S
    assert len(set(waits_s)) == 100


def test_after_a_failure_the_wait_doubles_to_a_bound_and_is_never_the_same_for_all() -> None:
    assert [reconnect_delay_s(1006, tries, 0.5) for tries in range(5)] == [1, 2, 4, 8, 16]
    assert reconnect_delay_s(1006, 10_000, 0.5) == LONGEST_S
    for code in (1000, 1006, 1011):
        assert reconnect_delay_s(code, 2, 0.0) == 2
        assert 5.9 < reconnect_delay_s(code, 2, 0.999) < 6
