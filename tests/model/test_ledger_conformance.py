"""The simulated ledger is the real one: the same folds leave the same rows in both, and answer the same.

Without this a model check would check the model.
"""

import json
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from random import Random
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

import msgspec
import numpy as np
import pytest

from aggregator.decode import BlockCache, Booked, Entry, decode
from aggregator.fold import fold
from contract.batch import read_envelope
from database.admission import register_producers
from database.connect import Pool, acquire, open_pool
from database.ledger import Accounting, SetAside, apply, find_conflicts, quarantine_batch, read_generation
from database.settings import PostgresSettings
from tests.batches import make_batch
from tests.model.ledger import Producer, bits
from tests.model.sessions import Pool as SimulatedPool
from tests.model.store import Store
from tests.model.tasks import BLOCKED, Process

pytestmark = pytest.mark.timeout(600)

SEQUENCES: Final = 200
STEPS: Final = 7
SEQS: Final = 12
OF_EACH: Final = 3
"""Producers of a sequence; each sequence has its own, and series of its own."""
REASON: Final = "malformed"
PRODUCERS: Final = """
SELECT producer_no, producer_id, service, shard, applied::text AS applied, quarantined::text AS quarantined,
       top_seq, top_sealed, accepted, dropped::text AS dropped, committed_events, quarantined_events,
       duplicates, displaced, watermark_s, clock_offset_us, clock_uncertainty_us, fin
  FROM producers ORDER BY producer_no
"""
GAPS: Final = """
SELECT producer_no, first_seq, end_seq, sealed_before, sealed_after, window_before_s, window_after_s
  FROM gaps ORDER BY producer_no, first_seq
"""
TOTALS: Final = "SELECT series_id, layout_id, shard, n, sum, coalesce(le, '{}') AS le FROM totals ORDER BY 1, 2, 3"
COMMITS: Final = "SELECT batches, events, series_ids FROM commits ORDER BY commit_id"
CHECKSUMS: Final = "SELECT producer_no, first_seq, checksums FROM checksums ORDER BY 1, 2"
QUARANTINE: Final = "SELECT shard, stream_id, reason, producer_id, seq, events FROM quarantine ORDER BY 1, 2, 3"

TABLES: Final = {
    "producers": PRODUCERS,
    "gaps": GAPS,
    "totals": TOTALS,
    "commits": COMMITS,
    "checksums": CHECKSUMS,
    "quarantine": QUARANTINE,
}


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    opened = await open_pool(PostgresSettings.model_validate({"postgres_dsn": dsn}))
    yield opened
    await opened.close()


class Step(NamedTuple):
    """One commit, or one batch set aside."""

    batches: list[Booked]
    duplicates: dict[int, int]
    is_quarantine: bool


def steps(sequence: int) -> list[Step]:
    """Draw what befalls producers: batches in any order, again, with other contents, with gaps, set aside."""
    draw = Random(sequence)
    nos = [OF_EACH * sequence + i for i in range(1, OF_EACH + 1)]
    sealed = {no: _batches(draw, no, sequence) for no in nos}
    found: list[Step] = []
    for _ in range(STEPS):
        chosen = [draw.choice(sealed[draw.choice(nos)]) for _ in range(draw.randint(0, 5))]
        distinct = list({booked.identity: booked for booked in chosen}.values())
        duplicates = {no: draw.randint(1, 3) for no in nos if draw.random() < 0.2}
        found.append(Step(distinct, duplicates, bool(distinct) and draw.random() < 0.2))
    return found


def id_of(no: int) -> bytes:
    """Return a producer's id."""
    return no.to_bytes(16, "big")


def _batches(draw: Random, no: int, sequence: int) -> list[Booked]:
    accepted = dropped = 0
    found: list[Booked] = []
    window_s = 1_700_000_000
    for seq in range(1, SEQS + 1):
        n, window_s = draw.randint(0, 3), window_s + draw.choice((0, 0, 10))
        accepted, dropped = accepted + n + 2, dropped + draw.choice((0, 0, 1))
        data = make_batch(
            id_of(no),
            seq,
            counters={b"a_total": (n, n * 0.5)},
            histograms={b"h": [0.25, 4.0]},
            bounds=(1.0,),
            window_s=window_s,
            accepted=accepted + dropped,
            dropped={"nonfinite": dropped} if dropped else {},
            fin=seq == SEQS,
        )
        batch = decode(Entry(0, f"{seq}-{no}", data), read_envelope(data), BlockCache())
        batch.block.series_ids = np.array([2 * sequence + 1, 2 * sequence + 2], dtype=np.int64)
        batch.block.layouts = np.array([0, 1], dtype=np.int64)
        clock = {"clock_offset_us": draw.randint(-5, 5), "clock_uncertainty_us": draw.randint(0, 5)}
        batch.body = msgspec.structs.replace(batch.body, **clock)
        found.append(Booked(batch, no, window_s, displaced=draw.random() < 0.1))
    return found


async def take(pool: Any, step: Step, generation: int) -> Any:
    """Do a step; returns what the ledger answered."""
    if step.is_quarantine:
        return [await _set_aside(pool, booked) for booked in step.batches]
    answers: list[Any] = []
    booked, duplicates = step.batches, dict(step.duplicates)
    for _ in range(2):
        folded = replace(fold(booked, 0, duplicates), parts=b"")
        already = sorted(await apply(pool, folded, generation, "test"))
        if not already:
            break
        # Every other one is asked for with another checksum.
        asked = [(*b.identity, b.batch.envelope.short_checksum + i % 2) for i, b in enumerate(booked)]
        answers.append((already, await find_conflicts(pool, asked)))
        for no, _seq in already:
            duplicates[no] = duplicates.get(no, 0) + 1
        booked = [b for b in booked if b.identity not in set(already)]
    return answers


async def _set_aside(pool: Any, booked: Booked) -> bool:
    batch = booked.batch
    envelope, body = batch.envelope, batch.body
    identity = (envelope.producer_id, envelope.seq, envelope.events)
    record = SetAside(0, batch.entry.stream_id, REASON, "", *identity, batch.entry.data)
    identified = (booked.producer_no, envelope.short_checksum)
    known = Accounting(
        *identified, batch.sealed_before, batch.sealed_after, body.window_start_s, body.accepted, body.dropped
    )
    if envelope.seq % 3 == 0:
        known = Accounting(*identified, None, None, 0, None, {})
    return await quarantine_batch(pool, record, known)


def done(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run to its end what asks simulated servers and nobody else."""
    value: Any = None
    while True:
        try:
            request = coroutine.send(value)
        except StopIteration as ended:
            return ended.value
        value = request.perform()
        assert value is not BLOCKED


async def test_the_same_folds_leave_the_same_ledger(pool: Pool) -> None:
    """Some hundred sequences of commits: producers, gaps, totals, checksums, quarantine, and every answer."""
    store = Store()
    simulated = cast("Any", SimulatedPool(store, Process("test")))
    generations = await read_generation(pool), done(read_generation(simulated))
    answered = 0
    for sequence in range(SEQUENCES):
        nos = range(OF_EACH * sequence + 1, OF_EACH * (sequence + 1) + 1)
        for no in nos:
            wanted: dict[bytes, tuple[str, int]] = {id_of(no): ("test", 0)}
            rows = await register_producers(pool, wanted), done(register_producers(simulated, wanted))
            assert rows[0][id_of(no)][:2] == rows[1][id_of(no)][:2], "but for when they were made"
        for number, step in enumerate(steps(sequence)):
            real, model = await take(pool, step, generations[0]), done(take(simulated, step, generations[1]))
            assert real == model, f"sequence {sequence}, step {number}"
            answered += bool(real)
    assert await _real(pool) == _model(store)
    assert answered > SEQUENCES, "duplicates and conflicts were among them"


async def _real(pool: Pool) -> dict[str, list[Any]]:
    async with acquire(pool) as connection:
        return {
            name: [tuple(map(_plain, row.keys(), row.values())) for row in await connection.fetch(query)]
            for name, query in TABLES.items()
        }


def _plain(name: str, value: Any) -> Any:
    """Return a value as the model has it: seqs as the bits of a number, ids as bytes, arrays as tuples."""
    if name in ("applied", "quarantined"):
        return bits(value)
    if name == "dropped":
        return json.loads(value)
    if isinstance(value, UUID):
        return value.bytes
    return tuple(cast("list[Any]", value)) if isinstance(value, list) else value


def _model(store: Store) -> dict[str, list[Any]]:
    tables = store.tables
    producers: dict[int, Producer] = tables["producers"]
    return {
        "producers": [_producer(no, producers[no]) for no in sorted(producers)],
        "gaps": [(no, *gap) for no in sorted(producers) for gap in sorted(producers[no].gaps)],
        "totals": [(*key, *row) for key, row in sorted(tables.get("totals", {}).items())],
        "commits": [tuple(row[1:]) for _, row in sorted(tables.get("commits", {}).items())],
        "checksums": [(*key, row) for key, row in sorted(tables.get("checksums", {}).items())],
        "quarantine": [(*key[:3], *row) for key, row in sorted(tables.get("quarantine", {}).items())],
    }


def _producer(no: int, p: Producer) -> tuple[Any, ...]:
    return (no, *p._replace(dropped=json.loads(p.dropped))[:-1])
