"""The ledger side of the audit: each producer's terms, and whether its seqs are all accounted for once.

In: one snapshot of the ledger, and the entries that the streams held before it. Out: terms and findings.
Promise: pure but for the reading; a finding names its producer and seq, or its stream entry.
"""

import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from database.connect import Connection
from database.findings import Finding
from database.queries import load
from database.retained import Retained

Spans = list[tuple[int, int]]
"""Half-open ranges of seqs, sorted, disjoint."""


class Term(NamedTuple):
    """One producer's events (or the sum of a service's retired producers)."""

    who: str
    accepted: int
    committed: int
    dropped: dict[str, int]
    quarantined: int
    lost: int
    in_flight: int

    def finding(self) -> list[Finding]:
        """Return the finding that accepted is not the sum of the others, if so."""
        parts = self.committed + sum(self.dropped.values()) + self.quarantined + self.lost + self.in_flight
        return [] if parts == self.accepted else [Finding("balance", self.who, self.accepted, parts)]


class Gap(NamedTuple):
    """A row of `gaps`."""

    first: int
    end: int
    events: int
    closed: bool


class Row(NamedTuple):
    """A producer's ledger row with its gaps."""

    number: int
    producer_id: bytes
    applied: Spans
    quarantined: Spans
    gaps: list[Gap]
    top: int
    top_sealed: int
    accepted: int
    dropped: dict[str, int]
    committed: int
    quarantined_events: int

    @property
    def who(self) -> str:
        """Name the producer for a person."""
        return f"producer {self.producer_id.hex()}"


def holds(spans: Spans, seq: int) -> bool:
    """Whether `seq` lies in one of the ranges."""
    at = bisect_right(spans, (seq, 1 << 63)) - 1
    return at >= 0 and spans[at][0] <= seq < spans[at][1]


class Ledger(NamedTuple):
    """The ledger in one snapshot."""

    rows: dict[bytes, Row]
    parked: dict[tuple[bytes, int], int]
    """Events by producer and seq."""
    retired: list[Term]
    retired_producers: int
    duplicates: int

    @classmethod
    async def read(cls, connection: Connection) -> "Ledger":
        """Read it whole."""
        gaps: dict[int, list[Gap]] = {}
        for g in await connection.fetch(load("audit_gaps")):
            gap = Gap(g["first_seq"], g["end_seq"], g["sealed_after"] - g["sealed_before"], g["closed"])
            gaps.setdefault(g["producer_no"], []).append(gap)
        producers = await connection.fetch(load("audit_producers"))
        parked = await connection.fetch(load("audit_parked"))
        retired = await connection.fetch(load("audit_retired"))
        duplicates = sum(row["duplicates"] for row in (*producers, *retired))
        return cls(
            {p["producer_id"].bytes: _row(p, gaps.get(p["producer_no"], [])) for p in producers},
            {(p["producer_id"].bytes, p["seq"]): p["events"] for p in parked},
            [_retired(row) for row in retired],
            sum(row["producers"] for row in retired),
            duplicates,
        )

    def accounts_for(self, producer_id: bytes, seq: int) -> bool:
        """Whether a seq is applied, quarantined or parked."""
        row = self.rows.get(producer_id)
        if row is not None and (holds(row.applied, seq) or holds(row.quarantined, seq)):
            return True
        return (producer_id, seq) in self.parked

    def has(self, entry: Retained) -> bool:
        """Whether it accounts for a stream entry."""
        e = entry.envelope
        return e is not None and self.accounts_for(e.producer_id, e.seq)

    def applied(self, producer_id: bytes, seq: int) -> bool:
        """Whether a seq is applied."""
        row = self.rows.get(producer_id)
        return row is not None and holds(row.applied, seq)

    def faults(self) -> list[Finding]:
        """Return what is wrong within the ledger: seqs up to the top that no range or more than one range holds."""
        return [finding for row in self.rows.values() for finding in _tiling(row)]


def _row(p: Any, gaps: list[Gap]) -> Row:
    return Row(
        p["producer_no"],
        p["producer_id"].bytes,
        [(r.lower, r.upper) for r in p["applied"]],
        [(r.lower, r.upper) for r in p["quarantined"]],
        gaps,
        p["top_seq"],
        p["top_sealed"],
        p["accepted"],
        json.loads(p["dropped"]),
        p["committed_events"],
        p["quarantined_events"],
    )


def _retired(row: Any) -> Term:
    return Term(
        f"retired producers of {row['service']}",
        row["accepted"],
        row["committed_events"],
        json.loads(row["dropped"]),
        row["quarantined_events"],
        row["lost_events"],
        0,
    )


def _tiling(row: Row) -> list[Finding]:
    named = [(*span, "applied") for span in row.applied] + [(*span, "quarantined") for span in row.quarantined]
    named += [(gap.first, gap.end, "gap") for gap in row.gaps]
    findings: list[Finding] = []
    reached, by = 1, ""
    for first, end, name in sorted(named):
        if first > reached:
            seqs = f"seqs {reached}..{first - 1}"
            findings.append(Finding("ledger", f"{row.who} {seqs}", "applied, quarantined or a gap", "nothing"))
        elif first < reached:
            seqs = f"seqs {first}..{min(reached, end) - 1}"
            findings.append(Finding("ledger", f"{row.who} {seqs}", "one of them", f"{by} and {name}"))
        if end > reached:
            reached, by = end, name
    if reached != row.top + 1:
        low, high = sorted((reached, row.top + 1))
        findings.append(Finding("ledger", f"{row.who} seqs {low}..{high - 1}", f"top {row.top}", f"top {reached - 1}"))
    return findings


async def judge_entries(connection: Connection, ledger: Ledger, entries: Iterable[Retained]) -> list[Finding]:
    """Name entries that cannot be read although nobody set them aside, or that were acknowledged without a trace."""
    aside = {(r["shard"], r["stream_id"], r["digest"]) for r in await connection.fetch(load("audit_quarantine"))}
    ids = {(shard, stream_id) for shard, stream_id, _ in aside}
    findings: list[Finding] = []
    for entry in entries:
        e = entry.envelope
        who = f"{entry.where}" + (f" (producer {e.producer_id.hex()} seq {e.seq})" if e else "")
        if entry.fault is not None:
            # With the checksum intact the seq may be in `quarantined`; else only the bytes kept tell.
            if (entry.shard, entry.stream_id, entry.data.hex()) not in aside and not _quarantined(ledger, entry):
                findings.append(Finding("stream", who, "a batch, or a quarantined entry", entry.fault))
        elif entry.settled and not ledger.has(entry) and (entry.shard, entry.stream_id) not in ids:
            findings.append(Finding("stream", who, "accounted for: it was acknowledged", "not in the ledger"))
    return findings


def _quarantined(ledger: Ledger, entry: Retained) -> bool:
    row = ledger.rows.get(entry.envelope.producer_id) if entry.envelope else None
    return row is not None and entry.envelope is not None and holds(row.quarantined, entry.envelope.seq)


def balance(ledger: Ledger, entries: Iterable[Retained]) -> tuple[list[Term], list[Finding]]:
    """Return each producer's terms, retired ones summed, and a finding for each that does not add up."""
    waiting = _waiting(ledger, entries)
    terms = list(ledger.retired)
    findings: list[Finding] = []
    for producer_id in ledger.rows.keys() | waiting.keys():
        row = ledger.rows.get(producer_id) or Row(0, producer_id, [], [], [], 0, 0, 0, {}, 0, 0)
        terms.append(_term(row, waiting.get(producer_id, [])))
    for term in terms:
        findings += term.finding()
    return terms, findings


class _Waiting(NamedTuple):
    """A batch above its producer's top: what it holds, and the cumulative counts it carries (None: unknown)."""

    seq: int
    events: int
    accepted: int | None
    dropped: dict[str, int]


def _waiting(ledger: Ledger, entries: Iterable[Retained]) -> dict[bytes, list[_Waiting]]:
    """Collect, by producer and in order of seq, batches above the top that are in a stream or parked."""
    found: dict[tuple[bytes, int], _Waiting] = {}
    for (producer_id, seq), events in ledger.parked.items():
        found[producer_id, seq] = _Waiting(seq, events, None, {})
    for entry in entries:
        e, body = entry.envelope, entry.body
        if e is not None and (entry.fault is None or body is not None):
            accepted, dropped = (body.accepted, body.dropped) if body else (None, dict[str, int]())
            found[e.producer_id, e.seq] = _Waiting(e.seq, e.events, accepted, dropped)
    by_producer: dict[bytes, list[_Waiting]] = {}
    for (producer_id, seq), each in sorted(found.items()):
        row = ledger.rows.get(producer_id)
        if row is None or seq > row.top:
            by_producer.setdefault(producer_id, []).append(each)
    return by_producer


def _term(row: Row, waiting: Sequence[_Waiting]) -> Term:
    """Add up one producer: below its top the ledger speaks, above it the batches that wait."""
    in_flight = sum(gap.events for gap in row.gaps if not gap.closed)
    accepted, dropped, sealed = row.accepted, row.dropped, row.top_sealed
    for each in waiting:
        if each.accepted is None:
            accepted, sealed = accepted + each.events, sealed + each.events
        else:
            before = each.accepted - sum(each.dropped.values()) - each.events
            # Seqs that are in no stream yet, or in none any more: the producer's own counts bridge them.
            in_flight += before - sealed
            accepted, dropped, sealed = each.accepted, each.dropped, before + each.events
        in_flight += each.events
    lost = sum(gap.events for gap in row.gaps if gap.closed)
    return Term(row.who, accepted, row.committed, dropped, row.quarantined_events, lost, in_flight)
