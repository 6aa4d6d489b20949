"""Quarantine: keeps what cannot be applied with its bytes and reason, and parks what only must not be applied now.

In: entries, with what is known of them. Out: rows in PostgreSQL; once a call returns, the entry may be acknowledged.
Promise: a seq is accounted for only where its envelope can be trusted; what PostgreSQL refuses to account for is kept
all the same.
"""

import logging
from collections.abc import Sequence

import asyncpg

from aggregator.decode import Booked, Decoded, Entry
from aggregator.lanes import Lane
from contract.batch import BatchError, Envelope
from contract.crash import CrashPoint
from contract.reasons import Parked, Quarantined
from database.connect import is_data_fault
from database.ledger import Accounting, SetAside, find_conflicts, park, quarantine_batch, quarantine_raw

log = logging.getLogger(__name__)


class Quarantine:
    """Where entries go that are not folded."""

    def __init__(self, crash: CrashPoint) -> None:
        self._crash = crash

    async def refuse(
        self, lane: Lane, entry: Entry, envelope: Envelope | None, batch: Decoded | None, error: BatchError
    ) -> None:
        """Set an entry aside; its seq is accounted for only where the envelope can be trusted."""
        log.warning("entry_quarantined", extra={"stream_id": entry.stream_id, "error": str(error)})
        raw = SetAside(entry.shard, entry.stream_id, error.reason, str(error), None, None, None, entry.data)
        if envelope is None or error.reason is Quarantined.SEQ_JUMP:
            await quarantine_raw(lane.pool, raw)
        else:
            await self._account(lane, raw, entry, envelope, batch)
        self._crash.reach("after_quarantine")

    async def _account(
        self, lane: Lane, raw: SetAside, entry: Entry, envelope: Envelope, batch: Decoded | None
    ) -> None:
        identity = {"producer_id": envelope.producer_id, "seq": envelope.seq, "events": envelope.events}
        try:
            number = await lane.identities.producer_number(envelope.producer_id, batch, entry.shard)
            await quarantine_batch(lane.pool, raw._replace(**identity), _accounting(number, batch))
        except asyncpg.PostgresError as fault:
            if not is_data_fault(fault):
                raise
            log.warning("entry_not_accounted", extra={"stream_id": entry.stream_id, "error": str(fault)})
            await quarantine_raw(lane.pool, raw)

    async def park(self, lane: Lane, entry: Entry, envelope: Envelope, reason: Parked) -> None:
        """Keep a valid entry until somebody may fold it."""
        log.warning("entry_parked", extra={"stream_id": entry.stream_id, "reason": str(reason)})
        identity = (envelope.producer_id, envelope.seq, envelope.events)
        record = SetAside(entry.shard, entry.stream_id, reason, "", *identity, entry.data)
        await park(lane.pool, record, envelope.version)

    async def keep_conflicts(self, lane: Lane, known: Sequence[Booked]) -> None:
        """A known seq with another checksum is no duplicate: forged, corrupted, or of a producer that runs twice."""
        found = await find_conflicts(lane.pool, [(*b.identity, b.batch.short_checksum) for b in known])
        for at in found:
            entry, envelope = known[at].batch.entry, known[at].batch.envelope
            log.error("batch_conflict", extra={"stream_id": entry.stream_id, "seq": envelope.seq})
            text = f"seq {envelope.seq} of {envelope.producer_id.hex()} was applied with another checksum"
            record = SetAside(entry.shard, entry.stream_id, Quarantined.CONFLICT, text, None, None, None, entry.data)
            await quarantine_raw(lane.pool, record)


def _accounting(number: int, batch: Decoded | None) -> Accounting:
    if batch is None:
        return Accounting(number, None, None, 0, None, {})
    body = batch.body
    return Accounting(number, batch.sealed_before, batch.sealed_after, body.window_start_s, body.accepted, body.dropped)
