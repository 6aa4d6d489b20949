"""Reader: what one shard has for us, in the order own pending, taken over, new.

In: a Redis stream and its group. Out: Entry objects, and the ids whose payload is gone.
Promise: after every connection error our own pending entries are read again (a lost reply parks them there);
a trimmed entry is counted and acknowledged, never decoded; what was delivered before comes by its bytes, so that no
reply ends one reader after the other.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from redis.exceptions import ResponseError

from aggregator.decode import Entry
from aggregator.lua import RAISE, WEIGH
from aggregator.tallies import keep
from aggregator.trial import Trial
from contract.batch import decoded_bytes
from contract.streams import COMMIT_KEY, FIELD, GROUP, OWNER_KEY, stream_key
from database.connect import Connection
from database.redis_link import Link

log = logging.getLogger(__name__)

SUSPECT_DELIVERIES = 3
"""An entry delivered more often is decoded in a child process first; reading our own pending ones again counts, too."""

PENDING_PAGE = 1000
START: Final = "0-0"
"""Of the pending list: where a look at all of it begins, and is through."""

READ_ENTRIES: Final = 64
"""Most entries of one reply, whose sizes are known afterwards only."""
HELD_BYTES: Final = 32 << 20
"""Most that is decoded together, decompressed, and most that columns committed together take; or one entry."""

Raw = tuple[bytes | None, dict[bytes, bytes] | None]


def divided(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Yield groups that fit into memory, in order; what came often is alone: together with others it may not fit."""
    group: list[Entry] = []
    held = 0
    for entry in entries:
        held += entry.held_bytes
        if group and (held > HELD_BYTES or entry.often or group[-1].often):
            yield group
            group, held = [], entry.held_bytes
        group.append(entry)
    if group:
        yield group


class Reader:
    """Reads one shard as one consumer. `lost` collects ids without payload until the caller counted them."""

    def __init__(self, link: Link, shard: int, consumer: str, *, reclaim_idle_ms: int, max_bytes: int) -> None:
        self.shard = shard
        self.lost: list[str] = []
        self.crashing: list[Entry] = []
        """Entries whose decoding ended a child process."""
        self._link = link
        self._key = stream_key(shard)
        self._consumer = consumer
        self._reclaim_idle_ms = reclaim_idle_ms
        self._max_bytes = max_bytes
        self._own_after: str | None = "0"
        self._cursor = START

    def restart(self) -> None:
        """Begin again with our own pending entries; call it after any connection error."""
        self._own_after = "0"

    async def read(self, count: int, block_ms: int) -> list[Entry]:
        """Return up to `count` entries; waits up to `block_ms` for new ones once our own are read."""
        own = self._own_after
        if own is None:
            return self._entries(await self._group_read(">", count, block_ms))
        count = await self._weigh(f"({own}", count, self._consumer, 0)
        raw = await self._group_read(own, count, None)
        self._own_after = raw[-1][0].decode() if raw and raw[-1][0] else None
        # Among our own pending ones is what we have just taken over from an aggregator that died of it.
        return await self._without_crashing(self._entries(raw))

    async def _group_read(self, start: str, count: int, block_ms: int | None) -> list[Raw]:
        try:
            reply = await self._link.xreadgroup(
                GROUP, self._consumer, {self._key: start}, count=count, block=block_ms or None
            )
        except ResponseError as error:
            return await self._without_group(error)
        return reply[0][1] if reply else []

    async def _weigh(self, first: str, count: int, consumer: str, idle_ms: int) -> int:
        """Return how many of the next `count` pending entries to ask for: no more than fit, but one."""
        given = (GROUP, first, str(count), consumer, str(idle_ms), str(self._max_bytes))
        return int(await self._link.eval(WEIGH, 1, self._key, *given))

    async def _without_group(self, error: ResponseError) -> list[Any]:
        """Make the group if that is what was missing; there is nothing to read then."""
        if not str(error).startswith("NOGROUP"):
            raise error
        await self.ensure_group()
        return []

    async def ensure_group(self) -> None:
        """Create stream and group, from the beginning of what the stream holds."""
        try:
            await self._link.xgroup_create(self._key, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def reclaim(self, count: int) -> list[Entry]:
        """Take over entries that were pending for too long, ours included; continues from its last cursor."""
        count = await self._weigh(self._cursor, count, "", self._reclaim_idle_ms)
        try:
            reply = await self._link.xautoclaim(
                self._key, GROUP, self._consumer, self._reclaim_idle_ms, self._cursor, count=count
            )
        except ResponseError as error:
            return await self._without_group(error)
        self._cursor = reply[0].decode() if isinstance(reply[0], bytes) else str(reply[0])
        raw: list[Raw] = reply[1]
        if len(reply) > 2:
            # Redis 7: entries that were deleted; they left the pending list with this reply.
            self._lose(i.decode() for i in reply[2])
        if any(data is None for _, data in raw):
            await self._find_deleted()
        entries = self._entries([r for r in raw if r[1] is not None])
        return await self._without_crashing(entries)

    def is_reclaimed(self) -> bool:
        """Whether the last `reclaim` came to the end of what is pending."""
        return self._cursor == START

    async def _find_deleted(self) -> None:
        """Redis 6.2 does not name deleted entries: look for our pending ids that the stream no longer has."""
        pending: Sequence[dict[str, Any]] = await self._link.xpending_range(
            self._key, GROUP, min="-", max="+", count=1000, consumername=self._consumer
        )
        ids: list[bytes] = [item["message_id"] for item in pending]
        gone = [one for one in ids if not await self._link.xrange(self._key, min=one, max=one, count=1)]
        self._lose(one.decode() for one in gone)

    def _lose(self, ids: Iterable[str]) -> None:
        """Keep ids without payload until they are counted; one that is found again meanwhile counts once."""
        known = set(self.lost)
        self.lost += [one for one in ids if one not in known]

    async def _without_crashing(self, entries: list[Entry]) -> list[Entry]:
        """Leave out what ended a process that tried to decode it, and mark what came often and did not."""
        known = {entry.stream_id for entry in self.crashing}
        entries = [entry for entry in entries if entry.stream_id not in known]
        often = await self._delivered_often(entries)
        suspects = [entry for entry in entries if entry.stream_id in often]
        async with Trial() as trial:
            places = await trial.find_crashing([entry.data for entry in suspects])
        for entry in (found := [suspects[place] for place in sorted(places)]):
            log.error("entry_crashes_decoder", extra={"shard": self.shard, "stream_id": entry.stream_id})
        self.crashing += found
        ended = {entry.stream_id for entry in found}
        entries = [entry for entry in entries if entry.stream_id not in ended]
        return [replace(entry, often=True) if entry.stream_id in often else entry for entry in entries]

    async def _delivered_often(self, entries: Sequence[Entry]) -> set[str]:
        """Return the ids of those that were delivered so often that they may have ended whoever decoded them."""
        often: set[str] = set()
        left = [entry.stream_id for entry in entries]
        while left:
            pending: Sequence[dict[str, Any]] = await self._link.xpending_range(
                self._key, GROUP, min=left[0], max=left[-1], count=PENDING_PAGE
            )
            often |= {one["message_id"].decode() for one in pending if one["times_delivered"] > SUSPECT_DELIVERIES}
            if len(pending) < PENDING_PAGE:
                break
            last = _number(pending[-1]["message_id"].decode())
            left = [one for one in left if _number(one) > last]
        return often

    def _entries(self, raw: Sequence[Raw]) -> list[Entry]:
        named = [(entry_id.decode(), fields) for entry_id, fields in raw if entry_id is not None]
        self._lose(entry_id for entry_id, fields in named if not fields)
        # A foreign field set has no batch: empty bytes are quarantined as truncated.
        held = [(entry_id, fields.get(FIELD, b"")) for entry_id, fields in named if fields]
        return [Entry(self.shard, entry_id, data, decoded_bytes(data)) for entry_id, data in held]

    async def note_commit(self, newest: int, database: str) -> bool:
        """Say up to which commit acknowledgements refer; call it after a COMMIT and before `ack`.

        False: commits to this database are not to be acknowledged.
        """
        return bool(await self._link.eval(RAISE, 2, COMMIT_KEY, OWNER_KEY, str(newest), database))

    async def keep_tallies(self, connection: Connection) -> None:
        """Keep what this transaction counted: no stream has it."""
        await keep(self._link, connection)

    async def ack(self, ids: Sequence[str]) -> None:
        """Acknowledge entries; call it only after their COMMIT was seen."""
        for at in range(0, len(ids), 1000):
            await self._link.xack(self._key, GROUP, *ids[at : at + 1000])


def _number(stream_id: str) -> tuple[int, int]:
    ms, _, seq = stream_id.partition("-")
    return int(ms), int(seq)


async def is_drained(link: Link, shard: int) -> bool:
    """Whether the group has read its stream to the end and acknowledged all of it (a missing stream is drained)."""
    key = stream_key(shard)
    try:
        stream = await link.xinfo_stream(key)
        groups = {group["name"]: group for group in await link.xinfo_groups(key)}
    except ResponseError as error:
        if "no such key" not in str(error):
            raise
        return True
    group = groups.get(GROUP.encode())
    return group is not None and not group["pending"] and group["last-delivered-id"] == stream["last-generated-id"]
