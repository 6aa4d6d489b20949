"""Replay, explain, forget and the commands around them, on real servers."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from contract.streams import FIELD, stream_key
from database.explain import explain
from database.forget import find, forget
from database.load_runs import ensure_run
from streamgauge.cli import main
from streamgauge.replay import Replayed, differences, listed, replay
from tests.rig import COUNTER, GAUGE, HISTOGRAM, PRODUCER, Rig, open_rig

PARTED = "UPDATE rollup_10s SET {} WHERE series_id = (SELECT series_id FROM series WHERE key = $1)"


@pytest.fixture
async def rig(dsn: str, redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> AsyncIterator[Rig]:
    """Three committed batches, and an environment in which commands find them."""
    monkeypatch.setenv("POSTGRES_DSN", dsn)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path))
    async with open_rig(dsn, redis_url) as opened:
        yield opened


async def again(rig: Rig) -> Replayed:
    """Replay the window of all batches."""
    return await replay(rig.pool, rig.link, rig.window_s, rig.window_s + 10, None, None)


async def command(*arguments: str) -> int:
    """Run a command as a person does."""
    return await asyncio.to_thread(main, list(arguments))


async def test_replayed_windows_equal_the_stored_ones_before_and_after_compaction(rig: Rig) -> None:
    found = await again(rig)
    assert (found.batches, len(found.rows.series), differences(found)) == (3, 3, [])
    await rig.roll_up()
    await rig.commit()
    found = await again(rig)
    assert (found.batches, differences(found)) == (4, [])
    counter = next(row for row in listed(found) if row["series"] == COUNTER.decode())
    assert (counter["n"], counter["sum"]) == (12, 17.0)


async def test_what_was_not_applied_or_came_twice_does_not_count(rig: Rig) -> None:
    await rig.link.xadd(stream_key(0), (await rig.link.xrange(stream_key(0)))[0][1])
    await rig.emit(rig.seal())
    found = await again(rig)
    assert (found.batches, differences(found)) == (3, [])


@pytest.mark.parametrize(
    ("change", "column"), [("n = n + 1", "n"), ("sum = sum * (1 + 1e-8)", "sum"), (r"sketch = '\x0201'", "sketch")]
)
async def test_verify_names_the_row_that_differs(rig: Rig, change: str, column: str) -> None:
    await rig.roll_up()
    await rig.pool.execute(PARTED.format(change), HISTOGRAM.decode())
    (difference,) = differences(await again(rig))
    assert (difference.series, difference.window_s, difference.column) == (HISTOGRAM.decode(), rig.window_s, column)


async def test_verify_command_exits_1_and_names_the_series(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    window = ("--from", str(rig.window_s), "--to", str(rig.window_s + 10))
    assert await command("replay", *window, "--verify", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["windows"] == 1
    await rig.roll_up()
    await rig.pool.execute(PARTED.format("n = n + 1"), COUNTER.decode())
    assert await command("replay", *window, "--verify") == 1
    assert f"DIFFERS {COUNTER.decode()} window {rig.window_s} n: 10 stored, 9 replayed" in capsys.readouterr().out


async def test_a_window_whose_entries_may_be_trimmed_is_not_judged(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    await rig.link.xdel(stream_key(0), rig.ids[1])
    window = ("--from", str(rig.window_s), "--to", str(rig.window_s + 10))
    assert await command("replay", *window, "--verify", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["windows_not_covered"] == 1


async def test_entries_are_sent_into_another_stream(rig: Rig) -> None:
    assert await command("replay", "--from", "1h", "--into", "elsewhere") == 0
    copied = [fields[FIELD] for _, fields in await rig.link.xrange("elsewhere")]
    assert copied == [fields[FIELD] for _, fields in await rig.link.xrange(stream_key(0))]


async def test_audit_command_exits_1_and_names_the_culprit(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    assert await command("audit", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert report["accepted"] == report["committed"] + report["dropped"] == 23
    await rig.pool.execute("UPDATE producers SET applied = '{[1,3)}'")
    assert await command("audit", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert any(PRODUCER.hex() in finding["culprit"] for finding in report["findings"])


async def test_explain_names_each_batch_and_its_state(rig: Rig) -> None:
    await rig.emit(rig.seal())
    found = await explain(rig.pool, rig.link, HISTOGRAM.decode(), rig.window_s, None)
    assert [(c.seq, c.events, c.state) for c in found.contributions] == [
        (1, 2, "applied"),
        (2, 2, "applied"),
        (3, 2, "applied"),
        (4, 2, "waiting"),
    ]
    assert sum(row["n"] for row in found.stored) == 6
    assert await command("explain", HISTOGRAM.decode(), str(rig.window_s + 3)) == 0
    assert await command("explain", "no_such", str(rig.window_s)) == 1


async def test_explain_of_a_name_without_its_labels_lists_series_of_that_metric(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await command("explain", "c_total", str(rig.window_s)) == 1
    assert f"series of this metric:\n  {COUNTER.decode()}\n" in capsys.readouterr().out
    assert await command("explain", COUNTER.decode(), str(rig.window_s - 3600)) == 1
    assert "series of this metric" not in capsys.readouterr().out, "it is one, with nothing in this window"


async def test_forgotten_series_are_gone_and_the_audit_stays_ok(rig: Rig) -> None:
    await rig.roll_up()
    await rig.commit()
    assert await find(rig.pool, 'c_total{a=~"[0-9]"}') == [COUNTER.decode()]
    assert await find(rig.pool, 'c_total{a!="1"}') == []
    assert await command("forget", "c_total") == 0
    assert (await rig.pool.fetchval("SELECT count(*) FROM forgotten")) == 0
    gone = await forget(rig.pool, 'c_total{a="1"}', "test")
    assert gone == (1, 12)
    assert (await rig.audit()).findings == []
    await rig.commit()
    report = await rig.audit()
    assert (report.findings, report.committed) == ([], 35)
    assert await rig.pool.fetchval("SELECT sum(n) FROM totals JOIN series USING (series_id) WHERE key = $1",
                                   COUNTER.decode()) == 3  # fmt: skip
    assert await rig.pool.fetchval("SELECT count(*) FROM series WHERE key = $1", GAUGE.decode()) == 1


async def test_purge_command_deletes_a_run(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    await ensure_run(rig.pool, "trial", 1, 1)
    assert await command("purge", "--list") == 0
    assert "trial" in capsys.readouterr().out
    assert await command("audit", "--run-id", "trial") == 0
    assert await command("purge", "--run-id", "trial") == 0
    assert await command("purge", "--run-id", "other") == 1
    assert await command("audit", "--run-id", "trial") == 1


async def test_tail_shows_what_arrives(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    following = asyncio.create_task(command("tail", "--count", "1"))
    while not following.done():
        await rig.emit(rig.seal())
        await asyncio.wait({following}, timeout=0.2)
    assert await following == 0
    assert "7 events" in capsys.readouterr().out
