"""What services say of their processes: too much load and a blocked loop are found, health is silent, gaps are said."""

import pytest

from optimizers.signals.loop_lag import Lag, judge_loops
from optimizers.signals.staffing import Load, judge_workers, workers_needed


@pytest.mark.parametrize(("cpu_s_per_s", "needed"), [(0.0, 1), (0.7, 1), (0.71, 2), (2000 * 0.0015, 5)])
def test_processes_follow_from_littles_law(cpu_s_per_s: float, needed: int) -> None:
    assert workers_needed(cpu_s_per_s) == needed


def test_a_service_with_too_few_processes_is_told_how_many_it_needs() -> None:
    said = judge_workers({"shop": Load(2, 3.0, 30, 2000.0), "quiet": Load(2, 0.1, 30, None)})
    assert (said.status, said.judged) == ("warn", ("quiet", "shop"))
    (advice,) = said.advice
    assert (advice.target, advice.current, advice.proposed) == ("shop", "2 processes", "5 processes")
    assert advice.expected_effect == "each process busy 60% instead of 150%"
    assert advice.evidence == {
        "cpu_seconds_per_s": 3.0,
        "busy_percent": 150.0,
        "requests_per_s": 2000.0,
        "minutes_measured": 30,
    }


def test_enough_processes_are_no_advice() -> None:
    assert judge_workers({"shop": Load(5, 3.0, 30, None)}).status == "ok"


@pytest.mark.parametrize(
    ("load", "says"),
    [
        (Load(0, 3.0, 30, None), "shop: no live process"),
        (Load(1, 3.0, 9, None), "shop: CPU time of 9 of the last 30 minutes, 10 needed"),
    ],
)
def test_a_load_that_is_hardly_known_is_not_judged(load: Load, says: str) -> None:
    said = judge_workers({"shop": load})
    assert (said.status, said.detail) == ("insufficient_data", f"insufficient data: {says}")
    assert judge_workers({"shop": load, "known": Load(1, 0.1, 30, None)}).judged == ("known",)


def test_without_cpu_time_nothing_is_judged() -> None:
    assert "no service sends process_cpu_seconds_total" in judge_workers({}).detail


def test_a_blocked_loop_is_found_and_a_quiet_one_is_not() -> None:
    said = judge_loops({"slow": Lag(0.101, 200), "fine": Lag(0.1, 18_000), "new": Lag(9.0, 199)})
    assert (said.status, said.judged, [one.target for one in said.advice]) == ("warn", ("fine", "slow"), ["slow"])
    assert said.detail == "1 of 2 services block their event loop; 1 with too little data"


@pytest.mark.parametrize(("services", "most"), [({}, 0), ({"new": Lag(9.0, 199)}, 199)])
def test_too_few_samples_of_the_loop_are_said(services: dict[str, Lag], most: int) -> None:
    said = judge_loops(services)
    assert said.status == "insufficient_data"
    assert f"{most} samples of event_loop_lag_seconds in 30 min, 200 needed" in said.detail
