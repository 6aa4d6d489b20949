"""The benchmarks' own arithmetic: medians, goals and ratios say what was measured, missed goals included."""

from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.measure import OURS, Section, figure, table, verdict


def section(less_is_better: bool) -> Section:
    made = Section("size", "A title", less_is_better)
    made.add("work", OURS, "ms", [30.0, 10.0, 20.0], at_most=15.0)
    made.add("work", "peer", "ms", [40.0])
    return made


def test_a_row_shows_the_median_and_the_least_and_greatest() -> None:
    assert "| 20 (10 - 30) |" in table(section(True))[2]


def test_a_missed_goal_says_so_and_a_reached_one_too() -> None:
    made = section(True)
    assert verdict(made.rows[0]) == "≤ 15: MISSED"
    assert verdict(made.add("w", OURS, "1/s", [9.0], at_least=9.0)) == "≥ 9: reached"
    assert verdict(made.rows[1]) == ""


@pytest.mark.parametrize(("less_is_better", "ratio"), [(True, 2.0), (False, 0.5)])
def test_a_ratio_is_how_many_times_better_we_are(less_is_better: bool, ratio: float) -> None:
    made = section(less_is_better)
    assert made.ratio(made.rows[1]) == ratio
    assert made.ratio(made.rows[0]) is None


def test_figures_keep_three_digits() -> None:
    assert [figure(x) for x in (0, 0.04567, 8.4199, 12345.6, 4_288_382.0)] == [
        "0",
        "0.0457",
        "8.42",
        "12,300",
        "4,290,000",
    ]


def test_the_page_keeps_what_was_not_measured_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "DOCS", tmp_path)
    monkeypatch.setattr(report, "PAGE", tmp_path / "benchmarks.md")
    first, second = section(True), Section("drain", "Another", less_is_better=False)
    second.add("work", OURS, "events/s", [5.0])
    report.write([first], full=False)
    report.write([second], full=True)
    text = report.PAGE.read_text()
    assert text.index("## A title") < text.index("## Another")
    assert str(Path.home()) not in text and str(tmp_path) not in text
