"""Feed: the batches of very many small workers at a pace, sent by production's own senders.

Run as `python -m tests.load.feed WORKERS`, settings from the environment. In: lines on standard input: `pace N` (so
many batches a second from now on), `fill N` (as fast as they go, until N were sealed in all), or `end`. Out: a line of
JSON twice a second, and one when all is sent.
Promise: what is sealed is sent until it is acknowledged, and again to another Redis. What a pace asks for while the
senders have as much as they may hold is not sealed but counted as withheld: a worker of the library would merge.
"""

import json
import os
import secrets
import sys
import threading
import time
from typing import Final

import numpy as np

from benchmarks.backlog import Emitter
from contract.batch import Directory, encode_directory
from contract.metric import DEFAULT_BUCKETS, Kind, MetricDef
from contract.series import series_key
from contract.streams import DEFAULT_SHARDS, shard_of
from producers.clock import Clock
from producers.seal import Sealed
from producers.sender import Outbox, Sender
from producers.settings import Settings

SERVICES: Final = 10
COUNTERS: Final = 20
HISTOGRAMS: Final = 20
SAMPLES: Final = 4
EVENTS: Final = COUNTERS + HISTOGRAMS * SAMPLES
"""Of each batch: what a worker that answers some hundred requests a second has to say in a flush interval."""
TICK_S: Final = 0.02
WAITING: Final = 400
SAY_EVERY_S: Final = 0.5
REQUESTS: Final = MetricDef("feed_requests_total", Kind.COUNTER, "Load: a count.")
SECONDS: Final = MetricDef("feed_request_seconds", Kind.HISTOGRAM, "Load: a duration.", "seconds", DEFAULT_BUCKETS)


class Feed:
    """Workers, and one sender a shard."""

    def __init__(self, workers: int, settings: Settings) -> None:
        self._pace = 0.0
        self._fill = 0
        self._is_over = threading.Event()
        self._sealed = self._withheld = 0
        self._emitters = [Emitter(i % DEFAULT_SHARDS) for i in range(workers)]
        self._directories = [_directory(service) for service in range(SERVICES)]
        self._random = np.random.default_rng(7)
        self._clock = Clock()
        self._outboxes = [Outbox() for _ in range(DEFAULT_SHARDS)]
        self._senders = [
            Sender(settings, outbox, self._clock, _id_of(shard)) for shard, outbox in enumerate(self._outboxes)
        ]
        self._counters = {
            "counter_n": np.ones(COUNTERS, "<u8").tobytes(),
            "counter_sum": np.ones(COUNTERS, "<f8").tobytes(),
            "sample_n": np.full(HISTOGRAMS, SAMPLES, "<u4").tobytes(),
        }

    def listen(self) -> None:
        """Take lines until one says `end`, or until nobody is there to write one."""
        for line in sys.stdin:
            word, _, number = line.strip().partition(" ")
            if word == "end":
                break
            self._pace, self._fill = (float(number), 0) if word == "pace" else (0.0, int(number))
        self._is_over.set()

    def run(self) -> None:
        """Seal as told until told to end; returns when everything is acknowledged."""
        for shard, sender in enumerate(self._senders):
            threading.Thread(target=sender.run, name=f"send {shard}", daemon=True).start()
        while not self._clock.is_measured():
            time.sleep(TICK_S)
        due, then_s, said_s = 0.0, time.monotonic(), 0.0
        while not self._is_over.wait(TICK_S):
            now_s = time.monotonic()
            due += self._pace * (now_s - then_s)
            then_s = now_s
            self._seal_due(int(due))
            due -= int(due)
            while self._sealed < self._fill and self._next():
                pass
            if now_s - said_s >= SAY_EVERY_S:
                said_s = now_s
                self._say()
        while any(outbox.waiting for outbox in self._outboxes):
            time.sleep(TICK_S)
        self._say()

    def _seal_due(self, batches: int) -> None:
        for _ in range(batches):
            if not self._next():
                self._withheld += 1

    def _next(self) -> bool:
        """Seal one batch of the next worker; False: its sender has enough."""
        emitter = self._emitters[(self._sealed + self._withheld) % len(self._emitters)]
        outbox = self._outboxes[emitter.shard]
        if outbox.held or len(outbox.waiting) >= WAITING:
            return False
        samples = self._random.random(HISTOGRAMS * SAMPLES).tobytes()
        directory = self._directories[self._sealed % SERVICES]
        data = emitter.seal(EVENTS, self._clock.now_ms() / 1000, directory, samples=samples, **self._counters)
        self._sealed += 1
        outbox.put(Sealed(emitter.seq, EVENTS, data))
        return True

    def _say(self) -> None:
        waiting = sum(len(outbox.waiting) for outbox in self._outboxes)
        said = {"sealed": self._sealed, "withheld": self._withheld, "waiting": waiting}
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


def _id_of(shard: int) -> bytes:
    """Return an id that makes a sender keep to a shard; the batches have ids of their own."""
    while True:
        producer_id = secrets.token_bytes(16)
        if shard_of(producer_id, DEFAULT_SHARDS) == shard:
            return producer_id


def _directory(service: int) -> bytes:
    keys = [series_key(REQUESTS.name, {"route": f"s{service}-r{i:02d}"}) for i in range(COUNTERS)]
    keys += [series_key(SECONDS.name, {"route": f"s{service}-r{i:02d}"}) for i in range(HISTOGRAMS)]
    of = np.repeat(np.arange(2, dtype="<u2"), (COUNTERS, HISTOGRAMS)).tobytes()
    return encode_directory(Directory((REQUESTS, SECONDS), keys, of, COUNTERS, 0, HISTOGRAMS, 0))


def main() -> int:
    """Feed until told to end."""
    feed = Feed(int(sys.argv[1]), Settings.read(os.environ))
    threading.Thread(target=feed.listen, name="listen", daemon=True).start()
    feed.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
