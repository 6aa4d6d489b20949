"""Trim: keeps each stream within its replay window and its bytes, and holds producers back when it cannot.

In: one shard's stream. Out: entries trimmed, a back-pressure flag set or cleared.
Promise: only entries that every group acknowledged, that are older than the replay window and that every
standby has flushed are trimmed; at the byte cap the replay window shortens first, then producers merge. While
PostgreSQL is away, lacks commits or is another one, nothing is trimmed, and at the cap producers merge at once.
"""

import asyncio
import logging
from collections import deque
from typing import Final

from aggregator.failover import read_standing
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
        self._flushed: deque[tuple[int, int]] = deque(maxlen=10_000)

    async def look(self, pool: Pool) -> None:
        """Ask PostgreSQL from when on entries are kept; until it has answered again all are."""
        self._keep_ms = None
        now_ms = await self._redis_ms()
        async with asyncio.timeout(LOOK_S):
            standing = await read_standing(self._link, pool)
            flushed_ms = await self._flushed_by_standbys_ms(pool, now_ms)
        if standing.is_current:
            self._keep_ms = min(now_ms - self._replay_ms, flushed_ms)

    async def trim(self, shard: int) -> None:
        """Trim one shard and set or clear its flag; needs nothing but Redis."""
        keep_ms, cap = (0, NO_CAP) if self._keep_ms is None else (max(self._keep_ms, 0), self._max_bytes)
        reply = await self._link.eval(TRIM, 1, stream_key(shard), f"{keep_ms}-0", str(cap))
        trimmed, size, cut = int(reply[0]), int(reply[1]), bool(reply[2])
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

    async def _flushed_by_standbys_ms(self, pool: Pool, now_ms: int) -> int:
        """Return the time up to which every standby has what was committed; now, if there is none."""
        async with acquire(pool) as connection:
            row = await connection.fetchrow(load("standby_lsn"))
        if row is None or row["flushed"] is None:
            self._flushed.clear()
            return now_ms
        self._flushed.append((now_ms, int(row["written"])))
        safe = [at for at, lsn in self._flushed if lsn <= int(row["flushed"])]
        return safe[-1] if safe else 0
