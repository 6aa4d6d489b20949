"""Live parts: read once for all, only while somebody looks."""

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest

from exporter.page.live import MAX_VIEWERS, Full, Live


class Source:
    """Parts that the test changes, and how often they were read."""

    def __init__(self, **parts: str) -> None:
        self.parts = parts
        self.reads = 0

    async def read(self) -> dict[str, str]:
        self.reads += 1
        return dict(self.parts)


async def parts(events: AsyncGenerator[bytes, None]) -> dict[str, str]:
    """Return the next message that holds something."""
    async with asyncio.timeout(5):
        async for event in events:
            if event.startswith(b"event: parts\n"):
                return json.loads(event.partition(b"data: ")[2])
    raise AssertionError("the stream ended")


async def test_a_viewer_gets_everything_first_and_then_what_changed() -> None:
    source = Source(a="1", b="1")
    live = Live(source.read, 0.001)
    events = live.watch()
    assert await parts(events) == {"a": "1", "b": "1"}
    source.parts["b"] = "two\nlines"
    assert await parts(events) == {"b": "two\nlines"}
    await events.aclose()


async def test_all_viewers_share_one_reading() -> None:
    source = Source(a="1")
    live = Live(source.read, 60)
    viewers = [live.watch() for _ in range(10)]
    assert await asyncio.gather(*map(parts, viewers)) == [{"a": "1"}] * 10
    assert source.reads == 1
    for viewer in viewers:
        await viewer.aclose()
    assert live.viewers == 0


async def test_nothing_is_read_while_nobody_looks_and_old_parts_are_not_shown_again() -> None:
    source = Source(a="old")
    live = Live(source.read, 0.001)
    events = live.watch()
    await parts(events)
    await events.aclose()
    reads = source.reads
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert source.reads == reads
    source.parts["a"] = "new"
    events = live.watch()
    assert await parts(events) == {"a": "new"}
    await events.aclose()


async def test_a_slow_viewer_skips_what_was_replaced_meanwhile() -> None:
    source = Source(a="1")
    live = Live(source.read, 0.001)
    slow, quick = live.watch(), live.watch()
    await parts(slow)
    await parts(quick)
    for number in ("2", "3"):
        source.parts["a"] = number
        assert await parts(quick) == {"a": number}
    assert await parts(slow) == {"a": "3"}
    await slow.aclose()
    await quick.aclose()


async def test_a_stop_ends_every_stream_and_lets_no_more_in() -> None:
    live = Live(Source(a="1").read, 60)
    events = live.watch()
    await parts(events)
    rest = asyncio.ensure_future(_drain(events))
    await asyncio.sleep(0)
    await live.stop()
    async with asyncio.timeout(5):
        await rest
    with pytest.raises(Full):
        live.watch()


async def _drain(events: AsyncGenerator[bytes, None]) -> None:
    async for _ in events:
        pass


async def test_viewers_are_bounded() -> None:
    live = Live(Source(a="1").read, 60)
    viewers = [live.watch() for _ in range(MAX_VIEWERS)]
    for viewer in viewers:
        await anext(viewer)
    with pytest.raises(Full):
        live.watch()
    for viewer in viewers:
        await viewer.aclose()
    await live.watch().aclose()


async def test_a_fault_in_reading_ends_the_streams_instead_of_silencing_them() -> None:
    async def fail() -> dict[str, str]:
        raise RuntimeError("a bug")

    live = Live(fail, 0.001)
    events = live.watch()
    with pytest.raises(RuntimeError, match="a bug"):
        await parts(events)
