"""Admission: gives metrics, bucket layouts, series and producers their numbers, once and for all replicas.

In: definitions and keys as they stand in batches. Out: numbers, cached by the caller only after COMMIT.
Promise: admissions run one at a time (an advisory lock), in a committed transaction of their own; a metric
beyond its budget of active series gets its overflow series instead, so that totals stay right.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, NamedTuple
from uuid import UUID

from contract.metric import Kind, MetricDef
from contract.series import OVERFLOW_LABELS, SeriesError, parse_key, series_key
from database.connect import Connection, Pool, acquire, transaction
from database.queries import load


class Metric(NamedTuple):
    """An admitted metric definition."""

    metric_id: int
    kind: Kind
    """The kind under which the name was admitted first."""
    layout_id: int
    """0 unless a histogram."""


class Producer(NamedTuple):
    """A producer's ledger row."""

    producer_no: int
    top_seq: int
    """Highest seq accounted for when the row was read."""
    first_seen_ms: int
    """When the row was made, by the database's clock."""

    @classmethod
    def of(cls, row: Any) -> "Producer":
        """Read a row of register_producers or find_producers."""
        return cls(int(row["producer_no"]), int(row["top_seq"]), int(row["first_seen_s"] * 1000))


def key_hash(key: bytes) -> UUID:
    """Return the 128-bit identity of a series key."""
    return UUID(bytes=blake2b(key, digest_size=16).digest())


async def admit(
    pool: Pool, wanted: dict[bytes, MetricDef], budget: int
) -> tuple[dict[bytes, int], dict[MetricDef, Metric]]:
    """Return the series number of each key and the admitted form of each definition.

    A key whose metric is known as another kind is left out of the first dict. SeriesError never escapes: a key
    that is not canonical, or not of its metric, is left out too.
    """
    keys_of: dict[MetricDef, list[bytes]] = {}
    for key, definition in wanted.items():
        keys_of.setdefault(definition, []).append(key)
    definitions = sorted(keys_of, key=lambda d: (d.name, d.bounds))
    async with acquire(pool) as connection, transaction(connection):
        await connection.execute(load("admission_lock"))
        metrics = {d: await _admit_metric(connection, d) for d in definitions}
        numbers: dict[bytes, int] = {}
        for definition in definitions:
            if metrics[definition].kind is definition.kind:
                legal = [key for key in keys_of[definition] if _is_of(key, definition.name)]
                numbers |= await _admit_series(connection, metrics[definition].metric_id, definition, legal, budget)
    return numbers, metrics


def _is_of(key: bytes, name: str) -> bool:
    try:
        return parse_key(key)[0] == name
    except SeriesError:
        return False


async def _admit_metric(connection: Connection, d: MetricDef) -> Metric:
    row = await connection.fetchrow(
        load("admit_metric"), d.name, int(d.kind), _storable(d.help), _storable(d.unit), str(d.merge), d.live
    )
    assert row is not None, "BUG: admit_metric always returns a row"
    metric_id, kind = int(row["metric_id"]), Kind(row["kind"])
    layout_id = 0
    if kind is Kind.HISTOGRAM and d.kind is kind:
        layout_id = int(await connection.fetchval(load("admit_layout"), metric_id, list(d.bounds)))
    return Metric(metric_id, kind, layout_id)


def _storable(text: str) -> str:
    """Drop what a text column refuses (lone surrogates); NUL was refused when the definition was read."""
    return text.encode(errors="ignore").decode()


async def _admit_series(
    connection: Connection, metric_id: int, definition: MetricDef, keys: Iterable[bytes], budget: int
) -> dict[bytes, int]:
    by_hash = {key_hash(key): key for key in keys}
    rows = await connection.fetch(load("find_series"), list(by_hash))
    numbers = {by_hash[row["key_hash"]]: int(row["series_id"]) for row in rows}
    missing = [(h, k) for h, k in by_hash.items() if k not in numbers]
    if not missing:
        return numbers
    active = int(await connection.fetchval(load("metric_active"), metric_id))
    room = missing[: max(0, budget - active)]
    surplus = missing[len(room) :]
    overflow = series_key(definition.name, OVERFLOW_LABELS)
    if surplus:
        room = [*room, (key_hash(overflow), overflow)]
    added = await connection.fetch(load("add_series"), metric_id, [h for h, _ in room], [k.decode() for _, k in room])
    numbers |= {row["key"].encode(): int(row["series_id"]) for row in added}
    return numbers | {k: numbers[overflow] for _, k in surplus}


async def register_producers(pool: Pool, producers: dict[bytes, tuple[str, int]]) -> dict[bytes, Producer]:
    """Return the ledger row of each producer (id -> service, shard), making those that do not exist."""
    ids = sorted(producers)
    async with acquire(pool) as connection, transaction(connection):
        await connection.execute(load("admission_lock"))
        rows = await connection.fetch(
            load("register_producers"),
            [UUID(bytes=i) for i in ids],
            [producers[i][0] for i in ids],
            [producers[i][1] for i in ids],
        )
    return {row["producer_id"].bytes: Producer.of(row) for row in rows}


async def find_producers(pool: Pool, producer_ids: Iterable[bytes]) -> dict[bytes, Producer]:
    """Return the ledger rows that exist; makes none."""
    async with acquire(pool) as connection:
        rows = await connection.fetch(load("find_producers"), [UUID(bytes=i) for i in producer_ids])
    return {row["producer_id"].bytes: Producer.of(row) for row in rows}
