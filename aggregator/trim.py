"""Trim: keeps each stream within its replay window and its bytes, and holds producers back when it cannot.

In: one shard's stream. Out: entries trimmed, a back-pressure flag set or cleared.
Promise: only entries that every group acknowledged, that are older than the replay window and whose commits every
standby has flushed are trimmed; at the byte cap the replay window shortens first, then producers merge. While
PostgreSQL is away, lacks commits or is another one, nothing is trimmed, and at the cap producers merge at once.
"""

import asyncio
import logging
from collections import deque
from typing import Final, NamedTuple

from aggregator.failover import Identity, read_standing
from aggregator.lua import DROP_IDLE_CONSUMERS, HOLD_BACK, TRIM
from contract.streams import GROUP, full_key, stream_key
from database.connect import Pool, acquire
from database.queries import load
from database.redis_link import Link

log = logging.getLogger(__name__)

FULL_FLAG_MS: Final = 30_000
"""Lifetime of the back-pressure flag: it must not outlive the aggregators that judge it."""
LOOK_S: Final = 5.0
"""PostgreSQL is away when it has not answered by then: the flag must not wait for it."""
NO_CAP: Final = 1 << 62
CONSUMER_IDLE_MS: Final = 3_600_000
NOTHING: Final = "0-0"
EVERYTHING: Final = f"{1 << 62}-0"


class _Mark(NamedTuple):
    """Entries below `bound` were acknowledged when the database had written so many bytes of WAL."""

    written: int
    bound: str


class Trimmer:
    """Trims the shards this aggregator reads. `bytes_of` tells the last known size of each stream."""

    def __init__(self, link: Link, *, replay_window_s: float, max_bytes: int, interval_s: float) -> None:
        self.bytes_of: dict[int, int] = {}
        self.trimmed = 0
        self._link = link
        self._replay_ms = int(replay_window_s * 1000)
        self._max_bytes = max_bytes
        self._flag_ms = max(FULL_FLAG_MS, int(3000 * interval_s))
        self._keep_ms: int | None = None
        """From when on entries are kept; None: all are, for nobody knows which commits PostgreSQL will have."""
        self._flushed: int | None = None
        """Bytes of WAL that every standby has; None: there is none."""
        self._bounds: dict[int, str] = {}
        """First id that each shard's groups needed at the trim before."""
        self._marks: dict[int, deque[_Mark]] = {}

    async def look(self, pool: Pool) -> None:
        """Ask PostgreSQL from when on entries are kept; until it has answered again all are."""
        self._keep_ms = None
        now_ms = await self._redis_ms()
        async with asyncio.timeout(LOOK_S):
            async with acquire(pool) as connection:
                row = await connection.fetchrow(load("standby_lsn"))
            standing = await read_standing(self._link, pool)
        assert row is not None, "BUG: a query without FROM has a row"
        if not standing.is_current or standing.now != Identity(row["system_identifier"], row["timeline"]):
            # Commits that this database lacks are folded again from the entries, if they are still there.
            self._marks.clear()
            self._bounds.clear()
            return
        # The WAL was looked at after the bounds were: it holds the commits of everything below.
        for shard, bound in self._bounds.items():
            self._marks[shard].append(_Mark(row["written"], bound))
        self._bounds.clear()
        self._flushed = row["flushed"]
        self._keep_ms = now_ms - self._replay_ms

    async def trim(self, shard: int) -> None:
        """Trim one shard and set or clear its flag; needs nothing but Redis."""
        keep_ms, cap = (0, NO_CAP) if self._keep_ms is None else (max(self._keep_ms, 0), self._max_bytes)
        reply = await self._link.eval(TRIM, 1, stream_key(shard), f"{keep_ms}-0", str(cap), self._safe(shard))
        trimmed, size, cut = int(reply[0]), int(reply[1]), bool(reply[2])
        self._note_bound(shard, reply[3].decode())
        self.trimmed += trimmed
        self.bytes_of[shard] = size
        if cut:
            log.warning("replay_window_cut", extra={"shard": shard, "bytes": size, "try": "raise the byte cap"})
        if size > self._max_bytes:
            log.warning("producers_held_back", extra={"shard": shard, "bytes": size})
            await self._link.eval(HOLD_BACK, 1, full_key(shard), str(self._flag_ms))
        else:
            await self._link.delete(full_key(shard))

    async def drop_idle_consumers(self, shard: int) -> None:
        """Delete consumers that are long gone and owe nothing."""
        await self._link.eval(DROP_IDLE_CONSUMERS, 1, stream_key(shard), GROUP, str(CONSUMER_IDLE_MS))

    async def _redis_ms(self) -> int:
        seconds, micros = await self._link.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def _safe(self, shard: int) -> str:
        """Return the id below which every standby has what was committed."""
        if self._flushed is None:
            return EVERYTHING
        marks = self._marks.get(shard) or deque()
        while len(marks) > 1 and marks[1].written <= self._flushed:
            marks.popleft()
        return marks[0].bound if marks and marks[0].written <= self._flushed else NOTHING

    def _note_bound(self, shard: int, bound: str) -> None:
        """Keep a bound for the next look; one that fell is of another Redis, whose ids say nothing of the marks."""
        marks = self._marks.setdefault(shard, deque(maxlen=10_000))
        if marks and _order(bound) < _order(marks[-1].bound):
            marks.clear()
        self._bounds[shard] = bound


def _order(entry_id: str) -> tuple[int, int]:
    ms, _, seq = entry_id.partition("-")
    return int(ms), int(seq)
