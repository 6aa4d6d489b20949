"""`streamgauge thresholds`, as a person runs it: list, pin, revert, history, on a real database."""

import asyncio
import getpass
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from database.connect import open_pool
from database.settings import read_settings
from optimizers.settings import OptimizerSettings
from tests.integration.test_thresholds import METRIC, fill, run


async def _learn(dsn: str) -> None:
    pool = await open_pool(read_settings(OptimizerSettings, {"POSTGRES_DSN": dsn}))
    try:
        await fill(dsn, pool)
        await run(pool, dsn)
    finally:
        await pool.close()


def command(dsn: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    asked = [sys.executable, "-m", "streamgauge", "thresholds", *arguments]
    told = os.environ | {"POSTGRES_DSN": dsn}
    return subprocess.run(asked, env=told, capture_output=True, text=True, timeout=60, check=False)


def listed(dsn: str) -> dict[str, Any]:
    done = command(dsn, "list", "--json")
    assert done.returncode == 0, done.stderr
    return next(row for row in json.loads(done.stdout)["thresholds"] if row["metric"] == METRIC)


def test_a_person_lists_pins_and_reverts_a_threshold(dsn: str) -> None:
    asyncio.run(_learn(dsn))
    learnt = listed(dsn)
    number = str(learnt["id"])
    assert (learnt["method"], learnt["is_pinned"]) == ("seasonal", False)

    pinned = command(dsn, "pin", number, "--warn", "0.7", "--critical", "0.9")
    assert pinned.returncode == 0, pinned.stderr
    assert f"streamgauge thresholds revert {number}" in pinned.stdout
    held = listed(dsn)
    assert (held["warn"], held["critical"], held["is_pinned"]) == (0.7, 0.9, True)
    assert f"{METRIC} /listings high warn 0.7 critical 0.9" in command(dsn, "list").stdout

    reverted = command(dsn, "revert", number)
    assert reverted.stdout == f"{number}: 48 buckets reverted\n", reverted.stderr
    again = listed(dsn)
    assert (again["warn"], again["critical"], again["is_pinned"]) == (learnt["warn"], learnt["critical"], False)

    changes = json.loads(command(dsn, "history", number, "--json").stdout)["changes"]
    assert changes[0]["old_warn"] == 0.7
    assert changes[0]["new_warn"] != 0.7

    newest, before, *_ = command(dsn, "history", number).stdout.splitlines()
    assert "48 buckets: warn 0.7 -> " in newest
    assert "reverted by" in newest
    assert "-> 0.7, critical " in before
    assert "-> 0.9 (manual, pinned by" in before


def test_limits_in_the_wrong_order_are_refused(dsn: str) -> None:
    asyncio.run(_learn(dsn))
    learnt = listed(dsn)
    assert learnt["side"] == "high"
    done = command(dsn, "pin", str(learnt["id"]), "--warn", "0.9", "--critical", "0.7")
    assert done.returncode == 2
    assert "critical may not be below warn" in done.stderr
    assert listed(dsn) == learnt
    rows = json.loads(command(dsn, "list", "--json").stdout)["thresholds"]
    low = next(row for row in rows if row["side"] == "low")
    done = command(dsn, "pin", str(low["id"]), "--warn", "0.02", "--critical", "5")
    assert (done.returncode, "critical may not be above warn" in done.stderr) == (2, True)


@pytest.mark.parametrize("arguments", [("pin", "999", "--warn", "1", "--critical", "2"), ("revert", "999")])
def test_a_threshold_that_does_not_exist_is_refused(dsn: str, arguments: tuple[str, ...]) -> None:
    done = command(dsn, *arguments)
    assert done.returncode == 2
    assert "999" in done.stderr


def test_a_person_keeps_a_time_from_teaching(dsn: str) -> None:
    """Of one metric or of all; a zone counts, UTC where none is named."""
    first = command(dsn, "exclude", "2026-01-31T14:00", "2026-01-31T15:30", "--reason", "load test", "--metric", METRIC)
    assert (first.returncode, first.stdout) == (0, "excluded\n"), first.stderr
    assert command(dsn, "exclude", "2026-02-01T01:00+01:00", "2026-02-01T02:00", "--reason", "outage").returncode == 0
    for wrong in (("2026-01-31T15:00", "2026-01-31T14:00"), ("2026-01-31T15:00", "2026-01-31T15:00")):
        refused = command(dsn, "exclude", *wrong, "--reason", "r")
        assert (refused.returncode, refused.stderr) == (2, "streamgauge: FROM is not before TO\n")
    assert command(dsn, "exclude", "soon", "2026-01-31T15:00", "--reason", "r").returncode == 2
    assert command(dsn, "exclude", "2026-01-31T14:00", "2026-01-31T15:00").returncode == 2, "a reason is asked for"
    kept = asyncio.run(exclusions(dsn))
    assert [row[:4] for row in kept] == [
        (METRIC, "2026-01-31 14:00", "2026-01-31 15:30", "load test"),
        (None, "2026-02-01 00:00", "2026-02-01 02:00", "outage"),
    ]
    assert {row[4] for row in kept} == {getpass.getuser()}


async def exclusions(dsn: str) -> list[tuple[Any, ...]]:
    """Return metric, from, to, reason and who."""
    pool = await open_pool(read_settings(OptimizerSettings, {"POSTGRES_DSN": dsn}))
    try:
        rows = await pool.fetch("""SELECT metric, to_char(from_at, 'YYYY-MM-DD HH24:MI'),
            to_char(to_at, 'YYYY-MM-DD HH24:MI'), reason, actor FROM threshold_exclusions ORDER BY exclusion_id""")
        return [tuple(row) for row in rows]
    finally:
        await pool.close()
