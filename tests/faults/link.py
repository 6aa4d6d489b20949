"""A link that a test can spoil: a TCP port on this machine that forwards to a server, in a thread of its own.

In: where the server listens (TCP or a unix socket). Out: a port, and methods that say what the link does from now on.
Promise: a method has taken effect, for live connections too, when it returns; bytes are never reordered, and none
follows bytes that were thrown away; `close` leaves no thread and no socket. As in a network, what stands in a buffer
arrives once the link heals.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

Mode = Literal["pass", "delay", "drop_replies", "blackhole", "reset", "cut"]

CHUNK_BYTES: Final = 1 << 16
DEADLINE_S: Final = 10.0
LINGER_NONE: Final = struct.pack("ii", 1, 0)
"""For SO_LINGER: the socket's end is a reset, not a farewell."""


class Link:
    """A link to one server; it passes everything on at first."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, path: str | Path | None = None) -> None:
        self.dropped_bytes = 0
        """Bytes of replies that were thrown away."""
        self.cuts = 0
        """How often `cut_after` has cut."""
        self._server: str | tuple[str, int] = str(path) if path is not None else (host, port)
        self._mode: Mode = "pass"
        self._delay_s = 0.0
        self._left_bytes = 0
        self._pairs: set[_Pair] = set()
        self._listener: asyncio.Server | None = None
        # Holds the port while nothing listens, so that it is refused and nobody else gets it.
        self._holder = _bound(0)
        self.port: int = self._holder.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"link-{self.port}", daemon=True)
        self._thread.start()
        self._set("pass")

    @classmethod
    def to_unix(cls, path: str | Path) -> Self:
        """Return a link to a server on a unix socket."""
        return cls(path=path)

    @property
    def address(self) -> str:
        """Host and port, as they stand in a URL."""
        return f"127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections live now."""
        return len(self._pairs)

    def pass_on(self) -> None:
        """Forward everything. A connection that lost replies is reset: its next reply would answer another request."""
        self._set("pass")

    def delay(self, seconds: float) -> None:
        """Hold what is sent, either way, for so long, and for twice that at most."""
        self._set("delay", delay_s=seconds)

    def drop_replies(self) -> None:
        """Forward requests, throw replies away."""
        self._set("drop_replies")

    def blackhole(self) -> None:
        """Accept connections, forward nothing, say nothing."""
        self._set("blackhole")

    def reset(self) -> None:
        """Reset live connections and refuse new ones, until another mode is chosen."""
        self._set("reset")

    def lead_to(self, host: str, port: int) -> None:
        """Reset live connections; new ones reach another server, as a name does that was given to it."""
        self.reset()
        self._server = (host, port)
        self.pass_on()

    def lead_new_to(self, host: str, port: int) -> None:
        """New connections reach another server; live ones go on with the one they have."""
        self._server = (host, port)

    def cut_after(self, n_bytes: int) -> None:
        """Forward so many bytes of requests, over all connections, then reset them all, once; then pass on."""
        self._set("cut", left_bytes=n_bytes)

    def close(self) -> None:
        """Reset everything and end the thread."""
        if self._loop.is_closed():
            return
        self._set("reset")
        self._call(self._end_tasks)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()
        self._holder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _set(self, mode: Mode, delay_s: float = 0.0, left_bytes: int = 0) -> None:
        async def switch() -> None:
            self._mode, self._delay_s, self._left_bytes = mode, delay_s, left_bytes
            for pair in [*self._pairs]:
                if mode == "reset" or (pair.is_torn and mode != "drop_replies"):
                    pair.reset()
            self._changed.set()
            self._changed = asyncio.Event()
            if mode == "reset":
                await self._refuse()
            else:
                await self._listen()

        self._call(switch)

    def _call(self, what: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asyncio.run_coroutine_threadsafe(what(), self._loop).result(DEADLINE_S)

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, sock=_bound(self.port), backlog=512)

    async def _refuse(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _end_tasks(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = _Pair(writer)
        self._pairs.add(pair)
        try:
            while self._mode == "blackhole":
                await self._changed.wait()
            with contextlib.suppress(OSError):
                await self._join(pair, reader)
        finally:
            self._pairs.discard(pair)
            pair.reset()

    async def _join(self, pair: "_Pair", reader: asyncio.StreamReader) -> None:
        """Forward both ways until one side ends."""
        if isinstance(self._server, str):
            replies, requests = await asyncio.open_unix_connection(self._server)
        else:
            replies, requests = await asyncio.open_connection(*self._server)
        pair.add(requests)
        ways = (
            asyncio.ensure_future(self._forward_requests(pair, reader, requests)),
            asyncio.ensure_future(self._forward_replies(pair, replies)),
        )
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            pair.finish()

    async def _forward_requests(self, pair: "_Pair", source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(CHUNK_BYTES):
            await self._hold()
            if self._mode == "cut" and len(data) >= self._left_bytes:
                sink.write(data[: self._left_bytes])
                await sink.drain()
                self._cut()
                return
            self._left_bytes -= len(data)
            sink.write(data)
            await sink.drain()

    async def _forward_replies(self, pair: "_Pair", source: asyncio.StreamReader) -> None:
        while data := await source.read(CHUNK_BYTES):
            await self._hold()
            if self._mode == "drop_replies":
                pair.is_torn = True
                self.dropped_bytes += len(data)
                continue
            pair.client.write(data)
            await pair.client.drain()

    async def _hold(self) -> None:
        """Wait for as long as the link holds what was sent; a change of mode ends a delay."""
        if self._mode == "delay":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), self._delay_s)
        while self._mode == "blackhole":
            await self._changed.wait()

    def _cut(self) -> None:
        self._mode = "pass"
        self.cuts += 1
        for pair in [*self._pairs]:
            pair.reset()


class _Pair:
    """Both ends of one connection."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.is_torn = False
        """A reply was thrown away."""
        self.client = client
        self._ends = [client]
        _send_at_once(client)

    def add(self, server: asyncio.StreamWriter) -> None:
        self._ends.append(server)
        _send_at_once(server)

    def finish(self) -> None:
        """Close both ends, sending what is left."""
        for end in self._ends:
            end.close()

    def reset(self) -> None:
        """Reset both ends."""
        for end in self._ends:
            transport_socket = end.get_extra_info("socket")
            if not end.is_closing() and transport_socket.family == socket.AF_INET:
                transport_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
            end.transport.abort()


def _send_at_once(end: asyncio.StreamWriter) -> None:
    """Let `drain` wait until everything is with the kernel; never let the kernel wait for more."""
    end.transport.set_write_buffer_limits(0)
    if end.get_extra_info("socket").family == socket.AF_INET:
        end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _bound(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made
