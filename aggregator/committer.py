"""Committer: turns entries into committed rows, and whatever cannot be committed into a counted, kept record.

In: entries of one shard. Out: nothing; when `settle` returns, each entry is durable somewhere and may be
acknowledged. Promise: exactly-once through the ledger; a data fault is pinned on the one entry that causes it;
every operational error is raised, with nothing to be undone.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import asyncpg

from aggregator.decode import Booked, Decoded, Entry, decode_all
from aggregator.fold import fold
from aggregator.identities import check_resolved
from aggregator.lanes import Lane, Lanes
from aggregator.quarantine import Claim, Quarantine
from aggregator.trial import Trial
from contract.batch import VERSION, BatchError, Envelope, read_envelope
from contract.crash import CrashPoint
from contract.reasons import Parked, Quarantined
from contract.windows import FUTURE_BOUND_S, LATE_BOUND_S, WINDOW_S, window_start_s
from database.admission import Producer
from database.connect import acquire, is_data_fault
from database.ledger import Fold, apply, is_stale
from database.load_runs import TooManyRuns
from database.partitions import ensure

log = logging.getLogger(__name__)

LEDGER_LIFETIME_MS: Final = 7 * 86_400_000
KNOWN_BEFORE_MS: Final = 6 * 86_400_000
"""If a producer's row was retired and made anew, all that the old one had applied was sealed a week before the new one
was made; a day of it is for clocks that differ."""
_MAX_ROUNDS: Final = 20
NO_PARTITION: Final = "23514"
NEWEST: Final = 60


Refused = tuple[Entry, Envelope | None, Decoded | None, BatchError]


@dataclass(slots=True)
class Work:
    """Entries on their way: decoded ones, and those set aside with what is known of them."""

    entries: Sequence[Entry] = ()
    batches: list[Decoded] = field(default_factory=list[Decoded])
    refused: list[Refused] = field(default_factory=list[Refused])
    unknown_version: list[tuple[Entry, Envelope]] = field(default_factory=list[tuple[Entry, Envelope]])


@dataclass(slots=True, weakref_slot=True, eq=False)
class Ready:
    """Batches of one lane, folded and waiting for their commit."""

    lane: Lane
    generation: int
    """That of the series numbers in `folded`: the ledger refuses it once it is over."""
    booked: list[Booked] = field(default_factory=list[Booked])
    copies: list[Booked] = field(default_factory=list[Booked])
    """Left out: their seqs are accounted for, or another one in `booked` has the same."""
    folded: Fold = field(default_factory=Fold)
    unknown_history: list[Decoded] = field(default_factory=list[Decoded])
    refused: list[tuple[Decoded, BatchError]] = field(default_factory=list[tuple[Decoded, BatchError]])
    others: list[Booked] = field(default_factory=list[Booked])
    """Of the copies: other contents under the identity of a batch in `booked`."""

    def __post_init__(self) -> None:
        self.lane.users.add(self)

    @property
    def duplicates(self) -> dict[int, int]:
        """How many copies there are of each producer."""
        return Counter(b.producer_no for b in self.copies)


@dataclass(slots=True)
class Prepared:
    """Entries on their way to their commit."""

    works: Sequence[Work]
    ready: list[Ready] = field(default_factory=list[Ready])
    refused: list[Refused] = field(default_factory=list[Refused])
    """What the database refused before anything was applied."""

    @property
    def entries(self) -> list[Entry]:
        """All entries, which may be acknowledged when it is finished."""
        return [entry for work in self.works for entry in work.entries]


class Done(NamedTuple):
    """A commit that is through."""

    at: float
    """Of `time.perf_counter`."""
    seconds: float
    batches: int
    rows: int
    """Of totals and gauges, which it added to."""


class Committer:
    """Commits the entries of one shard. Not to be used by two tasks at once."""

    def __init__(self, lanes: Lanes, shard: int, consumer: str, threads: Executor, crash: CrashPoint) -> None:
        self.committed_batches = 0
        self.committed_events = 0
        self.newest: deque[Done] = deque(maxlen=NEWEST)
        self._lanes = lanes
        self._shard = shard
        self._consumer = consumer
        self._threads = threads
        self._crash = crash
        self._quarantine = Quarantine(crash)

    async def decode(self, entries: Sequence[Entry]) -> Work:
        """Decode entries, in a thread; others may be prepared and finished meanwhile."""
        main = await self._lanes.main()
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, entries, main)

    async def prepare(self, works: Sequence[Work]) -> Prepared:
        """Identify and fold: what can be done while an earlier commit is on its way."""
        by_run: dict[str | None, list[Decoded]] = {}
        for work in works:
            for batch in work.batches:
                by_run.setdefault(batch.body.run_id, []).append(batch)
        prepared = Prepared(works)
        for run_id, batches in by_run.items():
            await self._identify_all(run_id, batches, prepared)
        return prepared

    async def _identify_all(self, run_id: str | None, batches: Sequence[Decoded], prepared: Prepared) -> None:
        """Identify and fold; a data fault is pinned on the one batch that causes it, as when it is applied."""
        try:
            lane = await self._lanes.of(run_id, sum(b.envelope.events for b in batches))
            if lane is not None:
                prepared.ready.append(await self._ready(lane, batches))
            return
        except TooManyRuns as error:
            fault = BatchError(Quarantined.RUN_LIMIT, str(error))
        except asyncpg.PostgresError as error:
            if not is_data_fault(error):
                raise
            fault = BatchError(Quarantined.DATABASE, f"{type(error).__name__}: {error}")
        if len(batches) == 1:
            # A run's batch touches no row of the real ledger.
            (batch,) = batches
            prepared.refused.append((batch.entry, batch.envelope if run_id is None else None, batch, fault))
            return
        middle = len(batches) // 2
        for half in (batches[:middle], batches[middle:]):
            await self._identify_all(run_id, half, prepared)

    async def finish(self, prepared: Prepared) -> None:
        """Make every prepared entry durable: committed, quarantined, parked, or known as a duplicate."""
        main = await self._lanes.main()
        for work in prepared.works:
            for entry, envelope in work.unknown_version:
                await self._quarantine.park(main, entry, envelope, Parked.UNKNOWN_VERSION)
        for refused in (*(work.refused for work in prepared.works), prepared.refused):
            for entry, envelope, batch, error in refused:
                await self._quarantine.refuse(main, entry, envelope, batch, error)
        for ready in prepared.ready:
            await self._finish(ready)

    async def settle(self, entries: Sequence[Entry]) -> None:
        """Decode, prepare and finish in one step."""
        await self.finish(await self.prepare([await self.decode(entries)]))

    def _decode(self, entries: Sequence[Entry], main: Lane) -> Work:
        work = Work(entries)
        checked: list[tuple[Entry, Envelope]] = []
        for entry in entries:
            try:
                envelope = read_envelope(entry.data)
            except BatchError as error:
                work.refused.append((entry, None, None, error))
                continue
            if envelope.version == VERSION:
                checked.append((entry, envelope))
            else:
                work.unknown_version.append((entry, envelope))
        for (entry, envelope), batch in zip(checked, decode_all(checked, main.identities.blocks), strict=True):
            if isinstance(batch, BatchError):
                work.refused.append((entry, envelope, None, batch))
                continue
            if batch.body.run_id is not None:
                # Series numbers differ from lane to lane: a run's batch needs a block of its own.
                batch.block = self._lanes.blocks_of(batch.body.run_id).get(batch.body.directory)
            work.batches.append(batch)
        return work

    async def _ready(self, lane: Lane, batches: Sequence[Decoded]) -> "Ready":
        oldest_ms = lane.now_ms() - LEDGER_LIFETIME_MS
        known, generation = await self._identify(lane, batches, oldest_ms)
        ready = Ready(lane, generation)
        for batch in batches:
            producer = known.get(batch.envelope.producer_id)
            if producer is None or not _has_history(producer, batch, oldest_ms):
                ready.unknown_history.append(batch)
                continue
            try:
                ready.booked.append(self._book(lane, batch, producer))
            except BatchError as error:
                ready.refused.append((batch, error))
        self._leave_out_copies(ready)
        ready.folded = await self._fold(ready)
        return ready

    async def _finish(self, ready: "Ready") -> None:
        for batch in ready.unknown_history:
            await self._quarantine.park(ready.lane, batch.entry, batch.envelope, Parked.UNKNOWN_HISTORY)
        for batch, error in ready.refused:
            await self._quarantine.refuse(ready.lane, batch.entry, batch.envelope, batch, error)
        await self._commit(ready)
        await self._quarantine.keep_conflicts(ready.lane, _claims(ready.others))

    async def _fold(self, ready: "Ready") -> Fold:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, fold, ready.booked, self._shard, ready.duplicates)

    async def _identify(
        self, lane: Lane, batches: Sequence[Decoded], oldest_ms: int
    ) -> tuple[dict[bytes, Producer], int]:
        identities = lane.identities
        async with identities.looking_up:
            await identities.refresh()
            known = await identities.producer_numbers(batches, oldest_ms)
            generation = await identities.resolve([b for b in batches if b.envelope.producer_id in known])
        return known, generation

    def _book(self, lane: Lane, batch: Decoded, producer: Producer) -> Booked:
        check_resolved(batch)
        seq, window_s = batch.envelope.seq, batch.body.window_start_s
        if lane.jumps(producer, seq):
            raise BatchError(Quarantined.SEQ_JUMP, f"seq {seq} is too far above {producer.top_seq}")
        now_s = lane.now_ms() // 1000
        if window_s > now_s + FUTURE_BOUND_S:
            if window_s > batch.entry.added_s + FUTURE_BOUND_S:
                raise BatchError(Quarantined.FUTURE, f"window {window_s} begins {window_s - now_s} s from now")
            # Redis, which all producers go by, is as far ahead of the database: a clock was set, the batch is sound.
            return Booked(batch, producer.producer_no, window_start_s(now_s * 1000), displaced=True)
        oldest = window_start_s((now_s - LATE_BOUND_S) * 1000) + WINDOW_S
        return Booked(batch, producer.producer_no, max(window_s, oldest), displaced=window_s < oldest)

    async def _commit(self, ready: "Ready") -> None:
        """Apply; leave out what was applied before and try again; divide until a data fault stands alone."""
        for _ in range(_MAX_ROUNDS):
            if not ready.booked and not ready.copies:
                return
            try:
                already = await self._apply(ready)
            except asyncpg.PostgresError as error:
                if is_stale(error):
                    await ready.lane.identities.forget()
                    again = [b.batch for b in (*ready.booked, *ready.copies)]
                    return await self._finish(await self._ready(ready.lane, again))
                if error.sqlstate == NO_PARTITION:
                    await ensure_partitions(ready)
                    continue
                if not is_data_fault(error):
                    raise
                return await self._divide(ready, error)
            if not already:
                return
            await self._leave_out(ready, set(already))
        raise RuntimeError("BUG: the set of duplicates does not settle")

    async def _apply(self, ready: "Ready") -> list[tuple[int, int]]:
        self._crash.reach("before_commit")
        began = time.perf_counter()
        already = await apply(ready.lane.pool, ready.folded, ready.generation, self._consumer, self._crash)
        self._crash.reach("after_commit")
        if not already:
            now = time.perf_counter()
            rows = len(ready.folded.total_ids) + len(ready.folded.gauge_ids)
            self.newest.append(Done(now, now - began, len(ready.booked), rows))
            self.committed_batches += len(ready.booked)
            self.committed_events += ready.folded.events
            for b in ready.booked:
                ready.lane.saw_seq(b.producer_no, b.batch.envelope.seq)
        return already

    async def _leave_out(self, ready: "Ready", already: set[tuple[int, int]]) -> None:
        known = [b for b in ready.booked if b.identity in already]
        await self._quarantine.keep_conflicts(ready.lane, _claims(known))
        ready.copies += known
        ready.booked = [b for b in ready.booked if b.identity not in already]
        ready.folded = await self._fold(ready)

    def _leave_out_copies(self, ready: "Ready") -> None:
        """Keep one batch of each identity; one with the same identity and another checksum is no copy."""
        first: dict[tuple[int, int], Booked] = {}
        for b in ready.booked:
            kept = first.setdefault(b.identity, b)
            if kept is not b:
                ready.copies.append(b)
                if kept.batch.envelope.checksum != b.batch.envelope.checksum:
                    ready.others.append(b)
        ready.booked = list(first.values())

    async def _divide(self, ready: "Ready", error: Exception) -> None:
        if not ready.booked:
            raise error
        log.warning("data_fault_divided", extra={"batches": len(ready.booked), "error": str(error)})
        parts = [Ready(ready.lane, ready.generation, copies=ready.copies)]
        if len(ready.booked) == 1:
            batch = ready.booked[0].batch
            fault = BatchError(Quarantined.DATABASE, f"{type(error).__name__}: {error}")
            await self._quarantine.refuse(ready.lane, batch.entry, batch.envelope, batch, fault)
        else:
            middle = len(ready.booked) // 2
            halves = (ready.booked[:middle], ready.booked[middle:])
            parts += [Ready(ready.lane, ready.generation, half) for half in halves]
        for part in parts:
            part.folded = await self._fold(part)
            await self._commit(part)

    async def try_out(self, entries: Sequence[Entry], trial: Trial) -> list[Entry]:
        """Quarantine those that end the process of a trial; returns the others."""
        ending = await trial.find_crashing([entry.data for entry in entries])
        for place in sorted(ending):
            await self.refuse_crashing(entries[place])
        return [entry for place, entry in enumerate(entries) if place not in ending]

    async def refuse_crashing(self, entry: Entry) -> None:
        """Quarantine an entry that ended a child process."""
        error = BatchError(Quarantined.CRASHED, "decoding it ended a child process")
        await self._quarantine.refuse(await self._lanes.main(), entry, None, None, error)


async def ensure_partitions(ready: Ready) -> None:
    """Make the partitions that a commit missed."""
    async with acquire(ready.lane.pool) as connection:
        await ensure(connection, {b.window_s for b in ready.booked})


def _has_history(producer: Producer, batch: Decoded, oldest_ms: int) -> bool:
    """Whether the row would tell that a batch was applied: it may be a new one, of a producer that was retired."""
    flushed_ms = batch.body.flushed_ms
    return flushed_ms >= oldest_ms or flushed_ms >= producer.first_seen_ms - KNOWN_BEFORE_MS


def _claims(batches: Sequence[Booked]) -> list[Claim]:
    return [Claim(b.producer_no, b.batch.entry, b.batch.envelope) for b in batches]
