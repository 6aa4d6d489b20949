"""Traffic for the reference API: `python -m producers.traffic --url http://127.0.0.1:8000 [--rate R] …`.

In: the held-out inputs, posted in rotation over one kept connection, and now and then a WebSocket session.
Out: one summary line at the end. Promise: the same requests in the same order each time; an API that is away is
waited for; SIGTERM and Ctrl-C end it after the request under way.
"""

import argparse
import http.client
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect

from producers.reference.models import DATA

TIMEOUT_S: Final = 5.0
AWAY_PAUSE_S: Final = 0.5
SESSION_EVERY: Final = 100
"""Requests between two WebSocket sessions."""

SESSION_MESSAGES: Final = 5
TURNS: Final = ("intent", "seller", "score", "intent", "listing", "seller", "intent", "score", "listing", "intent")
PATHS: Final = {"intent": "/intent/decode", "seller": "/seller/qualify", "score": "/score"}
JSON: Final = {"Content-Type": "application/json"}

RESTARTS: Final = 1012
"""Close code of a WebSocket: the server restarts, others are there (RFC 6455's registry)."""

BROKEN: Final = 1006
SPREAD_S: Final = 5.0
LONGEST_S: Final = 30.0

Request = tuple[str, str, bytes | None]


def reconnect_delay_s(code: int, tries: int, draw: float) -> float:
    """Return how long a client waits before it opens its WebSocket again, by the code it was closed with (seconds).

    `tries` in vain came before; `draw` is random, in [0, 1): whoever was closed together must not come back together.
    After a restart others are ready; of a failure nobody knows how long it lasts.
    """
    if code == RESTARTS:
        return draw * SPREAD_S
    return min(LONGEST_S, 2.0 ** min(tries, 10)) * (0.5 + draw)


def rows(name: str) -> list[dict[str, Any]]:
    """Return the held-out rows of one model."""
    return [msgspec.json.decode(line) for line in DATA.joinpath(f"{name}_heldout.jsonl").read_bytes().splitlines()]


def requests() -> Iterator[Request]:
    """Return (method, path, body) for ever: each held-out row in turn, popular listings more often, a few unknown."""
    bodies = {
        "intent": [{"text": row["text"], "label": row["label"]} for row in rows("intent")],
        "seller": [{"text": row["text"], "fields": row["fields"]} for row in rows("seller")],
        "score": [row["fields"] for row in rows("score")],
    }
    inputs = {name: [msgspec.json.encode(row) for row in found] for name, found in bodies.items()}
    taken: Counter[str] = Counter()
    for number in count():
        kind = TURNS[number % len(TURNS)]
        turn = taken[kind]
        taken[kind] += 1
        if kind == "listing":
            # Squares modulo a prime: 106 of 211 numbers come up, 0 is refused (422), those above 200 are unknown (404).
            yield "GET", f"/listing/{turn * turn % 211}", None
        else:
            yield "POST", PATHS[kind], inputs[kind][turn % len(inputs[kind])]


class Traffic:
    """A client that keeps one connection, and counts what it was answered."""

    def __init__(self, url: str, stop: threading.Event) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self.stop = stop
        self.connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_S)
        self.statuses: Counter[str] = Counter()
        self.sessions = 0
        self._tries = 0
        self._converse_at = 0.0

    def ask(self, request: Request) -> None:
        """Send one request and read its answer; an API that is away is given a pause."""
        method, path, body = request
        try:
            self.connection.request(method, path, body, JSON if body else {})
            response = self.connection.getresponse()
            response.read()
            self.statuses[str(response.status)] += 1
        except (OSError, http.client.HTTPException):
            self.connection.close()
            self._pause()

    def converse(self, messages: Sequence[str]) -> None:
        """Open a WebSocket, say some messages, read the answers, close; after a failure not before it is time."""
        if time.monotonic() < self._converse_at:
            return
        try:
            with connect(
                f"ws://{self.host}:{self.port}/ws", open_timeout=TIMEOUT_S, close_timeout=TIMEOUT_S, proxy=None
            ) as socket:
                for message in messages:
                    socket.send(message)
                    socket.recv(timeout=TIMEOUT_S)
            self.sessions += 1
            self._tries = 0
        except (OSError, WebSocketException) as error:
            code = error.rcvd.code if isinstance(error, ConnectionClosed) and error.rcvd else BROKEN
            delay_s = reconnect_delay_s(code, self._tries, random.random())  # noqa: S311 (no secret)
            self._converse_at = time.monotonic() + delay_s
            self._tries += 1
            self.statuses["away"] += 1

    def _pause(self) -> None:
        self.statuses["away"] += 1
        self.stop.wait(AWAY_PAUSE_S)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def summary(self) -> str:
        """Return what was answered, as one line."""
        answered = sum(self.statuses.values()) - self.statuses["away"]
        parts = ", ".join(f"{status}: {times}" for status, times in sorted(self.statuses.items()))
        return f"{answered} requests answered ({parts or 'none'}), {self.sessions} WebSocket sessions"


def run(traffic: Traffic, rate: float, duration_s: float | None, limit: int | None) -> None:
    """Ask at a rate until time, count or the stop flag ends it. A late request is not made up for by a burst."""
    started_at = next_at = time.monotonic()
    texts = [msgspec.json.encode({"text": r["text"], "label": r["label"]}).decode() for r in rows("intent")]
    for number, request in enumerate(requests()):
        now = time.monotonic()
        if (limit is not None and number >= limit) or (duration_s is not None and now - started_at >= duration_s):
            return
        if traffic.stop.wait(max(0.0, next_at - now)):
            return
        next_at = max(next_at, now) + 1 / rate
        traffic.ask(request)
        if number % SESSION_EVERY == SESSION_EVERY - 1:
            first = number // SESSION_EVERY * SESSION_MESSAGES
            traffic.converse([texts[(first + k) % len(texts)] for k in range(SESSION_MESSAGES)])


def positive(text: str) -> float:
    """Read a number above zero."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run, print the summary."""
    parser = argparse.ArgumentParser(prog="python -m producers.traffic", description="Traffic for the reference API.")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--rate", type=positive, default=20.0, help="requests per second (default 20)")
    parser.add_argument("--duration", type=positive, help="seconds (default: until stopped)")
    parser.add_argument("--requests", type=int, help="requests (default: until stopped)")
    options = parser.parse_args(arguments)
    stop = threading.Event()

    def end(_number: int, _frame: object) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    traffic = Traffic(options.url, stop)
    try:
        run(traffic, options.rate, options.duration, options.requests)
    finally:
        traffic.close()
    sys.stdout.write(traffic.summary() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
