"""Clean-up of consumers while others read: deleting a consumer deletes its pending list, so none may vanish with it."""

import asyncio
import itertools
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import redis
from redis.asyncio import Redis as AsyncRedis

from aggregator import trim
from aggregator.trim import Trimmer
from contract.streams import FIELD, GROUP, stream_key

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

KEY = stream_key(0)
ENTRIES = 10_000
READERS = 3


class Race:
    """Readers under ever new names, who die with entries pending or without, and one who cleans up after them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._names = itertools.count()
        self._read_all = threading.Event()
        self.acked = 0
        self.readers = 0
        self._counting = threading.Lock()

    def run(self) -> None:
        """Run until every entry was read once."""
        with ThreadPoolExecutor(READERS + 1) as threads:
            cleaner = threads.submit(asyncio.run, self._clean())
            readers = [threads.submit(self._with_client, partial(self._read, seed=i)) for i in range(READERS)]
            for reader in readers:
                reader.result(90)
            self._read_all.set()
            cleaner.result(30)

    def _with_client(self, work: Callable[[Any], None]) -> None:
        with redis.Redis.from_url(self._url, protocol=2, socket_timeout=10) as client:
            work(client)

    def _read(self, client: Any, seed: int) -> None:
        chosen = random.Random(seed)
        while True:
            name = f"consumer-{next(self._names)}"
            reply = client.xreadgroup(GROUP, name, {KEY: ">"}, count=chosen.randint(1, 8))
            if not reply:
                return
            with self._counting:
                self.readers += 1
            ids: list[bytes] = [entry_id for entry_id, _ in reply[0][1]]
            done = ids[: chosen.choice((0, len(ids) // 2, len(ids)))]
            if done:
                client.xack(KEY, GROUP, *done)
                with self._counting:
                    self.acked += len(done)

    async def _clean(self) -> None:
        """As an aggregator does it, but without a pause."""
        async with AsyncRedis.from_url(self._url, protocol=2, socket_timeout=10) as link:
            trimmer = Trimmer(link, replay_window_s=1800, max_bytes=1 << 30, interval_s=1)
            while not self._read_all.is_set():
                await trimmer.drop_idle_consumers(0)


def test_no_entry_vanishes_with_a_consumer_that_is_cleaned_up(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trim, "CONSUMER_IDLE_MS", 0)
    client: Any
    with redis.Redis.from_url(redis_url, protocol=2, socket_timeout=10) as client:
        client.xgroup_create(KEY, GROUP, "0", mkstream=True)
        pipeline = client.pipeline(transaction=False)
        for _ in range(ENTRIES):
            pipeline.xadd(KEY, {FIELD: b"x"})
        pipeline.execute()
        race = Race(redis_url)
        race.run()
        group = client.xinfo_groups(KEY)[0]
        assert group["lag"] == 0, "everything was read"
        assert race.acked + group["pending"] == ENTRIES
        assert 0 < group["pending"] < ENTRIES
        kept = len(client.xinfo_consumers(KEY, GROUP))
        assert 0 < kept < race.readers, "many were deleted, none of those that owe something"
