"""Sockets: who may open a WebSocket, how many a client may have, and how fast it may send.

In: the handshake's Origin and client address, and the time of each message. Out: yes, or why not.
Promise: pure but for the count of open sockets; a browser page of another origin is refused before the socket is
accepted; clients that are no browser send no Origin and are let in.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Final
from urllib.parse import urlsplit

BURST: Final = 20
"""Messages that a client may send at once."""


class Sockets:
    """The open sockets of one replica, by client."""

    def __init__(self, origins: Collection[str], per_client: int) -> None:
        self._origins = frozenset(origins)
        self._per_client = per_client
        self._open: Counter[str] = Counter()

    def refusal(self, origin: str | None, host: str | None, client: str) -> str | None:
        """Return why a socket is refused; None when it may be opened."""
        if origin is not None and origin not in self._origins and urlsplit(origin).netloc != host:
            return "origin"
        return "too_many" if self._open[client] >= self._per_client else None

    def opened(self, client: str) -> None:
        """Count a socket that is being accepted."""
        self._open[client] += 1

    def closed(self, client: str) -> None:
        """Count it no more."""
        self._open[client] -= 1
        if self._open[client] <= 0:
            del self._open[client]


class Pace:
    """A token bucket: `per_s` messages a second on average, BURST at once."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._left = float(BURST)
        self._at = clock()

    def takes(self) -> bool:
        """Whether one more message is within the pace."""
        now = self._clock()
        self._left = min(float(BURST), self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
