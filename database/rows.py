"""Rows: parts and rollup rows as columns: read from PostgreSQL, merged per window, written back.

In: a table of search_path. Out: Rows; binary COPY into a table.
Promise: merging is exact for counts and sketches, in row order for `last`, and makes no Python object per row.
"""

import struct
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from database.columns import COPY_HEADER, COPY_TRAILER, float8s, int4s, int8s, pack_rows, raw_bytes, timestamps
from database.columns import unix_seconds as to_unix
from database.connect import Connection
from database.ledger import PART_COLUMNS, copy
from database.queries import load
from database.sketches import Bytes, Entries, Floats, Ints, count_entries, decode_rows, encode_rows

MAX_CHUNK_ROWS: Final = 250_000
MAX_CHUNK_SKETCH_BYTES: Final = 2 << 20
"""Both bound memory: a sketch byte becomes about 40 bytes of columns and temporaries."""


class Rows(NamedTuple):
    """Columns of equal length. NaN stands for NULL; a sketch of length -1 is NULL."""

    window_s: Ints
    series: Ints
    producer: Ints
    n: Ints
    sum: Floats
    min: Floats
    max: Floats
    last: Floats
    sketch_len: Ints
    sketches: Bytes

    def take(self, keep: NDArray[np.bool_]) -> "Rows":
        """Return the rows where `keep` is true."""
        lengths = np.maximum(self.sketch_len, 0)
        columns: list[Any] = [column[keep] for column in self[:9]]
        columns.append(self.sketches[np.repeat(keep, lengths)])
        return Rows(*columns)


class Span(NamedTuple):
    """How much a table holds for a set of windows, to divide it before it is read."""

    rows: int
    low: int
    high: int
    sketch_bytes: int

    def chunks(self) -> list[tuple[int, int]]:
        """Return ranges `[low, high)` of series numbers, each small enough to be read at once."""
        if not self.rows:
            return []
        pieces = 1 + max(self.rows // MAX_CHUNK_ROWS, self.sketch_bytes // MAX_CHUNK_SKETCH_BYTES)
        step = -(-(self.high - self.low + 1) // pieces)
        return [(at, at + step) for at in range(self.low, self.high + 1, step)]


async def measure(connection: Connection, table: str, windows: str = "true", *arguments: Any) -> Span:
    """Return the span of a table's rows of some windows (an SQL condition on window_start)."""
    row = await connection.fetchrow(load("measure_rows").format(table=table, windows=windows), *arguments)
    assert row is not None, "BUG: an aggregate always returns a row"
    return Span(row["rows"], row["low"] or 0, row["high"] or 0, row["sketch_bytes"])


async def read(connection: Connection, table: str, condition: str, *arguments: Any) -> Rows:
    """Read rows in physical order (for `parts`: in order of arrival)."""
    return columns_of(
        await connection.fetchrow(load("read_rows").format(source=f"{table} WHERE {condition}"), *arguments)
    )


async def take_out(connection: Connection, table: str, condition: str, *arguments: Any) -> Rows:
    """Delete rows and return them."""
    query = load("take_rows").format(table=table, condition=condition, read=load("read_rows").format(source="gone"))
    return columns_of(await connection.fetchrow(query, *arguments))


def columns_of(row: Any) -> Rows:
    """Read the one result row of `read_rows`."""
    return Rows(
        to_unix(int8s(row["window_start"])),
        int4s(row["series_id"]),
        int4s(row["producer_no"]),
        int8s(row["n"]),
        float8s(row["sum"]),
        float8s(row["min"]),
        float8s(row["max"]),
        float8s(row["last"]),
        int4s(row["sketch_len"]),
        raw_bytes(row["sketch"]),
    )


def join(first: Rows, second: Rows) -> Rows:
    """Return the rows of both, `first` before `second`."""
    columns: list[Any] = [np.concatenate(pair) for pair in zip(first, second, strict=True)]
    return Rows(*columns)


def merge(rows: Rows, width_s: int) -> Rows:
    """Merge to one row per series, window of `width_s` and producer, sorted so; later rows win `last`."""
    if not len(rows.series):
        return rows
    window_s = rows.window_s // width_s * width_s
    # By time within a row, so that `last` is the newest; stable, so that equal times keep their order.
    order = np.lexsort((rows.window_s, rows.producer, window_s, rows.series))
    series, window, producer = rows.series[order], window_s[order], rows.producer[order]
    fresh = (
        (np.diff(series, prepend=-1) != 0) | (np.diff(window, prepend=-1) != 0) | (np.diff(producer, prepend=-1) != 0)
    )
    starts = np.flatnonzero(fresh)
    of_sorted = np.cumsum(fresh) - 1
    of = np.empty(len(order), dtype=np.int64)
    of[order] = of_sorted
    size = len(starts)
    sketch_len, sketches = _merge_sketches(rows, of, size)
    return Rows(
        window[starts],
        series[starts],
        producer[starts],
        np.add.reduceat(rows.n[order], starts),
        np.add.reduceat(rows.sum[order], starts),
        # fmin and fmax pass over NaN, which stands for NULL here.
        np.fmin.reduceat(rows.min[order], starts),
        np.fmax.reduceat(rows.max[order], starts),
        _last(rows.last[order], of_sorted, starts, size),
        sketch_len,
        sketches,
    )


def _last(last: Floats, of: Ints, starts: Ints, size: int) -> Floats:
    out = np.full(size, np.nan)
    known = ~np.isnan(last)
    out[of[known]] = last[known]
    return out


def _merge_sketches(rows: Rows, of: Ints, size: int) -> tuple[Ints, Bytes]:
    has = rows.sketch_len >= 0
    out = np.full(size, -1, dtype=np.int64)
    if not has.any():
        return out, np.empty(0, dtype=np.uint8)
    entries = decode_rows(np.maximum(rows.sketch_len, 0), rows.sketches)
    merged = count_entries(of[entries.row], entries.bucket, entries.count)
    lengths, packed = encode_rows(merged, size)
    held = np.zeros(size, dtype=bool)
    held[of[has]] = True
    out[held] = lengths[held]
    return out, packed


def sketch_counts(rows: Rows) -> Ints:
    """Return, per row, how many samples its sketch counts; 0 without one."""
    entries: Entries = decode_rows(np.maximum(rows.sketch_len, 0), rows.sketches)
    return np.bincount(entries.row, weights=entries.count, minlength=len(rows.series)).astype(np.int64)


async def write(connection: Connection, table: str, rows: Rows, arrived_s: int | None = None) -> None:
    """COPY rows into a table; `arrived_s` sets the column of that name in `parts`."""
    if not len(rows.series):
        return
    columns = PART_COLUMNS if arrived_s is None else ("arrived", *PART_COLUMNS)
    data = b"".join((COPY_HEADER, *(_pack(part, arrived_s) for part in _shapes(rows)), COPY_TRAILER))
    await copy(connection, table, columns, data)


def _shapes(rows: Rows) -> list[Rows]:
    """Divide by which columns are NULL: counters, gauges and histograms each have their own set."""
    shape = np.isnan(rows.min) * 4 + np.isnan(rows.last) * 2 + (rows.sketch_len < 0)
    return [rows.take(shape == each) for each in np.unique(shape)]


def _pack(rows: Rows, arrived_s: int | None) -> bytes:
    size = len(rows.series)
    arrived = [] if arrived_s is None else [timestamps(np.full(size, arrived_s, dtype=np.int64))]
    values = [None if np.isnan(column[0]) else column for column in (rows.min, rows.max, rows.last)]
    blobs = None if rows.sketch_len[0] < 0 else (rows.sketch_len, rows.sketches)
    fixed = [timestamps(rows.window_s), rows.series.astype(np.int32), rows.producer.astype(np.int32), rows.n, rows.sum]
    return pack_rows([*arrived, *fixed, *values], blobs, size)


def unpack(data: bytes) -> Rows:
    """Read binary COPY bytes of PART_COLUMNS, row by row: for tools, not for the way of the data."""
    found: list[list[Any]] = [[] for _ in PART_COLUMNS]
    at = len(COPY_HEADER)
    while data[at : at + 2] != COPY_TRAILER:
        at += 2
        for column, kind in zip(found, ("q", "i", "i", "q", "d", "d", "d", "d", ""), strict=True):
            size = int.from_bytes(data[at : at + 4], "big", signed=True)
            raw = data[at + 4 : at + 4 + max(size, 0)]
            at += 4 + len(raw)
            if kind:
                column.append(struct.unpack(f">{kind}", raw)[0] if raw else np.nan)
            else:
                column.append(raw if size >= 0 else None)
    sketches: list[bytes | None] = found.pop()
    columns: list[Any] = [np.array(c, dtype=np.int64 if i < 4 else np.float64) for i, c in enumerate(found)]
    columns[0] = to_unix(columns[0])
    lengths = np.array([-1 if sketch is None else len(sketch) for sketch in sketches], dtype=np.int64)
    columns += [lengths, raw_bytes(b"".join(sketch or b"" for sketch in sketches))]
    return Rows(*columns)
