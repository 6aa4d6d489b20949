"""Live: one overview, made once and sent to everyone who looks.

In: something that reads an overview. Out: for each viewer the parts that changed since it last got them, as
server-sent events. Promise: nothing is read while nobody looks; a slow viewer skips versions and delays nobody;
viewers are bounded; a stop ends every stream at once.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Final

log = logging.getLogger(__name__)

EVERY_S: Final = 2.0
HEARTBEAT_S: Final = 10.0
MAX_VIEWERS: Final = 64
RETRY_MS: Final = 2000

STILL: Final = b"event: still\ndata: \n\n"
"""A comment would keep the connection, but a script could not see it."""

Parts = Mapping[str, str]
"""Name of a part of the page -> its content."""


class Full(Exception):
    """As many look already as may."""


class Live:
    """The newest parts, and who waits for them."""

    def __init__(self, read: Callable[[], Awaitable[Parts]], every_s: float = EVERY_S) -> None:
        self._read = read
        self._every_s = every_s
        self._parts: dict[str, tuple[int, str]] = {}
        self._version = 0
        self._viewers = 0
        self._news = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._is_reading = False

    @property
    def viewers(self) -> int:
        """How many look now."""
        return self._viewers

    def watch(self) -> AsyncGenerator[bytes, None]:
        """Return the events of one viewer; Full when there are too many, or when the exporter stops."""
        if self._viewers >= MAX_VIEWERS or self._stopping:
            raise Full(f"{self._viewers} pages look already")
        return self._events()

    async def _events(self) -> AsyncGenerator[bytes, None]:
        self._viewers += 1
        try:
            yield f"retry: {RETRY_MS}\n\n".encode()
            seen = 0
            while not self._stopping:
                await self._start()
                seen, changed = await self._next(seen)
                yield message(changed) if changed else STILL
        finally:
            self._viewers -= 1
            if not self._viewers:
                await self._rest()

    async def _next(self, seen: int) -> tuple[int, dict[str, str]]:
        """Wait for something newer than version `seen`, at most until the next heartbeat."""
        try:
            async with asyncio.timeout(HEARTBEAT_S), self._news:
                await self._news.wait_for(lambda: self._stopping or self._version > seen or not self._is_reading)
        except TimeoutError:
            return seen, {}
        changed = {name: text for name, (version, text) in self._parts.items() if version > seen}
        return self._version, changed

    async def _start(self) -> None:
        if self._task is not None and not self._is_reading:
            await asyncio.shield(self._task)  # it died of a bug: that ends the streams instead of silencing them
        if self._task is None:
            self._is_reading = True
            self._task = asyncio.create_task(self._refresh(), name="exporter - page")

    async def _refresh(self) -> None:
        try:
            while True:
                parts = await self._read()
                async with self._news:
                    self._take(parts)
                    self._news.notify_all()
                await asyncio.sleep(self._every_s)
        finally:
            self._is_reading = False
            async with self._news:
                self._news.notify_all()

    def _take(self, parts: Parts) -> None:
        changed = {name: text for name, text in parts.items() if self._parts.get(name, (0, ""))[1] != text}
        if changed:
            self._version += 1
            self._parts |= {name: (self._version, text) for name, text in changed.items()}

    async def stop(self) -> None:
        """End every stream; no new one is opened."""
        self._stopping = True
        await self._rest()
        async with self._news:
            self._news.notify_all()

    async def _rest(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._parts.clear()  # old when somebody looks again


def message(parts: Parts) -> bytes:
    """Return one server-sent event; JSON holds no line break."""
    return b"event: parts\ndata: " + json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
