"""The trial of batches that may end whoever decodes them, in real processes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from aggregator import trial
from aggregator.reader import SUSPECT_DELIVERIES
from aggregator.trial import Trial, TrialError
from tests.consuming import consumer
from tests.fundamentals.test_one_effect import batches

CRASHING = """
import os, time
import contract.batch
true = contract.batch.read_envelope
def read(data):
    if data.endswith(b"ends it"): os.abort()
    if data.endswith(b"hangs"): time.sleep(60)
    return true(data)
contract.batch.read_envelope = read
"""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The processes that were started."""
    found: list[tuple[Any, ...]] = []
    start = asyncio.create_subprocess_exec

    async def count(*command: Any, **options: Any) -> Any:
        found.append(command)
        return await start(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", count)
    return found


async def test_those_that_end_or_hang_a_process_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[tuple[Any, ...]]
) -> None:
    (tmp_path / "sitecustomize.py").write_text(CRASHING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(trial, "DECODE_S", 3.0)
    good = batches(6)
    tried = [good[0], good[1] + b"ends it", b"no batch", good[2] + b"hangs", *good[3:], good[0] + b"ends it"]
    async with Trial() as tries:
        assert await tries.find_crashing(tried) == {1, 3, len(tried) - 1}
    assert len(started) == 3, "a process more for each that was found, and none after the last"


async def test_one_process_tries_all_that_came_often(dsn: str, redis_url: str, started: list[tuple[Any, ...]]) -> None:
    async with consumer(dsn, redis_url) as c:
        await c.send(*batches(200))
        assert len(await c.read()) == 200
        for delivered in range(2, SUSPECT_DELIVERIES + 3):
            c.reader.restart()
            assert len(await c.reader.read(1000, 0)) == 200
            assert len(started) == max(0, delivered - SUSPECT_DELIVERIES)


async def test_a_process_that_does_not_start_is_no_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial.sys, "executable", "/bin/true")
    async with Trial() as tries:
        with pytest.raises(TrialError):
            await tries.find_crashing(batches(1))


async def test_one_process_is_kept_from_page_to_page(started: list[tuple[Any, ...]]) -> None:
    async with Trial() as tries:
        for _ in range(3):
            assert await tries.find_crashing(batches(5)) == set()
    assert len(started) == 1
