"""What each SQL statement of the aggregator does to the simulated store, by the text of its file.

In: a statement's arguments as the services give them. Out: rows as dicts. Promise: a statement that is not here is a
BUG at its first use, so that a change of the SQL is not passed over.
"""

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from database.queries import load
from tests.model.ledger import (
    STARTS,
    Producer,
    apply_fold,
    find_conflicts,
    park,
    quarantine_batch,
    quarantine_entry,
    store_row,
)
from tests.model.redis_server import EPOCH_MS
from tests.model.store import Statement, Store, Transaction
from tests.model.tasks import CLOCK

SYSTEM: Final = 7
BEGUN_S: Final = EPOCH_MS / 1000
"""When every row was made: no schedule lasts as long as the ledger remembers."""

# Numbers of producers, metrics and series


def _register(store: Store, tx: Transaction, ids: list[UUID], services: list[str], shards: list[int]) -> list[Any]:
    found: list[Any] = []
    for made, service, shard in zip(ids, services, shards, strict=True):
        no = store.get(tx, "producer_nos", made.bytes)
        if no is None:
            no = store.next_value("producers")
            store_row(tx, "producer_nos", made.bytes, no)
            store_row(tx, "producers", no, Producer(made.bytes, service, shard))
        found += _find_producers(store, tx, [made])
    return found


def _find_producers(store: Store, tx: Transaction, ids: list[UUID]) -> list[Any]:
    nos = {i: store.get(tx, "producer_nos", i.bytes) for i in ids}
    return [
        {
            "producer_no": no,
            "producer_id": i,
            "top_seq": store.get(tx, "producers", no).top_seq,
            "first_seen_s": BEGUN_S,
        }
        for i, no in nos.items()
        if no is not None
    ]


def _admit_metric(store: Store, tx: Transaction, name: str, kind: int, *_: Any) -> list[Any]:
    known = store.get(tx, "metrics", name)
    if known is None:
        known = (store.next_value("metrics"), kind)
        store_row(tx, "metrics", name, known)
    return [{"metric_id": known[0], "kind": known[1]}]


def _admit_layout(store: Store, tx: Transaction, metric: int, bounds: list[float]) -> list[Any]:
    key = (metric, tuple(bounds))
    number = store.get(tx, "layouts", key)
    if number is None:
        number = store.next_value("layouts")
        store_row(tx, "layouts", key, number)
    return [{"layout_id": number}]


def _find_series(store: Store, tx: Transaction, hashes: list[UUID]) -> list[Any]:
    found = {h: store.get(tx, "series_of", h.bytes) for h in hashes}
    return [{"series_id": number, "key_hash": h} for h, number in found.items() if number is not None]


def _add_series(store: Store, tx: Transaction, metric: int, hashes: list[UUID], keys: list[str]) -> list[Any]:
    found: list[Any] = []
    for key_hash, key in zip(hashes, keys, strict=True):
        number = store.get(tx, "series_of", key_hash.bytes)
        if number is None:
            number = store.next_value("series")
            store_row(tx, "series_of", key_hash.bytes, number)
            store_row(tx, "series", number, (metric, key.encode()))
        found.append({"series_id": number, "key": key})
    return found


# What the services ask beside


def _newest_commit(store: Store, tx: Transaction) -> list[Any]:
    newest = max(store.scan(tx, "commits"), default=0)
    return [{"commit_id": newest, "at_s": CLOCK.now + EPOCH_MS / 1000, **_identity(store)}]


def _identity(store: Store) -> dict[str, int]:
    return {"system_identifier": SYSTEM, "timeline": store.timeline}


def _fence_is_up(store: Store, tx: Transaction) -> list[Any]:
    return [{"exists": any(store.scan(tx, "fences").values())}]


def _raise_fence(store: Store, tx: Transaction, reason: str, consumer: str) -> list[Any]:
    number = store.next_value("fences")
    store_row(tx, "fences", number, True)
    return [{"fence_id": number}]


def _lower_fences(store: Store, tx: Transaction, identity: str) -> list[Any]:
    for number, is_raised in store.scan(tx, "fences").items():
        if is_raised and identity == f"{SYSTEM}/{store.timeline}":
            store_row(tx, "fences", number, False)
    return []


def _tally(store: Store, tx: Transaction, name: str, more: int) -> Statement:
    yield from store.lock(tx, "tallies", name)
    store_row(tx, "tallies", name, (store.get(tx, "tallies", name) or 0) + more)
    return []


def _tallies_kept(store: Store, tx: Transaction) -> list[Any]:
    return [{"name": name, "n": store.get(tx, "tallies", name)} for name in store.scan(tx, "tallies")]


def _tallies_restore(store: Store, tx: Transaction, names: list[str], numbers: list[int]) -> Statement:
    for name, n in zip(names, numbers, strict=True):
        yield from store.lock(tx, "tallies", name)
        store_row(tx, "tallies", name, max(store.get(tx, "tallies", name) or 0, n))
    return []


def _admission_lock(store: Store, tx: Transaction) -> Statement:
    yield from store.lock(tx, "advisory", 2)
    return []


def _scrape(store: Store, tx: Transaction) -> list[Any]:
    """One snapshot as the exporter reads it."""
    keys = store.scan(tx, "series")
    totals: dict[bytes, int] = {}
    for (number, _, _), (n, _, _) in store.scan(tx, "totals").items():
        key = keys[number][1] if number in keys else b"?%d" % number
        totals[key] = totals.get(key, 0) + n
    commits = store.scan(tx, "commits")
    return [
        {
            "identity": f"{SYSTEM}/{store.timeline}",
            "fenced": any(store.scan(tx, "fences").values()),
            "newest": max(commits, default=None),
            "totals": totals,
        }
    ]


def _generation(store: Store, tx: Transaction) -> list[Any]:
    return [{"generation": store.get(tx, "state", 0) + store.started * STARTS}]


def _metric_active(store: Store, tx: Transaction, metric: int) -> list[Any]:
    return [{"active": 0}]


def _standby_lsn(store: Store, tx: Transaction) -> list[Any]:
    return [{"written": len(store.wal), "flushed": store.standby, **_identity(store)}]


def _clock(store: Store, tx: Transaction) -> list[Any]:
    return [{"clock": EPOCH_MS / 1000 + CLOCK.now + store.offset_s}]


def _quarantine_batch(store: Store, tx: Transaction, *a: Any) -> Statement:
    return [{"fresh": (yield from quarantine_batch(store, tx, *a))}]


SCRAPE: Final = "SCRAPE"

WAITING: Final[dict[str, Callable[..., Statement]]] = {
    load("apply_fold"): apply_fold,
    load("quarantine_batch"): _quarantine_batch,
    load("quarantine_entry"): quarantine_entry,
    load("park"): park,
    load("tally"): _tally,
    load("tallies_restore"): _tallies_restore,
    load("admission_lock"): _admission_lock,
}
"""Statements that may wait for somebody. The text names the statement, as it does for PostgreSQL."""

DIRECT: Final[dict[str, Callable[..., list[Any]]]] = {
    SCRAPE: _scrape,
    load("find_conflicts"): find_conflicts,
    load("register_producers"): _register,
    load("find_producers"): _find_producers,
    load("admit_metric"): _admit_metric,
    load("admit_layout"): _admit_layout,
    load("find_series"): _find_series,
    load("add_series"): _add_series,
    load("metric_active"): _metric_active,
    load("newest_commit"): _newest_commit,
    load("raise_fence"): _raise_fence,
    load("lower_fences"): _lower_fences,
    load("generation"): _generation,
    load("fence_is_up"): _fence_is_up,
    load("standby_lsn"): _standby_lsn,
    load("clock"): _clock,
    load("tallies_kept"): _tallies_kept,
}
"""Statements that answer at once."""
