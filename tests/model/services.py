"""The services of a world: aggregators and an exporter, of production's own classes.

In: simulated servers. Out: processes with tasks. Promise: what is written here only starts them and feeds them; what
is decided about batches, commits, acknowledgements, fences and trims is decided by production code.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final, cast
from unittest.mock import patch

from redis.exceptions import RedisError

import aggregator.committer
import aggregator.identities
import aggregator.lanes
import aggregator.service
import aggregator.shard
import aggregator.tallies
import aggregator.trim
import producers.drainer
import producers.sender
from aggregator.lanes import Lanes
from aggregator.service import Aggregator as RealAggregator
from aggregator.settings import AggregatorSettings
from aggregator.trial import Trial
from aggregator.trim import Trimmer
from contract.streams import COMMIT_KEY, DATABASE_KEY, OWNER_KEY
from database.connect import AWAY, acquire
from exporter.snapshot import Head, Snapshots, Unavailable
from exporter.streams import Acknowledged
from tests.model import pure
from tests.model.emitting import SenderLink
from tests.model.here import Here
from tests.model.redis_link import Link
from tests.model.sessions import Pool
from tests.model.statements import SCRAPE
from tests.model.tasks import ASYNCIO, CLOCK, Process, Task, sleep

SETTINGS: Final = AggregatorSettings(
    streamgauge_commit_interval_s=0.4,
    streamgauge_reclaim_idle_s=30,
    streamgauge_reclaim_interval_s=10,
    streamgauge_replay_window_s=2,
    streamgauge_trim_interval_s=5,
    streamgauge_heartbeat_s=15,
    streamgauge_shards=1,
)
BLOCK_MS: Final = 4000
SCRAPE_EVERY_S: Final = 0.3


async def _open_pool(*_: object, connected: Any, **__: object) -> Pool:
    assert Task.current is not None
    return Pool(Here.world.store, Task.current.process, connected)


def _open_link(*_: object, **__: object) -> Link:
    return Link(Here.world.redis)


def _open_sender_link(*_: object) -> SenderLink:
    return SenderLink(Here.world)


async def _nothing(*_: object, **__: object) -> None:
    """Nothing is to be done."""


async def _none_crashes(*_: object) -> set[int]:
    return set()


@contextmanager
def simulated() -> Generator[None]:
    """Let production code meet simulated time, tasks, servers; its pure parts answer from what they answered before."""
    replaced: list[tuple[Any, str, Any]] = [
        (aggregator.shard, "time", CLOCK),
        (aggregator.shard, "asyncio", ASYNCIO),
        (aggregator.shard, "BLOCK_MS", BLOCK_MS),
        (aggregator.lanes, "time", CLOCK),
        (aggregator.lanes, "asyncio", ASYNCIO),
        (aggregator.identities, "asyncio", ASYNCIO),
        (aggregator.lanes, "open_pooled", _open_pool),
        (aggregator.service, "asyncio", ASYNCIO),
        (aggregator.service, "open_link", _open_link),
        (aggregator.service, "check_schema", _nothing),
        (aggregator.service, "require_noeviction", _nothing),
        (aggregator.committer, "asyncio", ASYNCIO),
        (aggregator.committer, "time", CLOCK),
        (aggregator.committer, "decode_all", pure.decode_all),
        (aggregator.committer, "fold", pure.fold),
        (Trial, "find_crashing", _none_crashes),
        (aggregator.tallies, "asyncio", ASYNCIO),
        (aggregator.trim, "asyncio", ASYNCIO),
        (producers.sender, "time", CLOCK),
        (producers.drainer, "time", CLOCK),
        (producers.sender, "open_link", _open_sender_link),
    ]
    patches = [patch.object(*each) for each in replaced]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


class Aggregator(RealAggregator):
    """One aggregator that reads the shard whoever else does: leases are for speed only."""

    def __init__(self, name: str, life: int, settings: AggregatorSettings) -> None:
        super().__init__(settings)
        self.consumer = f"{name}-{life}"
        self.process = Process(name)
        self.process.spawn("start", self._live())

    async def _live(self) -> None:
        lanes = Lanes(self._settings, self._hosts)
        link = self._open_link()
        await self._wait_for_servers(link, lanes)
        self._start_shard(0)
        trimmer = Trimmer(
            link,
            replay_window_s=self._settings.streamgauge_replay_window_s,
            max_bytes=self._settings.streamgauge_stream_max_bytes,
            interval_s=self._settings.streamgauge_trim_interval_s,
        )
        ASYNCIO.create_task(self._trim_loop(trimmer, lanes), name="trim")
        ASYNCIO.create_task(self._every("failover check", lambda: self._check_main(link, lanes)), name="check")


class Exporter(Snapshots):
    """Scrapes of one exporter; what it may serve is decided by production's own check."""

    def __init__(self, name: str) -> None:
        self._confirmed = None
        self.process = Process(name)
        self._redis = Link(Here.world.redis)
        self._store = Pool(Here.world.store, self.process)
        self.process.spawn("scrape", self._scrape())

    async def _scrape(self) -> None:
        while True:
            await sleep(SCRAPE_EVERY_S)
            try:
                totals = await self._read_totals()
            except (*AWAY, Unavailable):
                continue
            Here.world.served(totals)

    async def _read_totals(self) -> dict[bytes, int]:
        acknowledged = await self._ask_redis()
        async with acquire(cast("Any", self._store)) as connection:
            row: Any = await connection.fetchrow(SCRAPE)
        if row["fenced"]:
            raise Unavailable("fenced")
        head = Head("", row["identity"], 1, None, row["newest"], 0.0)
        self._confirm(head, acknowledged)
        after = await self._ask_redis()
        if acknowledged is not None and after is not None:
            self._require(head, after)
        return row["totals"]

    async def _ask_redis(self) -> Acknowledged | None:
        try:
            identity = await self._redis.get(DATABASE_KEY)
            commit = await self._redis.get(COMMIT_KEY)
            owner = await self._redis.get(OWNER_KEY)
        except (*AWAY, RedisError):
            return None
        return Acknowledged(identity.decode() if identity else "", int(commit or 0), owner.decode() if owner else "")
