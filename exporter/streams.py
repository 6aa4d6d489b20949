"""Streams: what the exporter asks Redis, with short deadlines: the database's identity, and events in flight.

In: the streams, pending lists and the ledger's account of a seq. Out: events that wait in the streams by service.
Promise: reads at most MAX_ENTRIES entries, each once; what cannot be known is None, never 0.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

from redis.exceptions import RedisError, ResponseError

from contract.batch import BatchError, read_body, read_envelope
from contract.errors import error_text
from contract.streams import COMMIT_KEY, DATABASE_KEY, FIELD, GROUP, OWNER_KEY, SHARD_COUNT_KEY, stream_key
from database.redis_link import Link
from database.settings import RedisSettings

log = logging.getLogger(__name__)

MAX_ENTRIES: Final = 2000
FRESH_S: Final = 5.0
ASK_DEADLINE_S: Final = 0.5
COUNT_DEADLINE_S: Final = 2.0
"""Also the longest that the exporter waits for any reply of Redis."""
PAGE: Final = 500
AWAY: Final = (RedisError, OSError, TimeoutError)


class Waiting(NamedTuple):
    """One entry that was not acknowledged."""

    producer_id: bytes
    seq: int
    events: int
    service: str


Unaccounted = Callable[[list[Waiting]], Awaitable[dict[str, int]]]
"""Sums, by service, the events of entries whose seq the ledger does not know at all (not applied, in no gap)."""


class Acknowledged(NamedTuple):
    """What the group's acknowledgements refer to: a database that lacks it is not the one to show."""

    identity: str
    """As aggregators write it; empty when none did yet."""
    commit: int
    owner: str = ""
    """The one that is being restored, where it is another; or the same."""


class Streams:
    """The exporter's view of Redis."""

    def __init__(self, settings: RedisSettings, link: Link, unaccounted: Unaccounted) -> None:
        self._settings = settings
        self._link = link
        self._unaccounted = unaccounted
        self._seen: dict[tuple[int, bytes], Waiting | None] = {}
        self._in_flight: Mapping[str, int] | None = None
        self._counted_at = float("-inf")
        self._counting: asyncio.Task[None] | None = None

    async def acknowledged(self) -> Acknowledged | None:
        """Return what acknowledgements refer to; None when Redis is away."""
        try:
            async with asyncio.timeout(ASK_DEADLINE_S):
                # In this order, as the commit is written first when the database has changed; in a cluster the
                # keys are on different nodes.
                identity = await self._link.get(DATABASE_KEY)
                commit = await self._link.get(COMMIT_KEY)
                owner = await self._link.get(OWNER_KEY)
        except AWAY:
            return None
        return Acknowledged(identity.decode() if identity else "", int(commit or 0), owner.decode() if owner else "")

    def in_flight(self) -> Mapping[str, int] | None:
        """Return the newest count, at most a few seconds old; None when it is unknown."""
        return self._in_flight if time.monotonic() - self._counted_at <= 3 * FRESH_S else None

    def start_counting(self) -> None:
        """Count in the background, unless that was done just now."""
        stale = time.monotonic() - self._counted_at > FRESH_S
        if stale and (self._counting is None or self._counting.done()):
            self._counting = asyncio.create_task(self._count(), name="exporter - events in flight")

    async def aclose(self) -> None:
        """End the count under way and the connection."""
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.gather(self._counting, return_exceptions=True)
        await self._link.aclose()

    async def _count(self) -> None:
        try:
            async with asyncio.timeout(COUNT_DEADLINE_S):
                waiting = await self._waiting()
                self._in_flight = None if waiting is None else await self._unaccounted(waiting)
        except (*AWAY, ConnectionError) as error:
            log.warning("in_flight_unknown", extra={"error": error_text(error)})
            self._in_flight = None
        self._counted_at = time.monotonic()

    async def _waiting(self) -> list[Waiting] | None:
        """Return the entries not acknowledged; None when there are more than may be read."""
        shards = int(await self._link.get(SHARD_COUNT_KEY) or self._settings.streamgauge_shards)
        found: dict[tuple[int, bytes], Waiting | None] = {}
        for shard in range(shards):
            if not await self._waiting_in(shard, found):
                return None
        self._seen = found
        return [entry for entry in found.values() if entry is not None]

    async def _waiting_in(self, shard: int, found: dict[tuple[int, bytes], Waiting | None]) -> bool:
        key = stream_key(shard)
        try:
            groups = {group["name"]: group for group in await self._link.xinfo_groups(key)}
        except ResponseError:
            return True  # no stream yet
        group = groups.get(GROUP.encode()) or groups.get(GROUP)
        after = group["last-delivered-id"] if group else b"0-0"
        if group and group["pending"]:
            pending = await self._link.xpending_range(key, GROUP, "-", "+", MAX_ENTRIES)
            for entry in pending:
                await self._note(shard, key, entry["message_id"], found)
        while len(found) <= MAX_ENTRIES:
            entries = await self._link.xrange(key, min=b"(" + after, max="+", count=PAGE)
            for entry_id, fields in entries:
                found[shard, entry_id] = self._seen.get((shard, entry_id)) or _read(fields.get(FIELD, b""))
            if len(entries) < PAGE:
                return len(found) <= MAX_ENTRIES
            after = entries[-1][0]
        return False

    async def _note(
        self, shard: int, key: str, entry_id: bytes, found: dict[tuple[int, bytes], Waiting | None]
    ) -> None:
        known = self._seen.get((shard, entry_id))
        if known is None:
            entries = await self._link.xrange(key, min=entry_id, max=entry_id)
            known = _read(entries[0][1].get(FIELD, b"")) if entries else None
        found[shard, entry_id] = known


def _read(data: bytes) -> Waiting | None:
    """Read one batch; None when it is none of real traffic."""
    try:
        envelope = read_envelope(data)
    except BatchError:
        return None
    try:
        body = read_body(envelope, data)
    except BatchError:
        return Waiting(envelope.producer_id, envelope.seq, envelope.events, "unknown")
    if body.run_id is not None:
        return None
    return Waiting(envelope.producer_id, envelope.seq, envelope.events, body.service)
