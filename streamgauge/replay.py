"""Replay: windows computed again from what the streams still hold, with the aggregator's own code.

In: a pool, a Redis client, a time range. Out: rows as they should be stored, and how the stored ones differ.
Promise: reads only; a batch counts if the ledger says in the same snapshot that it was applied, and then once; a
window of which the stream may have lost a part is never judged.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from aggregator.decode import Block, BlockCache, Booked, Decoded, Entry, decode
from aggregator.fold import fold
from contract.metric import Kind
from contract.series import OVERFLOW_LABELS, series_key
from contract.streams import stream_key
from contract.windows import FUTURE_BOUND_S, WINDOW_S, window_start_s
from database.admission import key_hash
from database.audit import snapshot
from database.audit_ledger import Ledger
from database.connect import Connection, Pool
from database.queries import load
from database.retained import retained
from database.rollup import moments
from database.rows import Rows, join, merge, read, unpack

AT_ONCE: Final = 100
TOLERANCE: Final = 1e-9
MOST: Final = 1000
_STORED: Final = "window_start >= $1 AND window_start < $2"
_EXACT: Final = ("n", "min", "max", "last")


class Difference(msgspec.Struct, frozen=True):
    """One column of one stored row that is not what the stream gives."""

    series: str
    window_s: int
    column: str
    stored: float | int | str
    replayed: float | int | str


class Replayed(NamedTuple):
    """Windows as the stream gives them, and as they are stored (parts and rollup merged)."""

    batches: int
    rows: Rows
    stored: Rows
    keys: dict[int, str]
    covered_from_s: int
    """Windows before it may have lost entries to trimming."""


async def replay(pool: Pool, link: Any, from_s: int, to_s: int, run_id: str | None, metric: str | None) -> Replayed:
    """Compute the windows that start in `[from_s, to_s)` again."""
    async with snapshot(pool) as connection:
        ledger = await Ledger.read(connection)
        covered = await _covered_from(link)
        again: Rows | None = None
        batches = 0
        names = Names(connection)
        async for group in _groups(link, ledger, from_s, to_s, run_id):
            batches += len(group)
            rows = await _fold(names, ledger, group)
            again = rows if again is None else merge(join(again, rows), WINDOW_S)
        span = moments((from_s, to_s))
        stored = join(
            await read(connection, "rollup_10s", _STORED, *span), await read(connection, "parts", _STORED, *span)
        )
        empty = stored.take(np.zeros(len(stored.series), dtype=bool))
        keys = {row["series_id"]: row["key"] for row in await connection.fetch(load("keys_of_metric"), metric)}
    rows = empty if again is None else again
    rows, kept = (_of(each, keys) for each in (merge(rows, WINDOW_S), merge(stored, WINDOW_S)))
    return Replayed(batches, rows, kept, keys, covered)


def _of(rows: Rows, keys: dict[int, str]) -> Rows:
    return rows.take(np.isin(rows.series, np.fromiter(keys, dtype=np.int64, count=len(keys))))


async def _covered_from(link: Any) -> int:
    """Return from which window on no shard's stream can have been trimmed."""
    covered_s, shard = 0, 0
    while await link.exists(stream_key(shard)):
        info = await link.xinfo_stream(stream_key(shard))
        first = info["first-entry"]
        # Redis before 7.0 does not count what was ever added: there the oldest window is left out.
        if info.get("entries-added", -1) != info["length"] and first is not None:
            first_ms = int(first[0].partition(b"-")[0])
            covered_s = max(covered_s, window_start_s(first_ms) + WINDOW_S)
        shard += 1
    return covered_s


async def _groups(
    link: Any, ledger: Ledger, from_s: int, to_s: int, run_id: str | None
) -> AsyncIterator[list[Decoded]]:
    seen: set[tuple[bytes, int]] = set()
    group: list[Decoded] = []
    blocks = BlockCache()
    async for entry in retained(link, from_ms=max(0, (from_s - FUTURE_BOUND_S) * 1000)):
        e, body = entry.envelope, entry.body
        if (
            e is None
            or body is None
            or entry.fault
            or body.run_id != run_id
            or not from_s <= body.window_start_s < to_s
        ):
            continue
        if (e.producer_id, e.seq) in seen or not ledger.applied(e.producer_id, e.seq):
            continue
        seen.add((e.producer_id, e.seq))
        group.append(decode(Entry(entry.shard, entry.stream_id, entry.data), e, blocks))
        if len(group) == AT_ONCE:
            yield group
            group = []
    if group:
        yield group


class Names:
    """Numbers of series as they are stored; admits nothing."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._series: dict[bytes, int] = {}
        self._kinds: dict[str, int] = {}
        self._layouts: dict[tuple[float, ...], int] = {(): 0}

    async def resolve(self, block: Block) -> None:
        """Fill a block's numbers; a key that was never admitted stands for its metric's overflow series."""
        if block.series_ids is not None:
            return
        directory = block.directory
        overflow = [series_key(m.name, OVERFLOW_LABELS) for m in directory.metrics]
        await self._find([*directory.keys, *overflow], [m.name for m in directory.metrics])
        of: list[int] = block.metric_of.tolist()
        known = self._series
        numbers = [known.get(k) or known.get(overflow[i], -1) for k, i in zip(directory.keys, of, strict=True)]
        layouts = [self._layouts.setdefault(m.bounds, len(self._layouts)) for m in directory.metrics]
        kinds = [self._kinds.get(m.name, m.kind) != m.kind for m in directory.metrics]
        block.series_ids = np.array(numbers, dtype=np.int64)
        block.layouts = np.array([layouts[i] for i in of], dtype=np.int64)
        conflicted = np.array([kinds[i] for i in of], dtype=bool)
        block.conflicted = conflicted if conflicted.any() else None

    async def _find(self, keys: Iterable[bytes], names: list[str]) -> None:
        missing = {key_hash(key): key for key in keys if key not in self._series}
        for row in await self._connection.fetch(load("find_series"), list(missing)):
            self._series[missing[row["key_hash"]]] = row["series_id"]
        for row in await self._connection.fetch(load("kinds_of_metrics"), names):
            self._kinds[row["name"]] = Kind(row["kind"])


async def _fold(names: Names, ledger: Ledger, group: list[Decoded]) -> Rows:
    for batch in group:
        await names.resolve(batch.block)
    booked = [
        Booked(d, ledger.rows[d.envelope.producer_id].number, d.body.window_start_s)
        for d in group
        if d.block.series_ids is not None and (d.block.series_ids >= 0).all()
    ]
    folded = fold(booked, group[0].entry.shard)
    empty = b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"\xff\xff"
    return unpack(folded.parts or empty)


def differences(found: Replayed) -> list[Difference]:
    """Compare stored rows with replayed ones, in windows that the stream covers wholly."""
    replayed, stored = _by_key(found.rows, found), _by_key(found.stored, found)
    out: list[Difference] = []
    for identity in sorted(replayed.keys() | stored.keys()):
        mine, theirs = replayed.get(identity), stored.get(identity)
        series, window_s = found.keys[identity[0]], identity[1]
        if mine is None or theirs is None:
            row = ("nothing" if theirs is None else theirs["n"], "nothing" if mine is None else mine["n"])
            out.append(Difference(series, window_s, "row", *row))
            continue
        out += [Difference(series, window_s, c, theirs[c], mine[c]) for c in _unlike(mine, theirs)]
        if len(out) >= MOST:
            break
    return out


def _unlike(mine: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    unlike = [c for c in _EXACT if mine[c] != theirs[c] and not (mine[c] != mine[c] and theirs[c] != theirs[c])]
    size = max(abs(mine["sum"]), abs(theirs["sum"]))
    if abs(mine["sum"] - theirs["sum"]) > TOLERANCE * size:
        unlike.append("sum")
    if mine["sketch"] != theirs["sketch"]:
        unlike.append("sketch")
    return unlike


def _by_key(rows: Rows, found: Replayed) -> dict[tuple[int, int, int], dict[str, Any]]:
    ends = np.cumsum(np.maximum(rows.sketch_len, 0)).tolist()
    packed = rows.sketches.tobytes()
    out: dict[tuple[int, int, int], dict[str, Any]] = {}
    columns = [c.tolist() for c in rows[:9]]
    for i, (window_s, series, producer, n, total, low, high, last, length) in enumerate(zip(*columns, strict=True)):
        if window_s >= found.covered_from_s:
            sketch = packed[ends[i] - max(length, 0) : ends[i]].hex()
            values = {"n": n, "sum": total, "min": low, "max": high, "last": last, "sketch": sketch}
            out[series, window_s, producer] = values
    return out


def listed(found: Replayed) -> list[dict[str, Any]]:
    """Return the replayed rows as a person or a program reads them; NaN as null."""
    rows = _by_key(found.rows, found)
    return [
        {"series": found.keys[series], "window_s": window_s}
        | {name: None if value != value else value for name, value in row.items() if name != "sketch"}
        for (series, window_s, _), row in sorted(rows.items(), key=lambda item: (item[0][1], found.keys[item[0][0]]))
    ]
