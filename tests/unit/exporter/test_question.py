"""What may be asked of the history: how much at once."""

import pytest

from exporter.question import MAX_POINTS, BadQuestion, Question, read_question

TO_S = 1_700_000_000


def ask(points: int) -> Question:
    return read_question("a_total", "", str(TO_S - 10 * points), str(TO_S), "10", [], TO_S)


def test_a_question_gets_up_to_11_000_points() -> None:
    asked = ask(MAX_POINTS)
    assert (asked.to_s - asked.from_s) // asked.step_s == 11_000
    with pytest.raises(BadQuestion, match="11001 points; at most 11000 are allowed"):
        ask(MAX_POINTS + 1)
