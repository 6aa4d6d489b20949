"""Audit: proves that every accepted event is committed, dropped, quarantined, lost or in flight, and is where it
should be; names what is not.

In: a pool (one schema) and a Redis client. Out: a Report. Promise: each term is read from its own source, none is
found by subtraction; live traffic raises no false alarm: the streams are read first, then everything in PostgreSQL
in one snapshot, and what was committed in between is found there.
"""

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from hashlib import md5
from typing import Any, Final

import msgspec

from contract.batch import Body
from contract.reasons import Quarantined
from database.audit_ledger import Ledger, Term, balance, judge_entries
from database.audit_levels import check_levels, check_sketches
from database.connect import Connection, Pool, acquire, transaction
from database.findings import Finding
from database.queries import load
from database.retained import Retained, retained

LIMITS: Final = "SET statement_timeout = '600s'; SET idle_in_transaction_session_timeout = '600s'"
CALL_TIMEOUT_S: Final = 610.0
HELD: Final = 10_000
"""Entries, of 1 kB or so, that are read before the ledger is asked which of them it knows."""


class Report(msgspec.Struct):
    """What an audit found. All terms are events, `duplicates` batches."""

    ok: bool
    accepted: int
    committed: int
    dropped: int
    quarantined: int
    lost: int
    in_flight: int
    duplicates: int
    producers: int
    dropped_by_reason: dict[str, int]
    findings: list[Finding]


async def audit(pool: Pool, link: Any, run_id: str | None = None) -> Report:
    """Audit one schema: that of real traffic, or (with a pool on it) that of a load-test run."""
    entries = await _entries(pool, link, run_id)
    async with snapshot(pool) as connection:
        ledger = await Ledger.read(connection)
        findings = [*await judge_entries(connection, ledger, entries), *ledger.faults()]
        terms, unbalanced = balance(ledger, entries)
        findings += unbalanced
        findings += await _check_sums(connection)
        findings += await check_levels(connection)
        findings += await check_sketches(connection)
    return _report(ledger, terms, findings)


async def _entries(pool: Pool, link: Any, run_id: str | None) -> list[Retained]:
    """Return what the streams hold, but for what was accounted for meanwhile: all of it may not fit into memory."""
    found: list[Retained] = []
    most = 0
    async for entry in retained(link, unread=await _crashing(pool)):
        # Entries of other runs have their ledger elsewhere; what cannot be read belongs to real traffic.
        if (entry.body.run_id if entry.body else None) != run_id:
            continue
        found.append(_light(entry))
        if len(found) > most:
            async with acquire(pool) as connection:
                ledger = await Ledger.read(connection)
            found = [e for e in found if e.fault is not None or not ledger.has(e)]
            most = len(found) + HELD
    return found


async def _crashing(pool: Pool) -> frozenset[tuple[int, str]]:
    async with acquire(pool) as connection:
        rows = await connection.fetch(load("crashing_entries"), Quarantined.CRASHED)
    return frozenset((row["shard"], row["stream_id"]) for row in rows)


def _light(entry: Retained) -> Retained:
    """Keep a readable entry without its bytes."""
    if entry.fault is None:
        entry.data = b""
        if entry.body is not None:
            light = {name: getattr(entry.body, name) for name in ("service", "accepted", "dropped", "run_id", "fin")}
            entry.body = msgspec.structs.replace(_EMPTY, window_start_s=entry.body.window_start_s, **light)
    else:
        entry.data = md5(entry.data, usedforsecurity=False).digest()
    return entry


_EMPTY: Final = Body("", 0, 0, 0, 0, 0, 1, 0, {}, False, None, b"")


@asynccontextmanager
async def snapshot(pool: Pool) -> AsyncGenerator[Connection, None]:
    """Open one snapshot of everything, in which no arrival minute may disappear."""
    async with acquire(pool) as connection:
        await connection.execute(LIMITS)
        if connection.get_server_version().major >= 17:
            await connection.execute("SET transaction_timeout = '1200s'")
        async with transaction(connection, "REPEATABLE READ READ ONLY"):
            # Before the snapshot is taken: compaction may not drop what the snapshot will need.
            await connection.execute(load("lock_parts"))
            yield connection


async def _check_sums(connection: Connection) -> list[Finding]:
    """The totals of all series hold exactly the events that the ledger calls committed."""
    row = await connection.fetchrow(load("audit_sums"), timeout=CALL_TIMEOUT_S)
    assert row is not None, "BUG: a row of sums is always returned"
    findings = [
        Finding("buckets", f"totals {each['key']}", each["n"], each["in_buckets"])
        for each in await connection.fetch(load("audit_buckets"), timeout=CALL_TIMEOUT_S)
    ]
    if row["in_ledger"] != row["in_totals"]:
        findings.append(
            Finding("sums", "totals against producers.committed_events", row["in_ledger"], row["in_totals"])
        )
    return findings


def _report(ledger: Ledger, terms: Iterable[Term], findings: list[Finding]) -> Report:
    found = list(terms)
    by_reason: dict[str, int] = {}
    for term in found:
        for reason, count in term.dropped.items():
            by_reason[reason] = by_reason.get(reason, 0) + count
    return Report(
        ok=not findings,
        accepted=sum(t.accepted for t in found),
        committed=sum(t.committed for t in found),
        dropped=sum(by_reason.values()),
        quarantined=sum(t.quarantined for t in found),
        lost=sum(t.lost for t in found),
        in_flight=sum(t.in_flight for t in found),
        duplicates=ledger.duplicates,
        producers=len(found) - len(ledger.retired) + ledger.retired_producers,
        dropped_by_reason=by_reason,
        findings=findings,
    )
