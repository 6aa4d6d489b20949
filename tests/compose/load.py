"""A client of the published port for as long as the test lasts: a bounded rate, every answer counted.

In: the certificate's authority. Out: how many requests were answered how. Promise: a GET that fails is never tried
again, so that one failure is seen.
"""

import http.client
import ssl
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Final

from producers.traffic import JSON, requests

RATE: Final = 25.0
"""Requests per second; the edge takes 50 of one client."""

TIMEOUT_S: Final = 15.0
HOST: Final = "localhost"


def connect(authority: Path) -> http.client.HTTPSConnection:
    """Return a connection to the published port, which verifies what it meets."""
    return http.client.HTTPSConnection(
        HOST, 443, timeout=TIMEOUT_S, context=ssl.create_default_context(cafile=str(authority))
    )


class Load:
    """Requests of the reference traffic, one after another, in a thread."""

    def __init__(self, authority: Path) -> None:
        self.authority = authority
        self.statuses: Counter[str] = Counter()
        self.failures: list[str] = []
        self.interrupted = 0
        """POSTs whose replica died under them: the edge sends none twice."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def open(self) -> None:
        """Start."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the request under way."""
        self._stop.set()
        self._thread.join(TIMEOUT_S * 2)

    def _run(self) -> None:
        connection = connect(self.authority)
        for method, path, body in requests():
            began_s = time.monotonic()
            try:
                connection.request(method, path, body, JSON if body else {})
                response = connection.getresponse()
                response.read()
                self._count(method, path, response.status)
            except (OSError, http.client.HTTPException) as error:
                self.statuses[f"{method} failed"] += 1
                self.failures.append(f"{method} {path}: {type(error).__name__} {error}")
                connection.close()
            if self._stop.wait(max(0.0, 1 / RATE - (time.monotonic() - began_s))):
                return

    def _count(self, method: str, path: str, status: int) -> None:
        self.statuses[f"{method} {status}"] += 1
        if status == 502 and method == "POST":
            self.interrupted += 1
        elif status >= 500:
            self.failures.append(f"{method} {path}: {status}")

    @property
    def answered(self) -> int:
        """How many requests had an answer below 500."""
        return sum(count for name, count in self.statuses.items() if name.split()[1] < "5")
