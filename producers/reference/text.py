"""Words and numbers as features: what the classifiers see of a message.

In: text and named fields. Out: a sorted list of distinct feature names. Promise: the same in training and serving.
"""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

_WORD: Final = re.compile(r"[a-z]+|\d+")
_STOP: Final = frozenset(
    re.findall(r"\w+", "a an the is it to of and i in on for my me we our you your this that be am are at")
)

STEM: Final = 4

FIELD_CUTS: Final[Mapping[str, Sequence[float]]] = {
    "asking_ratio": (0.9, 1.0, 1.05, 1.12, 1.25),
    "timeline_months": (1, 3, 6, 12),
    "condition": (2, 3, 4),
}


def words(text: str) -> list[str]:
    """Return the words that count, in order; all numbers are one word."""
    found = ("#" if word.isdigit() else word for word in _WORD.findall(text.lower().replace("'", "")))
    return [word for word in found if word not in _STOP]


def text_features(text: str) -> list[str]:
    """Return words, their beginnings (a poor man's stem, which also forgives typing errors) and pairs of neighbours."""
    found = words(text)
    stems = (word[:STEM] + "-" for word in found if len(word) > STEM)
    return sorted({*found, *stems, *(f"{a} {b}" for a, b in pairwise(found))})


def field_features(fields: Mapping[str, float | bool]) -> list[str]:
    """Return one feature per field: its interval, or whether it holds."""
    return sorted(
        f"{name}={bisect_right(FIELD_CUTS[name], value)}" if name in FIELD_CUTS else f"{name}={bool(value)}"
        for name, value in fields.items()
    )
