"""A check that dies while it restores another database leaves a fence; the next one finishes and lowers it."""

import time
from collections.abc import Sequence

import pytest

from aggregator import failover
from aggregator.decode import Entry
from contract.streams import DATABASE_KEY
from tests.batches import make_batch
from tests.consuming import Consumer, consumer

OPEN = "SELECT count(*) FROM fences WHERE lowered_at IS NULL"


class Dying:
    """A committer whose server goes away."""

    async def settle(self, entries: Sequence[Entry]) -> None:
        raise ConnectionError("gone")


async def check(c: Consumer, committer: object) -> None:
    await failover.check(c.link, await c.pool(), [committer], 1, "test")  # type: ignore[list-item]


async def test_a_fence_that_was_left_is_lowered_when_the_restoring_is_done(dsn: str, redis_url: str) -> None:
    async with consumer(dsn, redis_url) as c:
        await c.send(make_batch(bytes(16), 1, counters={b"a_total": (1, 1.0)}, window_s=int(time.time()) // 10 * 10))
        await c.link.set(DATABASE_KEY, b"123/1")
        for _ in range(2):
            with pytest.raises(ConnectionError):
                await check(c, Dying())
        assert await c.one(OPEN) == 2
        await check(c, c.committer)
        assert await c.one(OPEN) == 0
        assert await c.one("SELECT sum(n) FROM totals") == 1
        assert (await c.link.get(DATABASE_KEY)) not in (None, b"123/1")


async def test_a_lane_whose_clock_was_not_measured_is_no_lane(dsn: str, redis_url: str) -> None:
    """Good data would look as if it came from the future, wherever the clocks differ."""
    async with consumer(dsn.replace("/sg_", "/no_such_sg_"), redis_url) as c:
        for _ in range(2):
            with pytest.raises(Exception, match="does not exist"):
                await c.lanes.main()
        assert c.lanes.open_lanes() == []
