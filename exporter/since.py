"""Since: since when each component is what it is, also before this exporter started.

In: what components are now; what was written down (database). Out: a time per component; changes to write down.
Promise: asks nobody itself; a status that this exporter saw change keeps that time, whatever is away.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple


class State(NamedTuple):
    """What a component is, and since when."""

    status: str
    since: datetime


class Since:
    """Memory of one exporter."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}
        self._unwritten: dict[str, State] = {}
        self.is_loaded = False

    def load(self, stored: Mapping[str, State]) -> None:
        """Take over what an exporter wrote down earlier: older times for what is still the same."""
        self.is_loaded = True
        for name, old in stored.items():
            now = self._states.get(name)
            if now is None or (now.status == old.status and old.since < now.since):
                self._states[name] = old
                self._unwritten.pop(name, None)

    def note(self, statuses: Mapping[str, str], now: datetime) -> dict[str, datetime]:
        """Return since when each component is what it is now."""
        for name, status in statuses.items():
            known = self._states.get(name)
            if known is None or known.status != status:
                self._states[name] = self._unwritten[name] = State(status, now)
        return {name: self._states[name].since for name in statuses}

    def unwritten(self) -> list[tuple[str, State]]:
        """Return changes that are not written down yet."""
        return sorted(self._unwritten.items())

    def wrote(self, changes: Iterable[tuple[str, State]]) -> None:
        """Forget changes that are written down, unless they changed again meanwhile."""
        for name, state in changes:
            if self._unwritten.get(name) == state:
                del self._unwritten[name]
