"""Settled, on a real Redis: what stood in the streams must be acknowledged; what comes later is not waited for."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aggregator.settled import until_settled
from contract.streams import FIELD, GROUP, stream_key
from database.redis_link import open_link
from database.settings import RedisSettings

SHARDS = 2
DEADLINE_S = 10.0


@pytest.fixture
async def link(redis_url: str) -> AsyncIterator[Any]:
    """A client; shard 1 was never written to."""
    opened = open_link(RedisSettings.model_validate({"redis_url": redis_url}))
    await opened.xgroup_create(stream_key(0), GROUP, "0", mkstream=True)
    yield opened
    await opened.aclose()


async def add(link: Any) -> bytes:
    return await link.xadd(stream_key(0), {FIELD: b"batch"})


async def read(link: Any) -> None:
    await link.xreadgroup(GROUP, "test", {stream_key(0): ">"})


async def test_empty_and_acknowledged_streams_are_settled(link: Any) -> None:
    assert await until_settled(link, SHARDS, DEADLINE_S) is None
    entry = await add(link)
    await read(link)
    await link.xack(stream_key(0), GROUP, entry)
    assert await until_settled(link, SHARDS, DEADLINE_S) is None


async def test_an_entry_that_nobody_read_is_missing(link: Any) -> None:
    await add(link)
    assert await until_settled(link, SHARDS, 0.3) == "not everything was committed after 0.3 s (shard 0)"


async def test_an_entry_that_was_read_and_not_acknowledged_is_missing(link: Any) -> None:
    await add(link)
    await read(link)
    assert await until_settled(link, SHARDS, 0.3) == "not everything was committed after 0.3 s (shard 0)"


async def test_what_arrives_later_is_not_waited_for(link: Any) -> None:
    """A busy pipeline always has something pending; the wait ends all the same."""
    entry = await add(link)
    await read(link)
    before = await looks(link)
    waiting = asyncio.create_task(until_settled(link, SHARDS, DEADLINE_S))
    while await looks(link) == before:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await add(link)
    await read(link)
    assert not waiting.done()
    await link.xack(stream_key(0), GROUP, entry)
    assert await waiting is None


async def looks(link: Any) -> int:
    """How often Redis was asked what is pending."""
    return int((await link.info("commandstats")).get("cmdstat_xpending", {}).get("calls", 0))


async def test_a_redis_that_is_away_is_said() -> None:
    link = open_link(RedisSettings.model_validate({"redis_url": "redis://127.0.0.1:1/0"}))
    try:
        assert (await until_settled(link, SHARDS, DEADLINE_S) or "").startswith("unknown whether everything was")
    finally:
        await link.aclose()
