"""Selectors: which series of a metric are meant.

In: `name{label="value"}`, the labels that a series must have; `name` alone takes all. Out: a check on keys. Pure.
"""

from collections.abc import Mapping
from typing import NamedTuple

from contract.series import SeriesError, parse_key


class Selector(NamedTuple):
    """A metric and the labels that its series must have."""

    name: str
    labels: Mapping[str, str]

    def takes(self, key: str) -> bool:
        """Whether a series is meant, the metric's name already compared."""
        if not self.labels:
            return True
        have = parse_key(key.encode())[1]
        return all(have.get(label) == value for label, value in self.labels.items())


def parse_selector(text: str) -> Selector:
    """Read a selector; SeriesError says what is wrong with it."""
    try:
        return Selector(*parse_key(text.encode()))
    except SeriesError as error:
        raise SeriesError(
            f'{text!r} is no selector: name{{label="value",…}} with labels sorted by name ({error})'
        ) from None
