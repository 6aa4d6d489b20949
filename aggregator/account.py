"""Account: what a fold's batches say of their producers, for the ledger.

In: the batches of a fold. Out: one record per producer and one per run of consecutive seqs.
Promise: every event of every batch is in exactly one of `events` and `quarantined`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from aggregator.decode import Booked, Decoded
from aggregator.identities import conflicting_metrics
from contract.reasons import Quarantined
from database.ledger import Fold, SetAside


def account(out: Fold, booked: Sequence[Booked], duplicates: dict[int, int]) -> None:
    """Fill the ledger side of `out` from distinct batches; `duplicates` counts those left out, by producer."""
    by_producer: dict[int, list[Booked]] = {no: [] for no in duplicates}
    for b in booked:
        by_producer.setdefault(b.producer_no, []).append(b)
        out.batch_producers.append(b.producer_no)
        out.batch_seqs.append(b.batch.envelope.seq)
    for number in sorted(by_producer):
        batches = sorted(by_producer[number], key=lambda b: b.batch.envelope.seq)
        runs = _runs(number, batches)
        quarantined = sum(_conflicts(out, b.batch) for b in batches)
        events = sum(b.batch.envelope.events for b in batches) - quarantined
        out.events += events
        out.runs += runs
        out.producers.append(_record(number, batches, runs, events, quarantined, duplicates.get(number, 0)))


def _runs(number: int, batches: Sequence[Booked]) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = []
    for b in batches:
        d, seq = b.batch, b.batch.envelope.seq
        if runs and runs[-1]["hi"] == seq:
            runs[-1]["checksums"].append(d.envelope.short_checksum)
            runs[-1] |= {"hi": seq + 1, "after": d.sealed_after, "window_hi": d.body.window_start_s}
            continue
        runs.append(
            {
                "no": number,
                "lo": seq,
                "hi": seq + 1,
                "before": d.sealed_before,
                "after": d.sealed_after,
                "window_lo": d.body.window_start_s,
                "window_hi": d.body.window_start_s,
                "checksums": [d.envelope.short_checksum],
            }
        )
    return runs


def _record(
    number: int, batches: Sequence[Booked], runs: list[dict[str, Any]], events: int, quarantined: int, duplicates: int
) -> dict[str, Any]:
    last = batches[-1].batch.body if batches else None
    return {
        "no": number,
        "applied": "{" + ",".join(f"[{run['lo']},{run['hi']})" for run in runs) + "}",
        "events": events,
        "quarantined": quarantined,
        "duplicates": duplicates,
        "displaced": sum(b.displaced for b in batches),
        "accepted": last.accepted if last else 0,
        "dropped": last.dropped if last else {},
        "offset_us": last.clock_offset_us if last else 0,
        "uncertainty_us": last.clock_uncertainty_us if last else 0,
        "fin": any(b.batch.body.fin for b in batches),
    }


def _conflicts(out: Fold, batch: Decoded) -> int:
    """Set aside the columns of metrics known as another kind; returns how many events they hold."""
    conflicted = batch.block.conflicted
    if conflicted is None:
        return 0
    n = np.concatenate((batch.counter_n, batch.gauge_n, batch.sample_n, batch.merged_n))
    events = int(n[conflicted].sum())
    names = ", ".join(conflicting_metrics(batch))
    entry, envelope = batch.entry, batch.envelope
    out.conflicts.append(
        SetAside(
            entry.shard,
            entry.stream_id,
            Quarantined.KIND_CONFLICT,
            f"known as another kind: {names}",
            envelope.producer_id,
            envelope.seq,
            events,
            entry.data,
        )
    )
    return events
