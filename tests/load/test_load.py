"""Seconds of the runs that `make soak` and `make overload` take minutes for: they work, and what they judge is kept."""

from pathlib import Path

import pytest

from tests.load import overload, soak
from tests.load.judging import judge_memory
from tests.load.report import Picture, Progressing, Result, write

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


def test_a_load_is_held_under_faults(tmp_path: Path) -> None:
    """Nothing lost, nothing double, no counter fell, the audit is content, and everything drains."""
    length = soak.Length(12.0, backlog=2_000, measure_s=2.0, between_s=6.0, sample_s=0.5)
    result = soak.play(tmp_path, 5, length, Progressing())
    assert result.is_kept, result.table()
    assert dict(result.rows)["faults"] == "2, one every 6 s"


def test_overload_is_merged_and_over_when_it_is_over(tmp_path: Path) -> None:
    """Every event is committed, by fewer and longer batches; streams and producers stay within bounds."""
    result = overload.play(
        tmp_path, overload.Length(12.0, backlog=40_000, window_s=1, around_s=2.0, sample_s=0.5), Progressing()
    )
    assert result.is_kept, result.table()


def test_a_seed_is_a_fault_an_interval() -> None:
    length = soak.Length(hold_s=1800.0)
    faults = soak.faults_of(3, length)
    assert faults == soak.faults_of(3, length) != soak.faults_of(4, length)
    assert [int(fault.at_s // 60) for fault in faults] == list(range(30))
    assert all(fault.at_s % 60 + fault.lasts_s < 60 for fault in faults)


@pytest.mark.parametrize(
    ("kept_grows", "taken_grows", "busy_s", "is_flat"),
    [
        (0.0, 0.0, (0, 0), True),
        (0.1, 0.0, (0, 0), False),
        (0.0, 0.0, (40, 20), True),
        (0.0, 0.0, (20, 40), True),
        (0.1, 0.0, (30, 30), False),
        (0.0, 0.1, (30, 30), False),
    ],
)
def test_memory_that_grows_is_told(
    kept_grows: float, taken_grows: float, busy_s: tuple[int, int], is_flat: bool
) -> None:
    """MiB a second; what catching up took is kept so many seconds of a minute, in the first half and in the second."""
    points = [
        (t, 330.0 + taken_grows * t if t % 60 < busy_s[t >= 900] else 100.0 + t % 7 + kept_grows * t)
        for t in range(1800)
    ]
    result = Result("Soak", "")
    judge_memory(result, "aggregator", points, 1800.0)
    assert result.is_kept == is_flat


def test_a_run_replaces_its_own_section(tmp_path: Path) -> None:
    page = tmp_path / "reliability.md"
    page.write_text("# Head\n\n<!-- soak -->\nold\n<!-- end of soak -->\n\nfoot\n")
    result = Result("Soak", "30 minutes", picture=Picture("Soak", [1.0]))
    result.row("lost", "0")
    assert result.picture is not None
    result.picture.panel("MiB", {"redis": [(0.0, 1.0), (1.0, 2.0)]})
    for _ in range(2):
        write(result, "seed 1", page)
    text = page.read_text()
    assert text.startswith("# Head\n\n<!-- soak -->\n30 minutes, seed 1:\n") and text.endswith(
        "<!-- end of soak -->\n\nfoot\n"
    )
    assert text.count("| lost | 0 |") == 1 and "old" not in text
    assert (tmp_path / "img" / "soak.svg").stat().st_size > 1000
