"""The ledger: applies one fold in one transaction, so that a batch has its effect once or not at all.

In: a Fold (columns ready for PostgreSQL). Out: committed, or the seqs that were accounted for already.
Promise: COPY first, then the one statement that locks, checks, advances and adds, then COMMIT with its tag
checked; any exception means "unknown": nothing may be acknowledged.
"""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg
import msgspec

from contract.crash import NEVER, CrashPoint
from database.connect import Connection, Pool, acquire, commit, roll_back
from database.queries import load

PART_COLUMNS: Final = ("window_start", "series_id", "producer_no", "n", "sum", "min", "max", "last", "sketch")
STALE_IDENTITIES: Final = "SG001"
"""SQLSTATE raised by lock_and_check when cached numbers are no longer valid."""


class SetAside(NamedTuple):
    """An entry for the quarantine table."""

    shard: int
    stream_id: str
    reason: str
    detail: str
    producer_id: bytes | None
    """None where the envelope cannot be trusted."""
    seq: int | None
    events: int | None
    payload: bytes


@dataclass(slots=True)
class Fold:
    """What a set of batches adds, in the order and form that PostgreSQL takes it."""

    parts: bytes = b""
    """Binary COPY of PART_COLUMNS, header and trailer included; empty if there are none."""
    producers: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    runs: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    batch_producers: list[int] = field(default_factory=list[int])
    batch_seqs: list[int] = field(default_factory=list[int])
    group_widths: list[int] = field(default_factory=list[int])
    group_rows: list[int] = field(default_factory=list[int])
    total_ids: list[int] = field(default_factory=list[int])
    total_layouts: list[int] = field(default_factory=list[int])
    total_shards: list[int] = field(default_factory=list[int])
    total_ns: list[int] = field(default_factory=list[int])
    total_sums: list[float] = field(default_factory=list[float])
    total_les: list[int] = field(default_factory=list[int])
    gauge_ids: list[int] = field(default_factory=list[int])
    gauge_producers: list[int] = field(default_factory=list[int])
    gauge_values: list[float] = field(default_factory=list[float])
    gauge_ms: list[int] = field(default_factory=list[int])
    touched: list[int] = field(default_factory=list[int])
    events: int = 0
    conflicts: list[SetAside] = field(default_factory=list[SetAside])
    """Entries of which some columns are set aside while the rest is applied."""


async def apply(
    pool: Pool, fold: Fold, generation: int, consumer: str, crash: CrashPoint = NEVER
) -> list[tuple[int, int]]:
    """Apply `fold`; returns (producer_no, seq) of batches already accounted for, in which case nothing changed."""
    async with acquire(pool) as connection:
        await connection.execute("BEGIN")
        try:
            already = await _apply(connection, fold, generation, consumer)
        except BaseException:
            await roll_back(connection)
            raise
        if already:
            await connection.execute("ROLLBACK")
        else:
            crash.reach("in_transaction")
            await commit(connection)
        return already


async def _apply(connection: Connection, fold: Fold, generation: int, consumer: str) -> list[tuple[int, int]]:
    if fold.parts:
        await copy(connection, "parts", PART_COLUMNS, fold.parts)
    if fold.conflicts:
        await connection.executemany(load("quarantine_entry"), [_quarantine_row(entry) for entry in fold.conflicts])
    arrays: tuple[Sequence[float], ...] = (
        fold.batch_producers,
        fold.batch_seqs,
        fold.group_widths,
        fold.group_rows,
        fold.total_ids,
        fold.total_layouts,
        fold.total_shards,
        fold.total_ns,
        fold.total_sums,
        fold.total_les,
        fold.gauge_ids,
        fold.gauge_producers,
        fold.gauge_values,
        fold.gauge_ms,
        fold.touched,
    )
    rows = await connection.fetch(
        load("apply_fold"),
        generation,
        consumer,
        msgspec.json.encode({"producers": fold.producers, "runs": fold.runs, "events": fold.events}).decode(),
        *map(array_text, arrays),
    )
    return [(row["producer_no"], row["seq"]) for row in rows]


def array_text(values: Sequence[float]) -> str:
    """Return PostgreSQL's text of an array of finite numbers."""
    return f"{{{str(values)[1:-1]}}}"


async def copy(connection: Connection, table: str, columns: tuple[str, ...], data: bytes) -> None:
    """Run a binary COPY of ready-made bytes into a table of search_path."""

    async def source() -> AsyncIterator[bytes]:
        yield data

    await connection.copy_to_table(table, source=source(), columns=columns, format="binary")


def _quarantine_row(entry: SetAside) -> tuple[Any, ...]:
    producer_id = UUID(bytes=entry.producer_id) if entry.producer_id is not None else None
    detail = entry.detail[:2000].replace("\0", "")
    return (
        entry.shard,
        entry.stream_id,
        entry.reason,
        detail,
        producer_id,
        entry.seq,
        entry.events,
        entry.payload,
    )


async def quarantine_raw(pool: Pool, entry: SetAside) -> None:
    """Keep an entry whose envelope cannot be trusted; no seq is touched."""
    async with acquire(pool) as connection:
        await connection.execute("BEGIN")
        await connection.execute(load("quarantine_entry"), *_quarantine_row(entry))
        await commit(connection)


class Accounting(NamedTuple):
    """What a batch says of its producer, for the ledger; None where its body could not be read."""

    producer_no: int
    checksum: int
    sealed_before: int | None
    sealed_after: int | None
    window_s: int
    accepted: int | None
    dropped: dict[str, int]


async def quarantine_batch(pool: Pool, entry: SetAside, known: Accounting) -> bool:
    """Keep a batch that cannot be applied and account for its seq; False if the seq was accounted for already."""
    assert entry.producer_id is not None, "BUG: only a trusted envelope has a seq to account for"
    async with acquire(pool) as connection:
        await connection.execute("BEGIN")
        try:
            fresh: bool = await connection.fetchval(
                load("quarantine_batch"),
                entry.shard,
                entry.stream_id,
                entry.reason,
                entry.detail[:2000].replace("\0", ""),
                known.producer_no,
                UUID(bytes=entry.producer_id),
                entry.seq,
                entry.events,
                known.sealed_before,
                known.sealed_after,
                known.window_s,
                known.accepted,
                json.dumps(known.dropped),
                entry.payload,
                known.checksum,
            )
        except BaseException:
            await roll_back(connection)
            raise
        await commit(connection)
        return fresh


async def park(pool: Pool, entry: SetAside, version: int) -> bool:
    """Keep a valid entry that this program must not fold; False if another content is parked under its seq."""
    assert entry.producer_id is not None, "BUG: a parked entry has a trusted envelope"
    async with acquire(pool) as connection:
        await connection.execute("BEGIN")
        kept: bool | None = await connection.fetchval(
            load("park"),
            entry.shard,
            entry.stream_id,
            entry.reason,
            version,
            UUID(bytes=entry.producer_id),
            entry.seq,
            entry.events,
            entry.payload,
        )
        await commit(connection)
    return kept is not None


async def find_conflicts(pool: Pool, batches: Sequence[tuple[int, int, int]]) -> list[int]:
    """Return places of those (producer_no, seq, checksum) that were accounted for lately, with another checksum."""
    if not batches:
        return []
    producers, seqs, checksums = zip(*batches, strict=True)
    async with acquire(pool) as connection:
        rows = await connection.fetch(load("find_conflicts"), producers, seqs, checksums)
    return [row["place"] - 1 for row in rows]


async def read_generation(pool: Pool) -> int:
    """Return the generation that cached numbers belong to."""
    async with acquire(pool) as connection:
        return int(await connection.fetchval(load("generation")))


def is_stale(error: BaseException) -> bool:
    """Whether the error says that cached series or producer numbers must be looked up again."""
    return isinstance(error, asyncpg.PostgresError) and error.sqlstate == STALE_IDENTITIES
