"""The end of a task in the background: soon, whatever it does with a cancellation."""

import asyncio

import pytest

from producers import background
from producers.background import end


async def test_task_that_loses_a_cancellation_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "AGAIN_S", 0.01)
    lost = 0

    async def lose_two() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost += 1
                if lost == 3:
                    raise

    task = asyncio.create_task(lose_two())
    await asyncio.sleep(0)
    await end(task)
    assert task.cancelled()


async def test_what_a_task_raised_is_logged_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("a bug of ours")

    task = asyncio.create_task(fail(), name="streamgauge - watch")
    await asyncio.wait({task})
    await end(task)
    assert "background_failed task='streamgauge - watch'" in caplog.text
    assert "a bug of ours" in caplog.text
