"""Series keys: one label set, one key; a key is a line prefix that Prometheus reads as what it was made from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from contract.series import (
    MAX_LABEL_VALUE_BYTES,
    MAX_LABELS,
    RESERVED_LABELS,
    SeriesError,
    check_label_value,
    parse_key,
    series_key,
)

names = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,20}", fullmatch=True)
label_names = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,10}", fullmatch=True).filter(lambda n: n not in RESERVED_LABELS)
values = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60)
labels = st.dictionaries(label_names, values, max_size=5)


@given(names, labels)
def test_key_and_labels_are_two_forms_of_one_thing(name: str, given_labels: dict[str, str]) -> None:
    """Whatever the values hold, nothing is lost and nothing is made up."""
    key = series_key(name, given_labels)
    assert parse_key(key) == (name, given_labels)
    assert series_key(name, list(reversed(list(given_labels.items())))) == key


@given(names, labels)
def test_prometheus_reads_the_key_as_the_same_series(name: str, given_labels: dict[str, str]) -> None:
    """The client's own parser is the oracle: no value can forge a line or a label."""
    text = series_key(name, given_labels).decode() + " 1\n"
    (family,) = text_string_to_metric_families(text)
    (sample,) = family.samples
    assert (sample.name, sample.labels, sample.value) == (name, given_labels, 1)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_canonical_key_or_an_error(data: bytes) -> None:
    """What parses renders to the same bytes; nothing else is raised."""
    try:
        name, found = parse_key(data)
    except SeriesError:
        return
    assert series_key(name, found) == data


@pytest.mark.parametrize(
    ("value", "text"),
    [("a\0b", "NUL"), ("x" * (MAX_LABEL_VALUE_BYTES + 1), "bytes long"), ("\ud800", "not valid Unicode")],
)
def test_refused_value_names_its_label(value: str, text: str) -> None:
    """The message says which label, and what is wrong with it."""
    with pytest.raises(SeriesError, match=f"'route'.*{text}"):
        check_label_value("route", value)


def test_too_many_labels_are_refused() -> None:
    """A bound on what one series may cost."""
    with pytest.raises(SeriesError, match="33 labels"):
        series_key("a", {f"l{i}": "x" for i in range(MAX_LABELS + 1)})
