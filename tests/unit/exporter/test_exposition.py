"""Numbers, headers, templates and pages of the exposition."""

import gzip
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from contract.metric import Kind, Merge
from exporter.exposition import (
    PAGE_BYTES,
    format_value,
    header,
    histogram_template,
    paginate,
    printable,
    sample_template,
)
from exporter.family import BLOCK_LINES, Family, Metric


@given(st.lists(st.floats()))
def test_a_value_has_one_text_that_reads_back_as_itself(values: list[float]) -> None:
    texts = [(b"%a" % (value,)).decode() for value in printable(np.array(values, dtype=np.float64))]
    assert texts == [format_value(value) for value in values]
    for text, value in zip(texts, values, strict=True):
        assert math.isnan(float(text)) if math.isnan(value) else float(text) == value


def test_whole_numbers_have_no_point() -> None:
    values = [0.0, -0.0, 1.0, 2.0**53, 1e22, 0.1, math.inf, -math.inf, math.nan]
    texts = ["0", "0", "1", "9007199254740992.0", "1e+22", "0.1", "+Inf", "-Inf", "NaN"]
    assert [format_value(value) for value in values] == texts


def test_help_is_escaped_as_each_format_asks() -> None:
    assert header("a", Kind.GAUGE, 'x\\y\n"z"', "", openmetrics=False) == b'# HELP a x\\\\y\\n"z"\n# TYPE a gauge\n'
    assert header("a", Kind.GAUGE, 'x\\y\n"z"', "", openmetrics=True) == b'# HELP a x\\\\y\\n\\"z\\"\n# TYPE a gauge\n'


def test_counter_family_of_openmetrics_lacks_total_and_has_its_unit() -> None:
    found = header("a_bytes_total", Kind.COUNTER, "h", "bytes", openmetrics=True)
    assert found == b"# HELP a_bytes h\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\n"
    assert b"# TYPE odd unknown" in header("odd", Kind.COUNTER, "h", "", openmetrics=True)


def test_template_survives_percent_signs() -> None:
    found = histogram_template('a{x="5%s"}', (0.5,)) % (1, 2, 0.7, 2)
    assert found == (
        b'a_bucket{x="5%s",le="0.5"} 1\na_bucket{x="5%s",le="+Inf"} 2\na_sum{x="5%s"} 0.7\na_count{x="5%s"} 2\n'
    )
    assert sample_template('a{x="5%s"}') % 1 == b'a{x="5%s"} 1\n'


def test_unchanged_pages_are_reused_and_their_members_are_one_stream() -> None:
    pieces = [bytes([65 + i]) * PAGE_BYTES for i in range(4)]
    before = paginate(pieces, [])
    after = paginate([pieces[0], b"x" * PAGE_BYTES, *pieces[2:]], before)
    assert [a is b for a, b in zip(before, after, strict=True)] == [True, False, True, True]
    assert gzip.decompress(b"".join(page.gzip() for page in after)) == b"".join(page.plain() for page in after)


def family(kind: Kind, count: int, bounds: tuple[float, ...] = ()) -> Family:
    made = Family(Metric(1, "a_total", kind, "h", "", Merge.LAST, False, bounds))
    made.add([f'a_total{{x="{i}"}}' for i in range(count)], np.zeros(count))
    return made


def test_only_blocks_with_changed_series_are_made_anew() -> None:
    found = family(Kind.COUNTER, 3 * BLOCK_LINES)
    slots = np.arange(3 * BLOCK_LINES)
    found.set_values(slots, slots.astype(np.float64))
    found.show_since(0)
    before = found.pieces(openmetrics=False)
    found.set_values(slots, np.where(slots == BLOCK_LINES, -1.0, slots))
    after = found.pieces(openmetrics=False)
    assert [a is b for a, b in zip(before, after, strict=True)] == [True, True, False, True]
    assert b'a_total{x="512"} -1\n' in after[2]


def test_hidden_series_leave_no_line_and_come_back() -> None:
    found = family(Kind.COUNTER, 2)
    found.set_values(np.array([0, 1]), np.array([1.0, 2.0]))
    found.active_s = np.array([10.0, 20.0])
    for since, lines in ((0, 2), (15, 1), (25, 0), (0, 2)):
        found.show_since(since)
        text = b"".join(found.pieces(openmetrics=False))
        assert text.count(b"\n") == (lines + 2 if lines else 0)


def test_openmetrics_has_no_sum_where_negative_values_are_expected() -> None:
    found = family(Kind.HISTOGRAM, 1, (-1.0, 1.0))
    found.set_values(np.array([0]), np.array([-3.0]), np.array([[1, 2, 2]]))
    found.show_since(0)
    assert b"_sum" in b"".join(found.pieces(openmetrics=False))
    # The count stands there if and only if the sum does (OpenMetrics 1.0, histogram).
    text = b"".join(found.pieces(openmetrics=True))
    assert b"_bucket" in text
    assert b"_sum" not in text
    assert b"_count" not in text
