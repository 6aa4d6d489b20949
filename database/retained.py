"""Retained entries: what the streams hold now, read with the contract alone, for audit, replay and explain.

In: a Redis client. Out: entries in stream order, each with what its envelope and body say, or why it cannot be read.
Promise: reads only; `settled` is true only where the group had acknowledged the entry before the reading began.
"""

from collections.abc import AsyncIterator, Set
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from contract.batch import VERSION, BatchError, Body, Envelope, read_body, read_envelope
from contract.streams import DEFAULT_SHARDS, FIELD, GROUP, SHARD_COUNT_KEY, stream_key

PAGE: Final = 50
"""Entries read at once: each may be as long as a batch may be."""
_COUNTS: Final = (("counter_n", "<u8"), ("gauge_n", "<u8"), ("sample_n", "<u4"), ("merged_n", "<u8"))


@dataclass(slots=True)
class Retained:
    """One stream entry. `envelope` is None where it cannot be trusted, `body` also for an unknown version."""

    shard: int
    stream_id: str
    settled: bool
    data: bytes
    envelope: Envelope | None = None
    body: Body | None = None
    fault: str | None = None
    """Why it cannot be applied."""

    @property
    def where(self) -> str:
        """Name the entry for a person."""
        return f"{stream_key(self.shard)} {self.stream_id}"


async def retained(
    link: Any,
    *,
    from_ms: int | None = None,
    to_ms: int | None = None,
    shards: int | None = None,
    unread: Set[tuple[int, str]] = frozenset(),
) -> AsyncIterator[Retained]:
    """Yield the entries of every shard that were added in `[from_ms, to_ms]`, by Redis' clock.

    Those named in `unread` (shard, stream id) are not decoded: they would end this process.
    """
    count = shards if shards is not None else int(await link.get(SHARD_COUNT_KEY) or DEFAULT_SHARDS)
    for shard in range(count):
        settled_to = await _settled_to(link, stream_key(shard))
        start: Any = "-" if from_ms is None else str(from_ms)
        end = "+" if to_ms is None else str(to_ms)
        while entries := await link.xrange(stream_key(shard), start, end, count=PAGE):
            for raw_id, fields in entries:
                entry = Retained(shard, raw_id.decode(), _order(raw_id) <= settled_to, fields.get(FIELD, b""))
                if (shard, entry.stream_id) in unread:
                    entry.fault = "decoding it ends a process"
                else:
                    _read(entry)
                yield entry
            start = b"(" + entries[-1][0]


def _order(raw_id: bytes) -> tuple[int, int]:
    ms, _, number = raw_id.partition(b"-")
    return int(ms), int(number or 0)


async def _settled_to(link: Any, stream: str) -> tuple[int, int]:
    """Return the id up to which the group has acknowledged everything."""
    if not await link.exists(stream):
        return (-1, 0)
    for group in await link.xinfo_groups(stream):
        if group["name"] == GROUP.encode():
            first = (await link.xpending(stream, GROUP))["min"]
            if first is None:
                return _order(group["last-delivered-id"])
            ms, number = _order(first)
            return (ms, number - 1)
    return (-1, 0)


def _read(entry: Retained) -> None:
    try:
        entry.envelope = read_envelope(entry.data)
        if entry.envelope.version == VERSION:
            entry.body = read_body(entry.envelope, entry.data)
            if (found := events_of(entry.body)) != entry.envelope.events:
                entry.fault = f"its columns hold {found} events, its envelope says {entry.envelope.events}"
    except (BatchError, ValueError) as error:
        entry.fault = str(error)


def events_of(body: Body) -> int:
    """Count the events in a batch's columns."""
    return sum(int(np.frombuffer(getattr(body, name), dtype=kind).sum()) for name, kind in _COUNTS)
