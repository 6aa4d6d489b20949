"""Selector: which series a person means: `name`, `name{a="x"}`, `name{a!="x"}`, with =, !=, =~ and !~.

In: text as Prometheus reads it. Out: a Selector that tells whether a key matches.
Promise: text that is no selector is a ValueError that quotes it; a regular expression must match the whole value.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from contract.series import SeriesError, check_metric_name, parse_key

_MATCHER: Final = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*')
_ESCAPED: Final = re.compile(r"\\(.)")


class Selector(NamedTuple):
    """A metric name and conditions on labels."""

    name: str
    matchers: tuple[tuple[str, Callable[[str], bool]], ...] = ()

    def matches(self, key: bytes) -> bool:
        """Whether a canonical key is meant; a label that is missing has the empty value."""
        name, labels = parse_key(key)
        return name == self.name and all(holds(labels.get(label, "")) for label, holds in self.matchers)


def parse_selector(text: str) -> Selector:
    """Return the selector; ValueError if it is none."""
    name, brace, rest = text.strip().partition("{")
    try:
        check_metric_name(name.strip())
    except SeriesError as error:
        raise ValueError(f"{text!r} is no selector: {error}") from None
    if brace and not rest.endswith("}"):
        raise ValueError(f"{text!r} is no selector: the closing brace is missing")
    return Selector(name.strip(), tuple(_matchers(text, rest[:-1])) if brace else ())


def _matchers(text: str, rest: str) -> list[tuple[str, Callable[[str], bool]]]:
    found: list[tuple[str, Callable[[str], bool]]] = []
    at = 0
    while at < len(rest.rstrip()):
        match = _MATCHER.match(rest, at)
        if match is None:
            raise ValueError(f"{text!r} is no selector: cannot read {rest[at:]!r}")
        found.append((match[1], _condition(match[2], _ESCAPED.sub(_unescape, match[3]))))
        at = match.end()
        if at < len(rest) and rest[at] != ",":
            raise ValueError(f"{text!r} is no selector: a comma is missing before {rest[at:]!r}")
        at += 1
    return found


def _unescape(match: "re.Match[str]") -> str:
    return "\n" if match[1] == "n" else match[1]


def _condition(operator: str, value: str) -> Callable[[str], bool]:
    if operator == "=":
        return lambda given: given == value
    if operator == "!=":
        return lambda given: given != value
    try:
        pattern = re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from None
    if operator == "=~":
        return lambda given: pattern.fullmatch(given) is not None
    return lambda given: pattern.fullmatch(given) is None
