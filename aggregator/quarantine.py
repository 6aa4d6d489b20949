"""Quarantine: keeps what cannot be applied with its bytes and reason, and parks what only must not be applied now.

In: entries, with what is known of them. Out: rows in PostgreSQL; once a call returns, the entry may be acknowledged.
Promise: a seq is accounted for only where its envelope can be trusted; what PostgreSQL refuses to account for is kept
all the same.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import asyncpg

from aggregator.decode import Decoded, Entry
from aggregator.lanes import Lane
from contract.batch import BatchError, Envelope
from contract.crash import CrashPoint
from contract.reasons import Parked, Quarantined
from database.connect import is_data_fault
from database.ledger import Accounting, SetAside, find_conflicts, is_stale, park, quarantine_batch, quarantine_raw

log = logging.getLogger(__name__)


class Claim(NamedTuple):
    """A batch under a seq that is accounted for already."""

    producer_no: int
    entry: Entry
    envelope: Envelope


class Quarantine:
    """Where entries go that are not folded."""

    def __init__(self, crash: CrashPoint) -> None:
        self._crash = crash

    async def refuse(
        self, lane: Lane, entry: Entry, envelope: Envelope | None, batch: Decoded | None, error: BatchError
    ) -> None:
        """Set an entry aside; its seq is accounted for only where the envelope can be trusted."""
        log.warning("entry_quarantined", extra={"stream_id": entry.stream_id, "error": str(error)})
        raw = _raw(entry, error.reason, str(error))
        if envelope is None or error.reason is Quarantined.SEQ_JUMP:
            await quarantine_raw(lane.pool, raw)
        else:
            await self._account(lane, raw, entry, envelope, batch)
        self._crash.reach("after_quarantine")

    async def _account(
        self, lane: Lane, raw: SetAside, entry: Entry, envelope: Envelope, batch: Decoded | None
    ) -> None:
        try:
            producer = await lane.identities.producer(envelope.producer_id, batch, entry.shard)
            if lane.jumps(producer, envelope.seq):
                # It would open a gap of a million batches.
                return await quarantine_raw(lane.pool, raw)
            identity = {"producer_id": envelope.producer_id, "seq": envelope.seq, "events": envelope.events}
            known = _accounting(producer.producer_no, envelope, batch)
            is_fresh = await quarantine_batch(lane.pool, raw._replace(**identity), known)
        except asyncpg.PostgresError as fault:
            if is_stale(fault):
                await lane.identities.forget()
                return await self._account(lane, raw, entry, envelope, batch)
            if not is_data_fault(fault):
                raise
            log.warning("entry_not_accounted", extra={"stream_id": entry.stream_id, "error": str(fault)})
            return await quarantine_raw(lane.pool, raw)
        lane.saw_seq(producer.producer_no, envelope.seq)
        if not is_fresh:
            await self.keep_conflicts(lane, [Claim(producer.producer_no, entry, envelope)])

    async def park(self, lane: Lane, entry: Entry, envelope: Envelope, reason: Parked) -> None:
        """Keep a valid entry until somebody may fold it."""
        log.warning("entry_parked", extra={"stream_id": entry.stream_id, "reason": str(reason)})
        identity = (envelope.producer_id, envelope.seq, envelope.events)
        record = SetAside(entry.shard, entry.stream_id, reason, "", *identity, entry.data)
        if not await park(lane.pool, record, envelope.version):
            await self._keep_conflict(lane, entry, envelope)

    async def keep_conflicts(self, lane: Lane, known: Sequence[Claim]) -> None:
        """A known seq with another checksum is no duplicate: forged, corrupted, or of a producer that runs twice."""
        asked = [(claim.producer_no, claim.envelope.seq, claim.envelope.short_checksum) for claim in known]
        for at in await find_conflicts(lane.pool, asked):
            await self._keep_conflict(lane, known[at].entry, known[at].envelope)

    async def _keep_conflict(self, lane: Lane, entry: Entry, envelope: Envelope) -> None:
        log.error("batch_conflict", extra={"stream_id": entry.stream_id, "seq": envelope.seq})
        text = f"seq {envelope.seq} of {envelope.producer_id.hex()} is accounted for with another checksum"
        await quarantine_raw(lane.pool, _raw(entry, Quarantined.CONFLICT, text))


def _raw(entry: Entry, reason: Quarantined, text: str) -> SetAside:
    """Return an entry of which nothing is believed."""
    return SetAside(entry.shard, entry.stream_id, reason, text, None, None, None, entry.data)


def _accounting(number: int, envelope: Envelope, batch: Decoded | None) -> Accounting:
    checksum = envelope.short_checksum
    if batch is None:
        return Accounting(number, checksum, None, None, 0, None, {})
    body, edges = batch.body, (batch.sealed_before, batch.sealed_after)
    return Accounting(number, checksum, *edges, body.window_start_s, body.accepted, body.dropped)
