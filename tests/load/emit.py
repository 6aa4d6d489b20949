"""Emit: an application that emits at a pace through the library, falls silent, and lives on until it is told to end.

Run as `python -m tests.load.emit`. In: lines on standard input, the events a second from now on, or `end`. Out: a line
of JSON twice a second: at what rate, how many events were emitted, and how many of them the library dropped.
"""

import json
import sys
import threading
import time
from random import random
from typing import Final

from producers import Client, Histogram

SERIES: Final = 30
TICK_S: Final = 0.02
SAY_EVERY_S: Final = 0.5
STOP_S: Final = 60.0


class Application:
    """Emits samples that do not compress, to each histogram in turn."""

    def __init__(self) -> None:
        self.client = Client()
        self._emitted = 0
        self._rate = 0.0
        self._is_over = threading.Event()
        took = Histogram("overload_seconds", "Load: a duration.", ["route"], registry=self.client)
        self._observe = [took.labels(f"r{i}").observe for i in range(SERIES)]

    def listen(self) -> None:
        """Take lines until one says `end`, or until nobody is there to write one."""
        for line in sys.stdin:
            if line.strip() == "end":
                break
            self._rate = float(line)
        self._is_over.set()

    def run(self) -> None:
        """Emit until told to end, then send the rest."""
        due, then_s, said_s = 0.0, time.monotonic(), 0.0
        while not self._is_over.wait(TICK_S):
            now_s = time.monotonic()
            due += self._rate * (now_s - then_s)
            then_s = now_s
            for _ in range(int(due)):
                self._observe[self._emitted % SERIES](random())
                self._emitted += 1
            due -= int(due)
            if now_s - said_s >= SAY_EVERY_S:
                said_s = now_s
                self._say()
        self.client.stop(STOP_S)
        self._say()

    def _say(self) -> None:
        dropped = sum(self.client.stats().dropped.values())
        said = {"rate": int(self._rate), "emitted": self._emitted, "dropped": dropped}
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


def main() -> int:
    """Emit until told to end."""
    application = Application()
    application.client.start()
    threading.Thread(target=application.listen, name="listen", daemon=True).start()
    application.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
