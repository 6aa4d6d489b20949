"""Requests share flights to the database, and each gets one that began after it arrived."""

import asyncio
from typing import Any, cast

import pytest

from exporter.refresh import Refresher
from exporter.snapshot import Unavailable, View


class Flights:
    """Counts flights; each waits for `gate`."""

    def __init__(self) -> None:
        self.begun = 0
        self.gate = asyncio.Semaphore(0)

    async def take(self) -> View:
        self.begun += 1
        mine = self.begun
        await self.gate.acquire()
        return cast("View", FakeView(mine))


class FakeView:
    full = False
    took_s = taken_at = 0.0

    def __init__(self, number: int) -> None:
        self.number = number


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_request_joins_only_a_flight_that_began_after_it() -> None:
    flights = Flights()
    refresher = Refresher(flights.take, 5)
    first = asyncio.create_task(refresher.fresh())
    await settle()
    later = [asyncio.create_task(refresher.fresh()) for _ in range(3)]
    await settle()
    assert flights.begun == 1
    flights.gate.release()
    flights.gate.release()
    numbers = [cast("Any", view).number for view in await asyncio.gather(first, *later)]
    assert numbers == [1, 2, 2, 2]
    assert flights.begun == 2
    await refresher.aclose()


async def test_slow_database_is_unavailable_by_the_deadline() -> None:
    refresher = Refresher(Flights().take, 0.01)
    with pytest.raises(Unavailable):
        await refresher.fresh()
    await refresher.aclose()


async def test_failed_flight_does_not_stop_the_next() -> None:
    failing = True

    async def take() -> View:
        if failing:
            raise ConnectionError("away")
        return cast("View", FakeView(1))

    refresher = Refresher(take, 5)
    with pytest.raises(Unavailable):
        await refresher.fresh()
    failing = False
    assert cast("Any", await refresher.fresh()).number == 1
    await refresher.aclose()
