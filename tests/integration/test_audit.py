"""The audit on real servers: ok on a healthy store, and each corruption by hand is named."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from contract.batch import Envelope
from contract.streams import FIELD, stream_key
from database import audit, retained, upkeep
from database.findings import Finding
from database.retained import Retained
from tests.rig import COUNTER, GAUGE, HISTOGRAM, PRODUCER, Rig, open_rig


@pytest.fixture
async def rig(dsn: str, redis_url: str) -> AsyncIterator[Rig]:
    """Three committed batches."""
    async with open_rig(dsn, redis_url) as opened:
        yield opened


async def test_a_healthy_store_is_ok_at_every_stage(rig: Rig) -> None:
    first = await rig.audit()
    assert first.findings == []
    assert (first.accepted, first.committed, first.dropped, first.in_flight) == (23, 21, 2, 0)
    assert first.dropped_by_reason == {"nonfinite": 2}
    await rig.roll_up()
    assert (await rig.audit()).findings == []
    await rig.commit()
    assert (await rig.audit()).findings == []
    async with upkeep.locked(rig.pool, None) as connection:
        assert connection is not None
        await upkeep.compact_closed(connection)
    assert (await rig.audit()).findings == []


async def test_what_waits_in_the_stream_is_in_flight(rig: Rig) -> None:
    await rig.emit(rig.seal())
    lost = rig.seal()
    await rig.emit(rig.seal())
    report = await rig.audit()
    assert (report.findings, report.in_flight, report.accepted) == ([], 21, 44)
    await rig.store.commit(lost)
    report = await rig.audit()
    assert (report.findings, report.committed, report.in_flight) == ([], 28, 14)


async def test_what_is_accounted_for_is_not_held(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream may hold more than fits into memory: the ledger is asked again and again."""
    held: list[Retained] = []

    async def judge(_: object, ledger: object, entries: list[Retained]) -> list[Finding]:
        held.extend(entries)
        return []

    monkeypatch.setattr(audit, "HELD", 2)
    monkeypatch.setattr(audit, "judge_entries", judge)
    for _ in range(3):
        await rig.emit(rig.seal())
    report = await rig.audit()
    assert (report.findings, report.in_flight) == ([], 21)
    assert [entry.stream_id.encode() for entry in held] == [rig.ids[seq] for seq in (4, 5, 6)]


async def test_a_closed_gap_is_lost(rig: Rig) -> None:
    rig.seal()
    await rig.commit()
    await rig.pool.execute("UPDATE gaps SET closed_at = now()")
    report = await rig.audit()
    assert (report.findings, report.lost, report.committed) == ([], 7, 28)


@pytest.mark.parametrize("level", ["10s", "1m", "1h"])
@pytest.mark.parametrize("change", ["n = n + 1", "sum = sum * 1.000001"])
async def test_a_changed_rollup_row_is_named(rig: Rig, level: str, change: str) -> None:
    await rig.roll_up()
    await rig.pool.execute(
        f"UPDATE rollup_{level} SET {change} WHERE series_id = (SELECT series_id FROM series WHERE key = $1)",
        COUNTER.decode(),
    )
    named = await rig.culprit()
    assert f"levels: rollup_{level} {COUNTER.decode()}" in named
    assert GAUGE.decode() + " " not in named.replace(COUNTER.decode(), "")


async def test_a_deleted_part_is_named(rig: Rig) -> None:
    await rig.pool.execute("DELETE FROM parts WHERE ctid = (SELECT min(ctid) FROM parts) AND sketch IS NULL")
    assert f"levels: rollup_10s {COUNTER.decode()}" in await rig.culprit()


async def test_a_changed_sketch_is_named(rig: Rig) -> None:
    await rig.roll_up()
    await rig.pool.execute(r"UPDATE rollup_1m SET sketch = '\x0201' WHERE sketch IS NOT NULL")
    assert f"sketches: rollup_1m {HISTOGRAM.decode()} window {rig.window_s}" in await rig.culprit()


async def test_a_changed_bucket_count_is_named(rig: Rig) -> None:
    await rig.pool.execute("UPDATE totals SET le[1] = le[1] + 1 WHERE le IS NOT NULL")
    assert f"buckets: totals {HISTOGRAM.decode()}" in await rig.culprit()


@pytest.mark.parametrize(
    ("change", "seqs"),
    [
        ("applied = applied - '{[2,3)}'::int8multirange", "seqs 2..2"),
        ("applied = applied + '{[4,9)}'::int8multirange", "seqs 4..8"),
        ("quarantined = '{[1,2)}'", "seqs 1..1"),
    ],
)
async def test_a_changed_ledger_interval_is_named(rig: Rig, change: str, seqs: str) -> None:
    await rig.pool.execute(f"UPDATE producers SET {change}")
    assert f"ledger: producer {PRODUCER.hex()} {seqs}" in await rig.culprit()


async def test_a_ledger_set_back_as_a_whole_is_found_in_the_stream(rig: Rig) -> None:
    await rig.pool.execute(
        "UPDATE producers SET applied = '{[1,3)}', top_seq = 2, top_sealed = 14, accepted = 16, committed_events = 14"
    )
    named = await rig.culprit()
    assert f"stream: {stream_key(0)} {rig.ids[3].decode()} (producer {PRODUCER.hex()} seq 3)" in named
    assert "sums: totals against producers.committed_events" in named


@pytest.mark.parametrize("column", ["committed_events", "accepted", "top_sealed"])
async def test_a_changed_counter_of_the_ledger_is_named(rig: Rig, column: str) -> None:
    await rig.pool.execute(f"UPDATE producers SET {column} = {column} + 1")
    if column == "top_sealed":
        await rig.emit(rig.seal())
    assert f"balance: producer {PRODUCER.hex()}" in await rig.culprit()


async def test_a_corrupted_stream_entry_is_named(rig: Rig) -> None:
    entries = await rig.link.xrange(stream_key(0))
    await rig.link.delete(stream_key(0))
    for number, (entry_id, fields) in enumerate(entries):
        data = bytearray(fields[FIELD])
        if number == 1:
            data[-3] ^= 4
        await rig.link.xadd(stream_key(0), {FIELD: bytes(data)}, id=entry_id)
    assert f"stream: {stream_key(0)} {entries[1][0].decode()}" in await rig.culprit()


async def test_a_quarantined_entry_is_no_finding(rig: Rig) -> None:
    entry_id = await rig.link.xadd(stream_key(0), {FIELD: b"nonsense"})
    assert f"stream: {stream_key(0)} {entry_id.decode()}" in await rig.culprit()
    await rig.pool.execute(
        "INSERT INTO quarantine (shard, stream_id, reason, detail, payload) VALUES (0, $1, 'truncated', '', $2)",
        entry_id.decode(), b"nonsense",
    )  # fmt: skip
    assert (await rig.audit()).findings == []


async def test_retired_producers_stay_in_the_sums(rig: Rig) -> None:
    await rig.pool.execute("UPDATE producers SET last_seen = now() - interval '8 days'")
    await rig.link.delete(stream_key(0))
    await rig.roll_up()
    assert await rig.pool.fetchval("SELECT count(*) FROM producers WHERE producer_id = $1", UUID(bytes=PRODUCER)) == 0
    report = await rig.audit()
    assert (report.findings, report.accepted, report.committed, report.producers) == ([], 23, 21, 1)
    await rig.pool.execute("UPDATE retired SET lost_events = 1")
    assert "balance: retired producers of test" in await rig.culprit()


async def test_entry_that_ends_its_decoder_does_not_end_the_audit(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known by where it stands: what is kept of it is not decoded again."""
    data = b"SGB1 deadly"
    (entry_id,) = [await rig.link.xadd(stream_key(0), {FIELD: data})]
    read = retained.read_envelope

    def read_or_die(given: bytes) -> Envelope:
        assert given != data, "this would have ended the process"
        return read(given)

    monkeypatch.setattr(retained, "read_envelope", read_or_die)
    await rig.pool.execute(
        "INSERT INTO quarantine (shard, stream_id, reason, detail, payload) VALUES (0, $1, 'crashed', '', $2)",
        entry_id.decode(),
        data,
    )
    assert (await rig.audit()).ok
