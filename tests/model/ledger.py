"""The ledger of the simulated store: what its statements do to producers, gaps, totals and the quarantine.

In: the arguments of database/ledger.py. Out: generators that wait for row locks; rows as dicts. Promise: the same
effect as `database/migrations/0002_apply.sql`; test_ledger_conformance.py compares the two.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from hashlib import md5
from typing import Any, Final, NamedTuple

import asyncpg

from database.ledger import STALE_IDENTITIES
from tests.model.store import Statement, Store, Transaction

STARTS: Final = 1_000_000
"""How far apart the generations of two servers are."""
POISON: Final = b"poison"
"""A series whose key begins so is refused by the database: its data are at fault."""


class Gap(NamedTuple):
    """A row of `gaps`."""

    first: int
    end: int
    before: int
    after: int
    window_before: int
    window_after: int


class Producer(NamedTuple):
    """A row of `producers`, with its gaps; ranges of seqs as bits of a number."""

    producer_id: bytes
    service: str
    shard: int
    applied: int = 0
    quarantined: int = 0
    top_seq: int = 0
    top_sealed: int = 0
    accepted: int = 0
    dropped: str = "{}"
    committed: int = 0
    quarantined_events: int = 0
    duplicates: int = 0
    displaced: int = 0
    watermark_s: int = 0
    offset_us: int = 0
    uncertainty_us: int = 0
    fin: bool = False
    gaps: tuple[Gap, ...] = ()

    def knows(self, seq: int) -> bool:
        """Whether a seq is accounted for."""
        return bool((self.applied | self.quarantined) >> seq & 1)


class Run(NamedTuple):
    """Consecutive new seqs [lo, hi) of one producer."""

    lo: int
    hi: int
    before: int
    after: int
    window_lo: int
    window_hi: int


@lru_cache(maxsize=4096)
def bits(ranges: str) -> int:
    """Read an int8multirange such as `{[1,3),[5,6)}`."""
    found = 0
    for part in ranges.strip("{}").replace("),", ")|").split("|"):
        if part:
            low, high = part.strip("[)").split(",")
            found |= (1 << int(high)) - (1 << int(low))
    return found


@lru_cache(maxsize=65_536)
def array(said: str) -> tuple[Any, ...]:
    """Read PostgreSQL's text of an array of numbers."""
    return tuple(json.loads(f"[{said[1:-1]}]"))


def book_run(p: Producer, run: Run) -> Producer:
    """Book a run against the gaps, as book_run does."""
    if run.lo > p.top_seq:
        gaps = p.gaps
        if run.lo > p.top_seq + 1:
            after = max(run.before, p.top_sealed)
            gaps = (*gaps, Gap(p.top_seq + 1, run.lo, p.top_sealed, after, p.watermark_s, run.window_lo))
        top = (run.hi - 1, max(run.after, p.top_sealed), max(p.watermark_s, run.window_hi))
        return p._replace(gaps=gaps, top_seq=top[0], top_sealed=top[1], watermark_s=top[2])
    g = next((g for g in p.gaps if g.first <= run.lo and g.end >= run.hi), None)
    if g is None:
        raise asyncpg.RaiseError(f"BUG: seqs {run.lo}..{run.hi} are neither new nor in a gap")
    gaps = tuple(other for other in p.gaps if other is not g)
    if g.first < run.lo:
        gaps = (*gaps, g._replace(end=run.lo, after=max(run.before, g.before), window_after=run.window_lo))
    if run.hi < g.end:
        gaps = (*gaps, g._replace(first=run.hi, before=min(run.after, g.after), window_before=run.window_hi))
    return p._replace(gaps=gaps)


def apply_fold(store: Store, tx: Transaction, *a: Any) -> Statement:
    """The exactly-once step; returns the seqs that are accounted for already, and changes nothing then."""
    generation, consumer, text = a[:3]
    fold = json.loads(text)
    batch_producers, batch_seqs, *totals = (array(each) for each in (*a[3:13], a[17]))
    already = yield from lock_and_check(
        store, tx, generation - store.started * STARTS, fold["producers"], batch_producers, batch_seqs
    )
    if already:
        return already
    _book(store, tx, fold)
    yield from _add_totals(store, tx, *totals[:-1])
    commit_id = store.next_value("commits")
    store_row(tx, "commits", commit_id, (consumer, len(batch_seqs), fold["events"], totals[-1]))
    for run in fold["runs"]:
        _remember(store, tx, (run["no"], run["lo"]), tuple(run["checksums"]))
    return []


def _remember(store: Store, tx: Transaction, key: tuple[int, int], checksums: tuple[int, ...]) -> None:
    if store.get(tx, "checksums", key) is None:
        store_row(tx, "checksums", key, checksums)


def store_row(tx: Transaction, table: str, key: Any, value: Any) -> None:
    """Write a row that the transaction may write."""
    tx.rows[table, key] = value


def lock_and_check(
    store: Store, tx: Transaction, generation: int, producers: Any, nos: Sequence[int], seqs: Sequence[int]
) -> Statement:
    """Lock the producers' rows in key order; return those of the seqs that are accounted for."""
    tx.shares = True
    if store.get(tx, "state", 0) != generation:
        raise stale("generation changed")
    wanted = sorted({p["no"] for p in producers})
    for no in wanted:
        yield from store.lock(tx, "producers", no)
    if any(store.get(tx, "producers", no) is None for no in wanted):
        raise stale("a producer row is gone")
    rows = {no: store.get(tx, "producers", no) for no in wanted}
    return [{"producer_no": no, "seq": seq} for no, seq in zip(nos, seqs, strict=True) if is_known(rows[no], seq)]


def is_known(p: Producer, seq: int) -> bool:
    """Whether the ledger accounts for a seq."""
    return p.knows(seq)


def stale(text: str) -> Exception:
    """Say that cached numbers are over."""
    return asyncpg.PostgresError.new({"S": "ERROR", "C": STALE_IDENTITIES, "M": text})


def _book(store: Store, tx: Transaction, fold: Any) -> None:
    runs: dict[int, list[Run]] = {}
    for r in fold["runs"]:
        runs.setdefault(r["no"], []).append(
            Run(r["lo"], r["hi"], r["before"], r["after"], r["window_lo"], r["window_hi"])
        )
    for n in fold["producers"]:
        p: Producer = store.get(tx, "producers", n["no"])
        for run in sorted(runs.get(n["no"], [])):
            p = book_run(p, run)
        store_row(tx, "producers", n["no"], advance(p, n))


def advance(p: Producer, n: Any) -> Producer:
    """Add one record of a fold to its row."""
    newer = n["accepted"] > 0
    return p._replace(
        applied=p.applied | bits(n["applied"]),
        committed=p.committed + n["events"],
        quarantined_events=p.quarantined_events + n["quarantined"],
        duplicates=p.duplicates + n["duplicates"],
        displaced=p.displaced + n["displaced"],
        accepted=max(p.accepted, n["accepted"]),
        dropped=_json(n["dropped"]) if newer and n["accepted"] >= p.accepted else p.dropped,
        offset_us=n["offset_us"] if newer else p.offset_us,
        uncertainty_us=n["uncertainty_us"] if newer else p.uncertainty_us,
        fin=p.fin or n["fin"],
    )


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _add_totals(
    store: Store,
    tx: Transaction,
    widths: Sequence[int],
    sizes: Sequence[int],
    ids: Sequence[int],
    layouts: Sequence[int],
    shards: Sequence[int],
    ns: Sequence[int],
    sums: Sequence[float],
    les: Sequence[int],
) -> Statement:
    at = le_at = 0
    for width, size in zip(widths, sizes, strict=True):
        for i in range(at, at + size):
            key = (ids[i], layouts[i], shards[i])
            yield from store.lock(tx, "totals", key)
            if (series := store.get(tx, "series", ids[i])) is not None and series[1].startswith(POISON):
                raise asyncpg.NumericValueOutOfRangeError("value out of range")
            n, total, le = store.get(tx, "totals", key) or (0, 0.0, (0,) * width)
            added = les[le_at : le_at + width]
            le_at += width
            store_row(tx, "totals", key, (n + ns[i], total + sums[i], tuple(map(sum, zip(le, added, strict=True)))))
        at += size


def quarantine_batch(store: Store, tx: Transaction, *a: Any) -> Statement:
    """Account for the seq of a batch that cannot be applied; False: it was accounted for."""
    (
        shard,
        stream_id,
        reason,
        _,
        no,
        producer_id,
        seq,
        events,
        before,
        after,
        window_s,
        accepted,
        dropped,
        raw,
        checksum,
    ) = a
    yield from store.lock(tx, "producers", no)
    p: Producer | None = store.get(tx, "producers", no)
    if p is None or p.producer_id != producer_id.bytes:
        raise stale("a producer row is gone")
    if is_known(p, seq):
        store_row(tx, "producers", no, p._replace(duplicates=p.duplicates + 1))
        return False
    if before is None:
        g = next((g for g in p.gaps if g.first <= seq < g.end), None)
        before = p.top_sealed if g is None else g.before
        after, window_s = before + events, max(window_s, p.watermark_s)
        if seq > p.top_seq:
            accepted, dropped = p.accepted + events, p.dropped
    p = book_run(p, Run(seq, seq + 1, before, after, window_s, window_s))
    p = p._replace(
        quarantined=p.quarantined | 1 << seq,
        quarantined_events=p.quarantined_events + events,
        dropped=_json(json.loads(dropped)) if accepted is not None and accepted >= p.accepted else p.dropped,
        accepted=max(p.accepted, accepted or 0),
    )
    store_row(tx, "producers", no, p)
    yield from quarantine_entry(store, tx, shard, stream_id, reason, "", producer_id, seq, events, raw)
    _remember(store, tx, (no, seq), (checksum,))
    return True


def quarantine_entry(store: Store, tx: Transaction, *a: Any) -> Statement:
    """Keep an entry; once."""
    shard, stream_id, reason, _, producer_id, seq, events, raw = a
    key = (shard, stream_id, str(reason), md5(raw, usedforsecurity=False).hexdigest())
    yield from store.lock(tx, "quarantine", key)
    if store.get(tx, "quarantine", key) is None:
        store_row(tx, "quarantine", key, (producer_id.bytes if producer_id else b"", seq or 0, events or 0))


def park(store: Store, tx: Transaction, *a: Any) -> Statement:
    """Keep an entry for later; nothing where another content has its seq."""
    _, _, reason, version, producer_id, seq, events, raw = a
    key = (producer_id.bytes, seq)
    yield from store.lock(tx, "parked", key)
    known = store.get(tx, "parked", key)
    if known is not None and known[-1] != raw:
        return []
    store_row(tx, "parked", key, (str(reason), version, events, raw))
    return [{"kept": True}]


def find_conflicts(store: Store, tx: Transaction, *a: Any) -> list[Any]:
    """Return places of seqs that were applied with another checksum."""
    found: list[Any] = []
    known = store.scan(tx, "checksums")
    for place, (no, seq, checksum) in enumerate(zip(*a, strict=True), 1):
        first = max((first for other, first in known if other == no and first <= seq), default=0)
        checksums = known.get((no, first), ())
        if first and seq - first < len(checksums) and checksums[seq - first] != checksum:
            found.append({"place": place})
    return found
