"""Explain: which batches make up one series in one window, and what became of each.

In: a snapshot of the ledger, the retained entries, a series key and a window. Out: contributions in stream order.
Promise: reads only; a batch that is not in the stream any more is not guessed at.
"""

from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from contract.batch import BatchError, Body, read_directory
from contract.windows import FUTURE_BOUND_S
from database.audit import snapshot
from database.audit_ledger import Ledger, holds
from database.connect import Pool
from database.queries import load
from database.retained import retained
from database.rollup import moments

_RUNS: Final = (("n_counters", "counter_n", "<u8"), ("n_gauges", "gauge_n", "<u8"), ("n_samples", "sample_n", "<u4"),
                ("n_merged", "merged_n", "<u8"))  # fmt: skip


class Contribution(msgspec.Struct):
    """What one batch holds of the series."""

    stream: str
    producer: str
    seq: int
    service: str
    events: int
    state: str
    """applied, applied again (a duplicate), quarantined, parked, or waiting."""


@dataclass(slots=True)
class Explained:
    """A series in a window: as stored, and where it came from."""

    stored: list[dict[str, Any]]
    contributions: list[Contribution]


async def explain(pool: Pool, link: Any, key: str, window_s: int, run_id: str | None) -> Explained:
    """Collect what the stream and the store know of a series in the window that starts at `window_s`."""
    async with snapshot(pool) as connection:
        ledger = await Ledger.read(connection)
        stored = await connection.fetch(load("explain_rows"), key, moments([window_s])[0])
        found: list[Contribution] = []
        seen: set[tuple[bytes, int]] = set()
        async for entry in retained(link, from_ms=(window_s - FUTURE_BOUND_S) * 1000):
            e, body = entry.envelope, entry.body
            if e is None or body is None or body.window_start_s != window_s or body.run_id != run_id:
                continue
            events = events_of_key(body, key.encode())
            if events is not None:
                state = _state(ledger, e.producer_id, e.seq)
                again = state == "applied" and (e.producer_id, e.seq) in seen
                seen.add((e.producer_id, e.seq))
                who = (entry.where, e.producer_id.hex(), e.seq, body.service)
                found.append(Contribution(*who, events, "applied again (a duplicate)" if again else state))
    return Explained([dict(row) for row in stored], found)


def events_of_key(body: Body, key: bytes) -> int | None:
    """Return how many events of a series a batch holds; None if it does not name the series."""
    try:
        directory = read_directory(body.directory)
    except BatchError:
        return None
    if key not in directory.keys:
        return None
    at = directory.keys.index(key)
    for size, column, kind in _RUNS:
        if at < (count := int(getattr(directory, size))):
            return int(np.frombuffer(getattr(body, column), dtype=kind)[at])
        at -= count
    return None


def _state(ledger: Ledger, producer_id: bytes, seq: int) -> str:
    if ledger.applied(producer_id, seq):
        return "applied"
    row = ledger.rows.get(producer_id)
    if row is not None and holds(row.quarantined, seq):
        return "quarantined"
    return "parked" if (producer_id, seq) in ledger.parked else "waiting"
