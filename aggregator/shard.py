"""One shard's pipeline: read -> decode -> identify and fold -> commit and ack, four stages that overlap.

In: a shard this aggregator holds the lease of. Out: acknowledged entries.
Promise: an entry is acknowledged only after its COMMIT; a stage that fails for operational reasons tries the
same entries again, for ever, with growing pauses; a stop drains what was read. A stage that waits holds nothing of what
is done (`del`): after a backlog that would be much, for as long as nothing comes.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from redis.exceptions import RedisError

from aggregator.committer import Committer, Prepared, Work
from aggregator.decode import Entry
from aggregator.failover import Identity, OtherDatabase, read_commit
from aggregator.lanes import Lanes
from aggregator.reader import HELD_BYTES, READ_ENTRIES, Reader, divided
from aggregator.settings import AggregatorSettings
from contract.crash import CrashPoint
from contract.errors import error_text
from database.connect import AWAY, acquire, transaction
from database.queries import load

log = logging.getLogger(__name__)

OPERATIONAL: Final = (*AWAY, RedisError)
"""Errors of the outside: retried for ever, never counted against an entry."""

MAX_PAUSE_S: Final = 5.0
BLOCK_MS: Final = 200
LARGE_ENTRY_BYTES: Final = 64 << 10
READ_BYTES: Final = 4 << 20
"""A read takes about this much, so that the stages behind it begin early; a commit may take several reads."""
IN_FLIGHT_BYTES: Final = 160 << 20
"""From its decoding to its commit, all of it: three times as much, so that the stages overlap."""
RECLAIM_ENTRIES: Final = 100
AHEAD: Final = 4
"""Reads that wait decoded while a commit is folded: as much as it may hold."""

T = TypeVar("T")


class Shard:
    """Runs the pipeline of one shard until `stop` is set."""

    def __init__(
        self,
        settings: AggregatorSettings,
        reader: Reader,
        committer: Committer,
        lanes: Lanes,
        crash: CrashPoint,
        database_check: Callable[[], Awaitable[Identity]],
    ) -> None:
        self.reader = reader
        self.committer = committer
        self.stop = asyncio.Event()
        self._settings = settings
        self._lanes = lanes
        self._crash = crash
        self._check_database = database_check
        self._read: asyncio.Queue[tuple[list[Entry], bool] | None] = asyncio.Queue(maxsize=1)
        """Reads, and whether the stream held more than each took; None: there are no more."""
        self._decoded: asyncio.Queue[tuple[Work, bool] | None] = asyncio.Queue(maxsize=AHEAD)
        self._held: tuple[Work, bool] | None = None
        """Was taken from the queue, and did not fit into the commit."""
        self._is_over = False
        self._prepared: asyncio.Queue[Prepared | None] = asyncio.Queue(maxsize=1)
        self._reclaim_at = 0.0
        self._gathered_at = float("-inf")
        """Of `time.monotonic`."""
        self._tallied: set[str] = set()
        """Those without payload that were counted: a look on its way finds one again after it is acknowledged."""
        self._in_flight = 0
        """Bytes of `IN_FLIGHT_BYTES`."""
        self._let_go = asyncio.Condition()
        self._entry_bytes = LARGE_ENTRY_BYTES
        """What an entry of this shard takes, as last seen."""

    async def run(self) -> None:
        """Run the stages; returns when `stop` was set and everything read is acknowledged."""
        async with asyncio.TaskGroup() as stages:
            number = self.reader.shard
            stages.create_task(self._read_stage(), name=f"shard {number} - read")
            stages.create_task(self._decode_stage(), name=f"shard {number} - decode")
            stages.create_task(self._prepare_stage(), name=f"shard {number} - prepare")
            stages.create_task(self._commit_stage(), name=f"shard {number} - commit")

    async def _read_stage(self) -> None:
        is_backlog = False
        while not self.stop.is_set():
            entries = await self._retry(lambda b=is_backlog: self._gather(b), "read")
            # After a read that was full the stage behind waits for another, be it empty.
            if entries or is_backlog or self.reader.lost or self.reader.crashing:
                self._crash.reach("after_read")
                is_backlog = not self._room(entries)
                groups = [*divided(entries)] or [entries]
                while groups:
                    group = groups.pop(0)
                    await self._read.put((group, is_backlog or bool(groups)))
                    del group
            del entries
        await self._read.put(None)

    async def _gather(self, is_backlog: bool) -> list[Entry]:
        """Collect entries until an interval after the last ones or until there are enough; under backlog what is there.

        So that a lone batch is committed at once, and many small ones no more often than the interval says.
        """
        if self.stop.is_set():
            return []
        entries = await self._reclaimed()
        has_waited = is_backlog
        while room := min(self._room(entries), READ_ENTRIES):
            more = await self.reader.read(room, 0 if entries or is_backlog else BLOCK_MS)
            entries += more
            if len(more) == room:
                continue
            if has_waited or not entries:
                break
            # One pause instead of a read per entry: with many small producers each read would return one.
            await self._pause(self._gathered_at + self._settings.streamgauge_commit_interval_s - time.monotonic())
            has_waited = True
        if entries:
            self._gathered_at = time.monotonic()
        return entries

    async def _hold(self, entries: Sequence[Entry]) -> None:
        """Wait until there is memory for entries: what is ahead of them is committed meanwhile."""
        held = _held_bytes(entries)
        async with self._let_go:
            await self._let_go.wait_for(lambda: not self._in_flight or self._in_flight + held <= IN_FLIGHT_BYTES)
            self._in_flight += held

    def _room(self, entries: Sequence[Entry]) -> int:
        """Return how many more entries this read should take; COUNT is all that it can be bounded by.

        One that is too large leaves the stages behind it idle, and holds in memory what its entries decompress to.
        """
        size = _size_bytes(entries)
        if _held_bytes(entries) >= HELD_BYTES:
            return 0
        if entries:
            self._entry_bytes = max(1, size // len(entries))
        settings = self._settings
        of_bytes = -((size - min(READ_BYTES, settings.streamgauge_commit_max_bytes)) // self._entry_bytes)
        return max(0, min(settings.streamgauge_commit_max_batches - len(entries), of_bytes))

    async def _pause(self, seconds: float) -> None:
        """Sleep, but wake up at once when stopping; not at all where there is no time left."""
        try:
            await asyncio.wait_for(self.stop.wait(), max(0.0, seconds))
        except TimeoutError:
            return

    async def _reclaimed(self) -> list[Entry]:
        now = time.monotonic()
        if now < self._reclaim_at:
            return []
        entries = await self.reader.reclaim(RECLAIM_ENTRIES)
        # What the dead held may be thousands: they do not wait for an interval a page.
        is_through = self.reader.is_reclaimed()
        self._reclaim_at = now + self._settings.streamgauge_reclaim_interval_s if is_through else now
        return entries

    async def _decode_stage(self) -> None:
        while (read := await self._read.get()) is not None:
            entries, is_backlog = read
            await self._hold(entries)
            work = await self._retry(lambda e=entries: self.committer.decode(e), "decode")
            await self._decoded.put((work, is_backlog))
            del read, entries, work
        await self._decoded.put(None)

    async def _prepare_stage(self) -> None:
        while works := await self._take():
            await self._prepared.put(await self._retry(lambda w=works: self.committer.prepare(w), "prepare"))
            del works
        await self._prepared.put(None)

    async def _take(self) -> list[Work]:
        """Wait for a read; under backlog take as many as a commit may hold: a larger one costs less an event.

        Empty: there are no more.
        """
        taken: list[Work] = []
        is_backlog = True
        while is_backlog and not self._is_over:
            self._held = self._held or await self._decoded.get()
            if self._held is None:
                self._is_over = True
                break
            work, is_backlog = self._held
            if taken and not self._fits(taken, work):
                break
            taken.append(work)
            self._held = None
        return taken

    def _fits(self, taken: Sequence[Work], more: Work) -> bool:
        entries = [entry for work in (*taken, more) for entry in work.entries]
        settings = self._settings
        held = sum(batch.held_bytes for work in (*taken, more) for batch in work.batches)
        is_small = _size_bytes(entries) <= settings.streamgauge_commit_max_bytes and held <= HELD_BYTES
        is_alone = any(entry.often for entry in entries)
        return is_small and not is_alone and len(entries) <= settings.streamgauge_commit_max_batches

    async def _commit_stage(self) -> None:
        while (prepared := await self._prepared.get()) is not None:
            await self._retry(lambda p=prepared: self._commit(p), "commit")
            async with self._let_go:
                self._in_flight -= _held_bytes(prepared.entries)
                self._let_go.notify_all()
            del prepared

    async def _commit(self, prepared: Prepared) -> None:
        database = await self._check_database()
        await self._count_lost(database)
        crashing = list(self.reader.crashing)
        for entry in crashing:
            await self.committer.refuse_crashing(entry)
        await self.committer.finish(prepared)
        ids = [entry.stream_id for entry in (*prepared.entries, *crashing)]
        self._crash.reach("before_ack")
        if await self._ack(ids, database):
            del self.reader.crashing[: len(crashing)]

    async def _ack(self, ids: list[str], database: Identity) -> bool:
        """Acknowledge what was committed to this database; returns whether Redis has heard of it."""
        pool = (await self._lanes.main()).pool
        commit = await read_commit(pool)
        if commit.database != database:
            raise OtherDatabase(f"committed to {database}, connected to {commit.database} since")
        try:
            if not await self.reader.note_commit(commit.newest, str(database)):
                # Its name may lead to another server by now: what is committed again is committed there.
                await pool.expire_connections()
                raise OtherDatabase(f"commits to {database} are not to be acknowledged any more")
            self._crash.reach("after_note")
            await self.reader.ack(ids)
            self._crash.reach("after_ack")
            return True
        except OtherDatabase:
            raise
        except (RedisError, OSError, TimeoutError):
            # They are committed: read again from our pending list they are known as duplicates, then acknowledged.
            self.reader.restart()
            log.warning("ack_failed", extra={"shard": self.reader.shard, "entries": len(ids)})
            return False

    async def _count_lost(self, database: Identity) -> None:
        """Count entries whose payload was trimmed before we read it; their gap tells how many events."""
        lost = list(self.reader.lost)
        if not lost:
            return
        if fresh := len(set(lost) - self._tallied):
            lane = await self._lanes.main()
            async with acquire(lane.pool) as connection, transaction(connection):
                await connection.execute(load("tally"), "payload_gone", fresh)
                await self.reader.keep_tallies(connection)
            log.error("payload_lost", extra={"shard": self.reader.shard, "entries": fresh})
        self._tallied |= set(lost)
        if await self._ack(lost, database):
            del self.reader.lost[: len(lost)]

    async def _retry(self, step: Callable[[], Awaitable[T]], what: str) -> T:
        """Run a step until it succeeds; operational errors are waited out."""
        pause_s = 0.05
        while True:
            try:
                return await step()
            except OPERATIONAL as error:
                if what == "read" or isinstance(error, RedisError):
                    self.reader.restart()
                log.warning("step_failed", extra={"step": what, "shard": self.reader.shard, "error": error_text(error)})
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, MAX_PAUSE_S)


def _size_bytes(entries: Sequence[Entry]) -> int:
    return sum(len(entry.data) for entry in entries)


def _held_bytes(entries: Sequence[Entry]) -> int:
    return sum(entry.held_bytes for entry in entries)
