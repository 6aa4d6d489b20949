"""`streamgauge tail`: a live view of the entries that arrive in the streams, one line each."""

import argparse
import asyncio
import sys
import time
from typing import Any

from contract.batch import VERSION, BatchError, Body, read_body, read_directory, read_envelope
from contract.streams import DEFAULT_SHARDS, FIELD, SHARD_COUNT_KEY, stream_key
from streamgauge.commands import Subparsers
from streamgauge.reach import reach_streams

BLOCK_MS = 1000


def add_parser(sub: Subparsers) -> None:
    """Declare the options."""
    parser = sub.add_parser("tail", help="show the batches that arrive in the streams")
    parser.add_argument("--count", type=int, metavar="N", help="end after N batches (default: Ctrl-C)")
    parser.add_argument("--service", metavar="NAME", help="only batches of this service")


def run(args: argparse.Namespace) -> int:
    """Follow the streams until interrupted."""
    if args.count is not None and args.count < 1:
        sys.stderr.write(f"streamgauge: --count {args.count} is not positive\n")
        return 2
    asyncio.run(_tail(args.count, args.service))
    return 0


async def _tail(count: int | None, service: str | None) -> None:
    async with reach_streams(BLOCK_MS / 1000) as link:
        shards = int(await link.get(SHARD_COUNT_KEY) or DEFAULT_SHARDS)
        after = {stream_key(shard).encode(): await _newest(link, stream_key(shard)) for shard in range(shards)}
        shown = 0
        while count is None or shown < count:
            for stream, entries in await _arrived(link, after):
                after[stream] = entries[-1][0]
                lines = [_line(stream.decode(), i.decode(), fields.get(FIELD, b""), service) for i, fields in entries]
                for line in list(filter(None, lines))[: None if count is None else count - shown]:
                    print(line, flush=True)
                    shown += 1


async def _arrived(link: Any, after: dict[bytes, bytes]) -> list[tuple[bytes, Any]]:
    """Wait for entries of each stream; one read a stream, as in a cluster they are on different nodes."""
    reads = (link.xread({stream: last}, count=100, block=BLOCK_MS) for stream, last in after.items())
    return [found for one in await asyncio.gather(*reads) for found in one]


async def _newest(link: Any, stream: str) -> bytes:
    newest = await link.xrevrange(stream, count=1)
    return newest[0][0] if newest else b"0"


def _line(stream: str, stream_id: str, data: bytes, service: str | None) -> str | None:
    """Describe one entry; None if it is of another service."""
    try:
        e = read_envelope(data)
        body = read_body(e, data) if e.version == VERSION else None
        series = len(read_directory(body.directory).keys) if body else 0
    except BatchError as error:
        return f"{stream} {stream_id}  {len(data)} B  unreadable: {error}"
    if service is not None and (body is None or body.service != service):
        return None
    head = f"{stream} {stream_id}  {e.producer_id.hex()[:8]} seq {e.seq}  {e.events} events  {len(data)} B"
    return f"{head}  version {e.version}" if body is None else f"{head}  {_about(body, series)}"


def _about(body: Body, series: int) -> str:
    window = time.strftime("%H:%M:%S", time.gmtime(body.window_start_s))
    marks = [f"window {window}", f"{series} series", body.service]
    marks += [f"run {body.run_id}"] if body.run_id else []
    marks += [f"dropped {sum(body.dropped.values())}"] if body.dropped else []
    marks += ["fin"] if body.fin else []
    return "  ".join(marks)
