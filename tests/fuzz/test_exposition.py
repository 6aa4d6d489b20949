"""Whatever labels and helps hold, /metrics is what it was made from: Prometheus' own parsers are the oracle.

Both formats; series keys made from any labels, values from any floats. No text can forge a line, a label or a family.
"""

import math
from collections.abc import Callable
from typing import Any, Final, cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families as read_text

from contract.metric import Kind, Merge
from contract.series import MAX_LABEL_VALUE_BYTES, RESERVED_LABELS, SeriesError, parse_key, series_key
from exporter.family import Family, Metric
from exporter.model import with_producer
from tests.fuzz.budget import examples

Read = Callable[[str], Any]
FORMATS: Final[list[tuple[bool, Read]]] = [
    (False, read_text),
    (True, cast("Any", openmetrics_parser).text_string_to_metric_families),
]
NASTY: Final = [
    '"',
    "\\",
    "\n",
    "\r",
    "\\n",
    '\\"',
    "}",
    "{",
    ",",
    "=",
    '",le="1',
    "# EOF\n",
    "\u2028",
    "\x85",
    "\x1c",
    " ",
    "%s",
    "%",
]

names = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,12}", fullmatch=True).map(lambda name: f"x_{name}_y")
label_names = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,8}", fullmatch=True).filter(lambda n: n not in RESERVED_LABELS)
texts = st.lists(
    st.sampled_from(NASTY) | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8), max_size=6
)
label_values = texts.map("".join).filter(lambda text: len(text.encode()) <= MAX_LABEL_VALUE_BYTES)
labels = st.dictionaries(label_names, label_values, max_size=4)
label_sets = st.lists(labels, min_size=1, max_size=4, unique_by=lambda found: tuple(sorted(found.items())))
finite = st.floats(allow_nan=False, allow_infinity=False)


def shown(family: Family, *, openmetrics: bool) -> str:
    text = b"".join(family.pieces(openmetrics=openmetrics)).decode()
    return text + "# EOF\n" if openmetrics else text


def made(name: str, kind: Kind, text: str, sets: list[dict[str, str]], bounds: tuple[float, ...] = ()) -> Family:
    """Return a family with a series for each label set."""
    family = Family(Metric(1, name, kind, text, "", Merge.LAST, False, bounds))
    family.add([series_key(name, found).decode() for found in sets], np.zeros(len(sets)))
    return family


@examples(150)
@given(names, texts.map("".join), label_sets, st.sampled_from([Kind.COUNTER, Kind.GAUGE]), st.data())
def test_a_value_is_read_back_under_its_own_labels(
    name: str, text: str, sets: list[dict[str, str]], kind: Kind, data: st.DataObject
) -> None:
    full = f"{name}_total" if kind is Kind.COUNTER else name
    values = [
        abs(x) if kind is Kind.COUNTER else x
        for x in data.draw(st.lists(finite, min_size=len(sets), max_size=len(sets)))
    ]
    family = made(full, kind, text, sets)
    family.set_values(np.arange(len(sets)), np.array(values))
    family.show_since(0)
    for openmetrics, read in FORMATS:
        (found,) = read(shown(family, openmetrics=openmetrics))
        assert [(one.name, one.labels, one.value) for one in found.samples] == [
            (full, labels_of, value) for labels_of, value in zip(sets, values, strict=True)
        ]
        # The text parser of the client takes blanks off a help's ends.
        assert found.documentation.strip() == text.strip() or not openmetrics


@examples(100)
@given(names, label_sets, st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=4, unique=True).map(sorted))
def test_a_histogram_is_read_back_bucket_by_bucket(name: str, sets: list[dict[str, str]], bounds: list[float]) -> None:
    family = made(name, Kind.HISTOGRAM, "h", sets, tuple(bounds))
    counts = np.cumsum(np.ones((len(sets), len(bounds) + 1), dtype=np.int64), axis=1)
    slots = np.arange(len(sets))
    family.set_values(slots, np.full(len(sets), 2.5), counts)
    family.show_since(0)
    for openmetrics, read in FORMATS:
        (found,) = read(shown(family, openmetrics=openmetrics))
        buckets = [one for one in found.samples if one.name == f"{name}_bucket"]
        assert len(buckets) == len(sets) * (len(bounds) + 1)
        wanted = [*bounds, math.inf]
        for at, bucket in enumerate(buckets):
            of, le = divmod(at, len(wanted))
            assert {key: value for key, value in bucket.labels.items() if key != "le"} == sets[of]
            assert (float(bucket.labels["le"]), bucket.value) == (wanted[le], le + 1)


@examples(150)
@given(names, labels, st.integers(0, 1 << 40))
def test_the_producer_is_added_to_the_labels_there_are(name: str, found: dict[str, str], producer: int) -> None:
    key = with_producer(series_key(name, found).decode(), producer)
    (family,) = read_text(f"{key} 1\n")
    assert family.samples[0].labels == {**found, "producer": str(producer)}


@examples(300)
@given(st.binary(max_size=60) | labels.map(lambda found: series_key("a", found)), st.data())
def test_a_changed_key_is_canonical_or_refused(key: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(key)))
    changed = key[:at] + data.draw(st.binary(max_size=3) | st.sampled_from(NASTY).map(str.encode)) + key[at:]
    try:
        name, found = parse_key(changed)
    except SeriesError:
        return
    assert series_key(name, found) == changed
    (family,) = read_text(changed.decode() + " 1\n")
    assert (family.samples[0].name, family.samples[0].labels) == (name, found)
