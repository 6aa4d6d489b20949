"""Selectors: which keys they mean, and what is refused."""

import pytest

from contract.series import series_key
from database.selector import parse_selector

KEY = series_key("hits_total", {"path": 'a "b" \\ c', "code": "200"})


@pytest.mark.parametrize(
    "text",
    [
        "hits_total",
        "hits_total{}",
        'hits_total{code="200"}',
        'hits_total{ code = "200" , path != "" }',
        'hits_total{code=~"2.."}',
        'hits_total{code!~"5.."}',
        'hits_total{path="a \\"b\\" \\\\ c"}',
        'hits_total{other=""}',
    ],
)
def test_key_is_meant(text: str) -> None:
    assert parse_selector(text).matches(KEY)


@pytest.mark.parametrize(
    "text", ["hits", 'hits_total{code="20"}', 'hits_total{code=~"2"}', 'hits_total{code!="200"}', 'hits_total{no="x"}']
)
def test_key_is_not_meant(text: str) -> None:
    assert not parse_selector(text).matches(KEY)


@pytest.mark.parametrize("text", ["", "1x", "a{", 'a{b="c"', "a{b=c}", 'a{b="c" d="e"}', 'a{b=~"("}'])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        parse_selector(text)
