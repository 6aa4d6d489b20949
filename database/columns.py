"""Whole columns in and out of PostgreSQL without a Python object per row.

In: numpy columns. Out: binary COPY bytes; and back from `string_agg(int8send(x), '')` results.
Promise: the COPY format is PostgreSQL's documented binary one (big-endian fields with a length each).
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from database.sketches import Bytes, Floats, Ints

COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER: Final = b"\xff\xff"
_EPOCH_2000_S: Final = 946_684_800

Column = NDArray[Any] | None
"""One fixed-width column (int32, int64 or float64), or None where every row is NULL."""


def timestamps(window_start_s: Ints) -> Ints:
    """Return `timestamptz` binary values (microseconds since 2000-01-01 UTC) of Unix seconds."""
    return (window_start_s - _EPOCH_2000_S) * 1_000_000


def unix_seconds(timestamp_us: Ints) -> Ints:
    """Return Unix seconds of `timestamptz` binary values."""
    return timestamp_us // 1_000_000 + _EPOCH_2000_S


def pack_rows(columns: Sequence[Column], blobs: tuple[Ints, Bytes] | None, rows: int) -> bytes:
    """Return the binary COPY tuples (no header) of `rows` rows: the columns in order, then one bytea column.

    `blobs` holds each row's length and all bytes joined; None makes that last column NULL.
    """
    fields: list[tuple[str, str]] = [("fields", ">i2")]
    for i, column in enumerate(columns):
        fields.append((f"length{i}", ">i4"))
        if column is not None:
            fields.append((f"value{i}", ">" + column.dtype.str[1:]))
    fields.append(("blob", ">i4"))
    record = np.empty(rows, dtype=fields)
    record["fields"] = len(columns) + 1
    for i, column in enumerate(columns):
        record[f"length{i}"] = -1 if column is None else column.dtype.itemsize
        if column is not None:
            record[f"value{i}"] = column
    if blobs is None:
        record["blob"] = -1
        return record.tobytes()
    record["blob"] = blobs[0]
    return _interleave(record.view(np.uint8), record.dtype.itemsize, *blobs)


def _interleave(fixed: Bytes, width: int, lengths: Ints, blob: Bytes) -> bytes:
    runs = np.empty(2 * len(lengths), dtype=np.int64)
    runs[0::2] = width
    runs[1::2] = lengths
    is_blob = np.repeat(np.tile(np.array([False, True]), len(lengths)), runs)
    out = np.empty(len(is_blob), dtype=np.uint8)
    out[is_blob] = blob
    out[~is_blob] = fixed
    return out.tobytes()


def int4s(data: bytes | None) -> Ints:
    """Read `string_agg(int4send(x), '')`."""
    return np.frombuffer(data or b"", dtype=">i4").astype(np.int64)


def int8s(data: bytes | None) -> Ints:
    """Read `string_agg(int8send(x), '')`."""
    return np.frombuffer(data or b"", dtype=">i8").astype(np.int64)


def float8s(data: bytes | None) -> Floats:
    """Read `string_agg(float8send(x), '')`."""
    return np.frombuffer(data or b"", dtype=">f8").astype(np.float64)


def raw_bytes(data: bytes | None) -> Bytes:
    """Read `string_agg(bytea, '')`."""
    return np.frombuffer(data or b"", dtype=np.uint8)
