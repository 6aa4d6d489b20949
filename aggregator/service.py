"""The aggregator service: wires Redis, PostgreSQL and one pipeline per held shard, and keeps them going.

In: settings. Out: a process that folds and commits until it is told to stop.
Promise: every background task has a name and an owner here, and its death stops the service; a stop drains
what was read, acknowledges it and gives the leases up.
"""

import asyncio
import json
import logging
import secrets
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from aggregator.committer import Committer
from aggregator.failover import Identity
from aggregator.failover import check as check_failover
from aggregator.lanes import Lane, Lanes
from aggregator.leases import Leases
from aggregator.memory import give_back
from aggregator.reader import Reader, is_drained
from aggregator.schedule import run_schedule
from aggregator.settings import AggregatorSettings
from aggregator.settled import until_settled
from aggregator.shard import BLOCK_MS, OPERATIONAL, Shard
from aggregator.shards import shard_count
from aggregator.tallies import keep
from aggregator.trim import Trimmer
from aggregator.upkeep import audit_job, upkeep_job
from contract.crash import CrashPoint
from contract.errors import error_text
from contract.streams import SHARD_COUNT_KEY
from database.connect import acquire, require_access
from database.hosts import Hosts, OldTimeline
from database.migrate import check as check_schema
from database.queries import load
from database.redis_link import Link, open_link, require_noeviction
from optimizers.jobs import JOBS

log = logging.getLogger(__name__)

STOP_GRACE_S: Final = 12.0
"""How long a stop waits for what was read to be committed; it is pending in the group otherwise."""
FAILOVER_CHECK_S: Final = 5.0

WAIT_S: Final = 1.0
"""Between two looks at a server that was away at the start."""
GIVE_BACK_S: Final = 60.0
"""Every 10 s, a fold of 10 000 series takes a third more processor time: its pages are cleared again and again."""

T = TypeVar("T")


class _Stopped(Exception):
    """A stop was asked for before the start was through."""


class Aggregator:
    """One replica. `run` returns after `request_stop`."""

    def __init__(self, settings: AggregatorSettings) -> None:
        self.consumer = f"{socket.gethostname()[:40]}-{secrets.token_hex(4)}"
        self._settings = settings
        self._hosts = Hosts(settings)
        self._crash = CrashPoint(settings.streamgauge_crash_at)
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="fold")
        self._stopping = asyncio.Event()
        self._shards: dict[int, tuple[Shard, asyncio.Task[None]]] = {}
        self._committing: list[Committer] = []
        self._ended_batches = self._ended_events = 0
        self._links: list[Link] = []
        self._lanes_of: dict[int, Lanes] = {}
        self._shard_count = 0
        self._checked_at = float("-inf")
        self._database: Identity | None = None

    def request_stop(self) -> None:
        """Begin to drain."""
        self._stopping.set()

    async def run(self) -> None:
        """Run until stopped. Raises SchemaError or SettingsError at start; waits for servers that are away."""
        lanes = Lanes(self._settings, self._hosts)
        link = self._open_link()
        trimmer = Trimmer(
            link,
            replay_window_s=self._settings.streamgauge_replay_window_s,
            max_bytes=self._settings.streamgauge_stream_max_bytes,
            interval_s=self._settings.streamgauge_trim_interval_s,
        )
        try:
            try:
                await self._start(link, lanes, trimmer)
            except _Stopped:
                return
            leases = Leases(link, self.consumer, self._shard_count, self._settings.streamgauge_lease_s)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._supervise(leases), name="aggregator - leases")
                tasks.create_task(self._every("heartbeat", lambda: self._heartbeat(lanes, trimmer)), name="heartbeat")
                tasks.create_task(self._every("clock", lambda: self._set_clocks(lanes)), name="aggregator - clock")
                tasks.create_task(self._trim_loop(trimmer, lanes), name="aggregator - trim")
                # Without traffic nobody commits, and totals that a failover took would be missing until somebody does.
                tasks.create_task(self._every("failover check", lambda: self._check_main(link, lanes)), name="failover")
                tasks.create_task(self._give_back(), name="aggregator - memory")
                tasks.create_task(self._run_schedule(link, lanes), name="aggregator - schedule")
        finally:
            await self._close(lanes)

    async def _start(self, link: Link, lanes: Lanes, trimmer: Trimmer) -> None:
        # Producers are held back also where PostgreSQL is away before any shard is read.
        guarding = asyncio.create_task(self._every("hold back", lambda: self._guard(link, trimmer)), name="hold back")
        try:
            await self._wait_for_servers(link, lanes)
        finally:
            guarding.cancel()
            await asyncio.wait({guarding})

    async def _guard(self, link: Link, trimmer: Trimmer) -> None:
        for shard in range(int(await link.get(SHARD_COUNT_KEY) or 0)):
            await trimmer.trim(shard)

    async def _wait_for_servers(self, link: Link, lanes: Lanes) -> None:
        main = await self._until_up(lambda: self._open_database(lanes), "database")
        await self._until_up(lambda: require_noeviction(link), "redis")
        self._shard_count = await self._until_up(lambda: shard_count(link, self._settings.streamgauge_shards), "redis")
        await self._until_up(lambda: self._check_database(link, main), "failover check")

    async def _open_database(self, lanes: Lanes) -> Lane:
        main = await lanes.main()
        async with acquire(main.pool) as connection:
            await check_schema(connection)
        return main

    async def _until_up(self, step: Callable[[], Awaitable[T]], what: str) -> T:
        while not self._stopping.is_set():
            try:
                return await step()
            except OPERATIONAL as error:
                require_access(error)
                log.warning("waiting_for", extra={"what": what, "error": error_text(error)})
                await self._pause(WAIT_S)
        raise _Stopped

    def _open_link(self, block_s: float = 0.0) -> Link:
        link = open_link(self._settings, block_s=block_s)
        self._links.append(link)
        return link

    async def _check_database(self, link: Link, main: Lane) -> Identity:
        """Compare the database's identity with the one acknowledgements refer to, at most every few seconds."""
        now = asyncio.get_running_loop().time()
        if self._database is not None and now - self._checked_at < FAILOVER_CHECK_S and not main.reconnected:
            return self._database
        main.reconnected = False
        spare = Lanes(self._settings, self._hosts)
        try:
            committers = [self._committer(i, spare) for i in range(self._shard_count)]
            given = (link, main.pool, committers, self._shard_count, self.consumer, self._crash)
            self._database = found = await check_failover(*given)
        except BaseException as error:
            main.reconnected = True  # not settled: nothing may be committed before it is
            if isinstance(error, OldTimeline):
                self._hosts.require(error.system, error.needed)
                await main.pool.expire_connections()
            raise
        finally:
            await spare.aclose()
        self._checked_at = now
        return found

    async def _check_main(self, link: Link, lanes: Lanes) -> None:
        await self._check_database(link, await lanes.main())

    def _committer(self, shard: int, lanes: Lanes) -> Committer:
        return Committer(lanes, shard, self.consumer, self._threads, self._crash)

    async def _supervise(self, leases: Leases) -> None:
        """Start a pipeline for each lease that we get, stop it when we give the lease up, drain all at the end."""
        while not self._stopping.is_set():
            try:
                held = await leases.renew()
            except OPERATIONAL as error:
                log.warning("leases_not_renewed", extra={"error": error_text(error)})
                held = set(self._shards)
            for shard in held - self._shards.keys():
                self._start_shard(shard)
            for shard in self._shards.keys() - held:
                await self._stop_shard(shard)
            self._raise_dead()
            await self._pause(self._settings.streamgauge_lease_s / 3)
        for shard, _ in self._shards.values():
            shard.stop.set()
        for number in list(self._shards):
            await self._stop_shard(number)
        try:
            await leases.sign_off()
        except OPERATIONAL as error:
            log.warning("sign_off_failed", extra={"error": error_text(error)})

    def _start_shard(self, number: int) -> None:
        settings = self._settings
        link = self._open_link(BLOCK_MS / 1000)
        lanes = self._lanes_of[number] = Lanes(settings, self._hosts)
        reader = Reader(
            link,
            number,
            self.consumer,
            reclaim_idle_ms=int(settings.streamgauge_reclaim_idle_s * 1000),
            max_bytes=settings.streamgauge_commit_max_bytes,
        )

        async def check() -> Identity:
            return await self._check_database(link, await lanes.main())

        committer = self._committer(number, lanes)
        self._committing.append(committer)
        shard = Shard(settings, reader, committer, lanes, self._crash, check)
        self._crash.reach("after_lease")
        self._shards[number] = (shard, asyncio.create_task(shard.run(), name=f"shard {number}"))
        log.info("shard_started", extra={"shard": number})

    async def _stop_shard(self, number: int) -> None:
        shard, task = self._shards.pop(number)
        shard.stop.set()
        done, _ = await asyncio.wait({task}, timeout=STOP_GRACE_S)
        if not done:
            log.warning("shard_not_drained", extra={"shard": number, "grace_s": STOP_GRACE_S})
            task.cancel()
            await asyncio.wait({task}, timeout=5)
        elif task.exception() is not None:
            raise task.exception() or RuntimeError("BUG: no exception")
        self._end_counting(shard.committer)
        await self._lanes_of.pop(number).aclose()
        log.info("shard_stopped", extra={"shard": number})

    def _end_counting(self, committer: Committer) -> None:
        """Keep what a shard's pipeline committed: the sums of the heartbeat never fall while this process lives."""
        self._committing.remove(committer)
        self._ended_batches += committer.committed_batches
        self._ended_events += committer.committed_events

    def _raise_dead(self) -> None:
        for number, (_, task) in self._shards.items():
            if task.done():
                error = None if task.cancelled() else task.exception()
                raise RuntimeError(f"the pipeline of shard {number} died") from error

    async def _run_schedule(self, link: Link, lanes: Lanes) -> None:
        settings = self._settings
        planned = (
            upkeep_job(lambda: self._is_drained(link), self._committer(0, lanes), settings.streamgauge_replay_window_s),
            audit_job(link),
            *JOBS,
        )
        settled = partial(until_settled, link, self._shard_count)
        lane = await lanes.main()
        await run_schedule(
            planned,
            settings,
            self.consumer,
            lane.ahead_s,
            settled,
            partial(keep, link),
            self._crash,
            self._stopping,
            self._hosts,
        )

    async def _is_drained(self, link: Link) -> bool:
        """Whether every stream was read to its end and everything read is acknowledged, by whomever."""
        return all([await is_drained(link, shard) for shard in range(self._shard_count)])

    async def _heartbeat(self, lanes: Lanes, trimmer: Trimmer) -> None:
        newest = [one for s, _ in self._shards.values() for one in s.committer.newest]
        facts = {
            "shards": sorted(self._shards),
            "shard_count": self._shard_count,
            "committed_batches": self._ended_batches + sum(c.committed_batches for c in self._committing),
            "committed_events": self._ended_events + sum(c.committed_events for c in self._committing),
            "commit_s": [round(one.seconds, 4) for one in newest],
            "commit_batches": [one.batches for one in newest],
            "commit_rows": [one.rows for one in newest],
            "commit_age_s": [round(time.perf_counter() - one.at, 1) for one in newest],
            "commit_max_batches": self._settings.streamgauge_commit_max_batches,
            "stream_bytes": trimmer.bytes_of,
            "stream_max_bytes": self._settings.streamgauge_stream_max_bytes,
        }
        main = await lanes.main()
        async with acquire(main.pool) as connection:
            await connection.execute(load("heartbeat"), self.consumer, json.dumps(facts))

    async def _every(self, what: str, step: Callable[[], Awaitable[None]]) -> None:
        while not self._stopping.is_set():
            try:
                await step()
            except OPERATIONAL as error:
                log.warning("step_failed", extra={"step": what, "error": error_text(error)})
            await self._pause(self._settings.streamgauge_heartbeat_s)

    async def _give_back(self) -> None:
        while not self._stopping.is_set():
            await self._pause(GIVE_BACK_S)
            await asyncio.to_thread(give_back)

    async def _trim_loop(self, trimmer: Trimmer, lanes: Lanes) -> None:
        while not self._stopping.is_set():
            try:
                await trimmer.look((await lanes.main()).pool)
            except OPERATIONAL as error:
                log.warning("step_failed", extra={"step": "look before trim", "error": error_text(error)})
            for shard in sorted(self._shards):
                try:
                    await trimmer.trim(shard)
                    self._crash.reach("after_trim")
                    await trimmer.drop_idle_consumers(shard)
                except OPERATIONAL as error:
                    log.warning("step_failed", extra={"step": "trim", "shard": shard, "error": error_text(error)})
            await self._pause(self._settings.streamgauge_trim_interval_s)

    async def _set_clocks(self, lanes: Lanes) -> None:
        for each in (lanes, *self._lanes_of.values()):
            for lane in each.open_lanes():
                await lane.set_clock()

    async def _pause(self, seconds: float) -> None:
        """Sleep, but wake up at once when stopping."""
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    async def _close(self, lanes: Lanes) -> None:
        for _, task in self._shards.values():
            task.cancel()
        try:
            main = await lanes.main()
            async with acquire(main.pool) as connection:
                await connection.execute(load("sign_off"), self.consumer)
        except OPERATIONAL as error:
            log.warning("sign_off_failed", extra={"error": error_text(error)})
        for each in (lanes, *self._lanes_of.values()):
            await each.aclose()
        for link in self._links:
            await link.aclose()
        self._threads.shutdown(wait=False)


async def serve(settings: AggregatorSettings) -> None:
    """Run one aggregator until SIGTERM or SIGINT."""
    aggregator = Aggregator(settings)
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, aggregator.request_stop)
    await aggregator.run()
