"""Trial: decodes batches in a process of its own, so that one which ends its decoder harms nobody.

In: batches. Out: which of them end or hang the process. Promise: one process for all of them, and one more for each
that is found; a process that cannot start is no evidence against a batch.
"""

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from aggregator.decode import BlockCache, Entry, decode
from contract.batch import BatchError, read_envelope

START_S: Final = 60.0
DECODE_S: Final = 20.0
"""For one batch."""

OOM_SCORE: Final = Path("/proc/self/oom_score_adj")
MOST_LIKELY: Final = "1000"
LENGTH_BYTES: Final = 4
READY: Final = b"r"
DECODED: Final = b"."


class TrialError(OSError):
    """The process did not start: nothing is known of the batches."""


def main() -> int:
    """Decode what comes in, each batch behind its length; write a mark once ready and after each."""
    # Where memory runs out this process is to go, and not the one that waits for its answer.
    with suppress(OSError):
        OOM_SCORE.write_text(MOST_LIKELY)
    source, sink, blocks = sys.stdin.buffer, sys.stdout.buffer, BlockCache()
    sink.write(READY)
    sink.flush()
    while length := source.read(LENGTH_BYTES):
        data = source.read(int.from_bytes(length, "little"))
        with suppress(BatchError):
            decode(Entry(0, "0-0", data), read_envelope(data), blocks)
        sink.write(DECODED)
        sink.flush()
    return 0


class Trial:
    """A process that decodes what it is given; started when it is needed."""

    def __init__(self) -> None:
        self._child: Process | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: object, at: object) -> None:
        await self._end()

    async def find_crashing(self, batches: Sequence[bytes]) -> set[int]:
        """Return the places of those whose decoding ends a process, or takes too long."""
        crashing: set[int] = set()
        at = 0
        while at < len(batches):
            at += await self._decoded(batches[at:])
            if at < len(batches):
                crashing.add(at)
                at += 1
        return crashing

    async def _decoded(self, batches: Sequence[bytes]) -> int:
        """Return how many were decoded before the process ended or hung."""
        child = self._child or await self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        feeding = asyncio.create_task(_feed(child.stdin, batches))
        done = 0
        try:
            while done < len(batches) and await _mark(child.stdout, DECODE_S) == DECODED:
                done += 1
        finally:
            feeding.cancel()
            with suppress(asyncio.CancelledError):
                await feeding
            if done < len(batches):
                await self._end()
        return done

    async def _start(self) -> Process:
        pipe = asyncio.subprocess.PIPE
        self._child = child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "aggregator.trial", stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
        )
        assert child.stdout is not None
        if await _mark(child.stdout, START_S) != READY:
            await self._end()
            raise TrialError("the process that decodes suspects did not start")
        return child

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()


async def _mark(source: asyncio.StreamReader, deadline_s: float) -> bytes:
    """Return the next mark; nothing where the process ended or hangs."""
    try:
        return await asyncio.wait_for(source.read(1), deadline_s)
    except TimeoutError:
        return b""


async def _feed(sink: asyncio.StreamWriter, batches: Sequence[bytes]) -> None:
    with suppress(ConnectionError):
        for data in batches:
            sink.write(len(data).to_bytes(LENGTH_BYTES, "little") + data)
            await sink.drain()


if __name__ == "__main__":
    sys.exit(main())
