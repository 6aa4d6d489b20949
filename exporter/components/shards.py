"""Streams: per shard, what waits to be read and for how long.

In: XINFO of stream and group, and the entries after the last that was delivered. Out: one component a shard.
Promise: a lag that Redis cannot tell is counted here, and where that would be too long it is unknown, never 0;
entries that were removed before anybody read them are named. Length alone says nothing: the replay window keeps
entries that were read long ago.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from contract.streams import GROUP, SHARD_COUNT_KEY, stream_key
from database.cluster_link import ClusterLink
from database.redis_link import Link
from exporter.components.component import Component, Probe, Severity, Sources, Status

COUNT_AT_MOST: Final = 256
"""Entries that are counted where Redis does not know the lag."""
COUNT_AFTER: Final = "return #redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])"
"""Counted inside Redis: the entries themselves stay there."""

StreamId = tuple[int, int]


class Waiting(NamedTuple):
    """What one shard says of itself."""

    length: int
    pending: int
    lag: int | None
    """What Redis says; None where it does not know."""
    first: StreamId | None
    delivered: StreamId | None
    counted: int
    """Entries after the last delivered, counted up to COUNT_AT_MOST."""
    oldest: StreamId | None
    """The oldest entry that waits for delivery or acknowledgement."""
    is_consumed: bool = True
    """Whether the group exists."""
    added: int | None = None
    """Entries ever added; None before Redis 7."""


def probes(sources: Sources) -> list[Probe]:
    """Return one probe; in a cluster a shard whose node is away is unknown, and the others are told."""

    async def ask() -> list[Component]:
        link = sources.link
        shards = int(await link.get(SHARD_COUNT_KEY) or sources.settings.streamgauge_shards)
        limit_s = sources.settings.streamgauge_stream_behind_s
        return [await _ask(link, shard, limit_s) for shard in range(shards)]

    return [Probe("streams", "streams", Severity.WARNING, ask)]


async def _ask(link: Link, shard: int, limit_s: float) -> Component:
    try:
        return judge(shard, await _look(link, shard), await _now_s(link), limit_s)
    except RedisConnectionError as error:
        if not isinstance(link, ClusterLink):
            raise
        return Component(_name(shard), Status.UNKNOWN, f"its node does not answer: {type(error).__name__}")


def _name(shard: int) -> str:
    return f"stream {shard:02d}"


def judge(shard: int, found: Waiting | None, now_s: float, limit_s: float) -> Component:
    """Say how a shard is; `found` is None when there is no stream yet."""
    name = _name(shard)
    if found is None:
        facts: dict[str, Any] = {"length": 0, "lag": 0, "is_lag_known": True, "pending": 0, "waiting_s": None}
        return Component(name, Status.OK, "there is no stream yet", facts)
    lag = lag_of(found)
    waiting_s = None if found.oldest is None else max(0.0, now_s - found.oldest[0] / 1000)
    facts = {"length": found.length, "lag": lag, "is_lag_known": lag is not None, "pending": found.pending}
    facts |= {"at_least": found.counted if lag is None else lag, "waiting_s": waiting_s}
    if not found.is_consumed:
        return Component(name, Status.DEGRADED, "no aggregator has read it yet", facts)
    if is_cut(found):
        said = "entries were removed before they were delivered: the lag that Redis tells hides them"
        return Component(name, Status.DEGRADED, said, facts | {"is_cut": True})
    if waiting_s is not None and waiting_s > limit_s:
        return Component(name, Status.DEGRADED, f"the oldest entry waits for {waiting_s:.0f} s", facts)
    if lag is None:
        return Component(name, Status.UNKNOWN, f"lag is unknown: at least {found.counted} entries wait", facts)
    return Component(name, Status.OK, "", facts)


def lag_of(found: Waiting) -> int | None:
    """Return the entries not delivered: counted where that was possible, else as Redis says; None when unknown."""
    return found.counted if found.counted < COUNT_AT_MOST else found.lag


def is_cut(found: Waiting) -> bool:
    """Whether something after the last delivered entry is gone.

    The aggregator's trimming keeps the last delivered entry itself, so a stream that begins after it was cut by
    somebody else. While nothing was delivered nothing is trimmed: then all that was ever added must still be there.
    """
    if found.delivered in (None, (0, 0)):
        return found.added is not None and found.added > found.length
    if found.first is None:
        return False
    return found.first > found.delivered and found.counted > 0


async def _look(link: Link, shard: int) -> Waiting | None:
    key = stream_key(shard)
    try:
        stream = await link.xinfo_stream(key)
    except ResponseError:
        return None
    length = int(stream["length"])
    groups = {_text(group["name"]): group for group in await link.xinfo_groups(key)}
    group: Mapping[str, Any] | None = groups.get(GROUP)
    first = _id_of(stream["first-entry"])
    if group is None:
        return Waiting(length, 0, None, first, None, length, first, is_consumed=False)
    delivered = _parse(group["last-delivered-id"])
    after = f"({delivered[0]}-{delivered[1]}"
    counted = int(await link.eval(COUNT_AFTER, 1, key, after, str(COUNT_AT_MOST)))
    oldest = await _oldest(link, key, after, int(group["pending"]))
    lag, pending = group.get("lag"), int(group["pending"])
    added = stream.get("entries-added")
    known = None if lag is None else int(lag)
    return Waiting(
        length, pending, known, first, delivered, counted, oldest, added=None if added is None else int(added)
    )


async def _oldest(link: Link, key: str, after: str, pending: int) -> StreamId | None:
    if pending:
        summary = await link.xpending(key, GROUP)
        if summary["min"]:
            return _parse(summary["min"])
    entries = await link.xrange(key, min=after, max="+", count=1)
    return _parse(entries[0][0]) if entries else None


async def _now_s(link: Link) -> float:
    seconds, micros = await link.time()
    return int(seconds) + int(micros) / 1e6


def _id_of(entry: Any) -> StreamId | None:
    return None if not entry else _parse(entry[0])


def _parse(text: bytes | str) -> StreamId:
    ms, _, seq = _text(text).partition("-")
    return int(ms), int(seq or 0)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
