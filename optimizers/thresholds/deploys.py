"""Deploys: when most of a service's producers were begun at once, told from their lives.

In: since when and until when each producer was heard of. Out: spans whose samples teach nothing. Pure.
Promise: scripts that come and go, and workers that are renewed one by one, are no deploy.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np

BESIDE_S: Final = 900.0
"""Before and after the start of a producer."""
SHORTEST_LIFE_S: Final = 3600.0
"""What ends sooner is a script, or a worker that is renewed all the time."""
SILENT_S: Final = 120.0
"""A younger producer counts while it is heard of."""


class Life(NamedTuple):
    """One producer."""

    service: str
    began_s: float
    seen_s: float


class Span(NamedTuple):
    """A deploy with the quarter of an hour on both sides."""

    service: str
    from_s: float
    to_s: float


def deploys(lives: Iterable[Life], since_s: float, now_s: float) -> list[Span]:
    """Return the deploys that began after `since_s`; all producers that were there then must be among the lives."""
    by_service: dict[str, list[Life]] = {}
    for life in lives:
        if life.seen_s - life.began_s >= SHORTEST_LIFE_S or life.seen_s >= now_s - SILENT_S:
            by_service.setdefault(life.service, []).append(life)
    return [span for service, members in by_service.items() for span in _of(service, members, since_s, now_s)]


def _of(service: str, lives: Sequence[Life], since_s: float, now_s: float) -> list[Span]:
    began, seen = (np.array(column) for column in list(zip(*lives, strict=True))[1:])
    found: list[Span] = []
    for at_s in np.unique(began[(began > since_s) & (began < now_s - SILENT_S)]).tolist():
        # Once those that it replaced are gone, at the latest now.
        then_s = min(at_s + BESIDE_S, now_s - SILENT_S)
        are_there = (began <= then_s) & (seen >= then_s)
        fresh = int((are_there & (began >= at_s - BESIDE_S)).sum())
        if 2 * fresh <= int(are_there.sum()):
            continue
        low_s, high_s = at_s - BESIDE_S, at_s + BESIDE_S
        if found and low_s <= found[-1].to_s:
            low_s = found.pop().from_s
        found.append(Span(service, low_s, high_s))
    return found
