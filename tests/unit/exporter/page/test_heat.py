"""Heat maps: what is drawn is what the sketches hold."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import sketch
from database.rows import Rows
from exporter.history import Gathered, Progress
from exporter.page.heat import MAX_BANDS, QUANTILES, RANGES, ask, draw
from exporter.question import BadQuestion

QUESTION = ask("took_seconds", "15m", 1_000_000_000.0)
Samples = list[tuple[int, list[float]]]
"""Per row: number of its window, and its values."""


def rows(samples: Samples) -> Rows:
    sketches: list[bytes] = []
    for _, values in samples:
        counts: dict[int, int] = {}
        sketch.fold(values, counts)
        sketches.append(sketch.encode(counts))
    return Rows(
        np.array([QUESTION.from_s + 10 * window for window, _ in samples], dtype=np.int64),
        np.arange(len(samples), dtype=np.int64),
        np.zeros(len(samples), dtype=np.int64),
        np.array([len(values) for _, values in samples], dtype=np.int64),
        np.array([float(sum(values)) for _, values in samples]),
        np.array([min(values) for _, values in samples]),
        np.array([max(values) for _, values in samples]),
        np.array([values[-1] for _, values in samples]),
        np.array([len(packed) for packed in sketches], dtype=np.int64),
        np.frombuffer(b"".join(sketches), dtype=np.uint8),
    )


def picture(samples: Samples, progress: list[Progress] | None = None) -> dict[str, Any]:
    return draw(Gathered(len(samples), rows(samples), {}, progress or []), QUESTION)


values = st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=20)


@given(st.lists(st.tuples(st.integers(0, 89), values), min_size=1, max_size=12))
def test_cells_hold_every_value_in_its_window_and_range(samples: Samples) -> None:
    drawn = picture(samples)
    limits, cells = drawn["limits"], drawn["cells"]
    assert len(limits) - 1 <= MAX_BANDS
    for window in range(90):
        held = [v for at, values in samples if at == window for v in values]
        mine = {band: n for at, band, n in cells if at == window}
        assert sum(mine.values()) == len(held)
        for band, n in mine.items():
            low = 0.0 if band == 0 else limits[band]  # the least values share the lowest band
            assert sum(low < v <= limits[band + 1] for v in held) == n


def test_quantiles_and_counts_are_per_window_and_nothing_is_null() -> None:
    drawn = picture([(3, [0.01] * 99), (3, [5.0]), (88, [0.2])])
    n, lines = drawn["n"], drawn["lines"]
    assert n[3] == 100 and n[88] == 1 and n[4] is None
    assert lines["p50"][3] == pytest.approx(0.01, rel=0.011)
    assert lines["p99"][3] == pytest.approx(0.01, rel=0.011)
    assert lines["p50"][4] is None
    assert drawn["recent"] == {"n": 1, **{f"p{q * 100:g}": pytest.approx(0.2, rel=0.011) for q in QUANTILES}}


def test_without_values_there_is_no_picture_and_no_zero() -> None:
    drawn = draw(Gathered(0, rows([(1, [1.0])]).take(np.array([False])), {}, []), QUESTION)
    assert drawn["cells"] == [] and drawn["limits"] == []
    assert drawn["whole"] == {"n": 0, "p50": None, "p90": None, "p99": None}


def test_a_window_that_somebody_has_not_sealed_is_partial() -> None:
    late = Progress(1, "shop", False, QUESTION.to_s - 30, 0.0, float(QUESTION.to_s), 0.0, [])
    partial = picture([(1, [1.0])], [late])["partial"]
    assert partial[-1] and not partial[0]


def test_values_of_zero_and_below_are_counted_though_not_drawn() -> None:
    drawn = picture([(1, [0.0, -1.0, 2.0])])
    cells, n = drawn["cells"], drawn["n"]
    assert n[1] == 3 and sum(cell[2] for cell in cells) == 1


@pytest.mark.parametrize(("series", "span", "parameter"), [("a b", "1h", "series"), ("a", "2h", "range")])
def test_a_bad_question_names_its_parameter(series: str, span: str, parameter: str) -> None:
    with pytest.raises(BadQuestion) as refused:
        ask(series, span, 0.0)
    assert refused.value.parameter == parameter


def test_every_range_is_made_of_whole_windows_and_few_columns() -> None:
    for length_s, step_s in RANGES.values():
        assert length_s % step_s == 0 and step_s % 10 == 0 and length_s // step_s <= 90
