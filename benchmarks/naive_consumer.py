"""The peer of the drain: one msgpack event a stream entry, the consumer that everybody writes first.

Run as `python -m benchmarks.naive_consumer EVENTS`: writes `ready`, begins at a line on standard input, and writes
`done` when all are committed. It reads ten thousand entries, adds them up in a dict, upserts the sums and bucket
counts per series and window in one transaction, and acknowledges. No ledger, no sketch: less is asked of it.
"""

import asyncio
import os
import sys
from bisect import bisect_left
from typing import Any, Final

import asyncpg
import msgspec
import redis.asyncio
import uvloop

from contract.metric import DEFAULT_BUCKETS
from contract.windows import window_start_s

STREAM: Final = "naive"
GROUP: Final = "naive"
READ: Final = 10_000
WIDTH: Final = len(DEFAULT_BUCKETS) + 1
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS naive_rollup (
    key text, window_s bigint, n bigint, sum float8, le bigint[], PRIMARY KEY (key, window_s))
"""
ADDED: Final = ", ".join(f"t.le[{i}] + excluded.le[{i}]" for i in range(1, WIDTH + 1))
UPSERT: Final = f"""
INSERT INTO naive_rollup AS t VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (key, window_s) DO UPDATE SET n = t.n + excluded.n, sum = t.sum + excluded.sum, le = ARRAY[{ADDED}]
"""


class Event(msgspec.Struct, array_like=True):
    """One emit, as it travels."""

    name: str
    labels: dict[str, str]
    value: float
    at_ms: int


def encode(route: str, value: float, at_ms: int) -> bytes:
    """Return the bytes of one event."""
    return msgspec.msgpack.encode(Event("bench_latency_seconds", {"route": route}, value, at_ms))


def fold(entries: list[Any], sums: dict[tuple[str, int], list[Any]]) -> None:
    """Decode each entry and add it to its series and window."""
    decode = msgspec.msgpack.Decoder(Event).decode
    for _, fields in entries:
        event = decode(fields[b"b"])
        labels = ",".join(f'{k}="{v}"' for k, v in sorted(event.labels.items()))
        key = (f"{event.name}{{{labels}}}", window_start_s(event.at_ms))
        row = sums.get(key)
        if row is None:
            row = sums[key] = [0, 0.0, [0] * WIDTH]
        row[0] += 1
        row[1] += event.value
        row[2][bisect_left(DEFAULT_BUCKETS, event.value)] += 1


async def consume(events: int) -> None:
    """Read, add up, upsert, acknowledge, until `events` are committed."""
    client: Any = redis.asyncio.Redis.from_url(os.environ["REDIS_URL"], protocol=2)
    connection = await asyncpg.connect(os.environ["POSTGRES_DSN"])
    await connection.execute(SCHEMA)
    say("ready")
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    committed = 0
    while committed < events:
        reply = await client.xreadgroup(GROUP, "one", {STREAM: ">"}, count=READ, block=1000)
        entries: list[Any] = reply[0][1] if reply else []
        sums: dict[tuple[str, int], list[Any]] = {}
        fold(entries, sums)
        async with connection.transaction():
            await connection.executemany(UPSERT, [(*key, *row) for key, row in sums.items()])
        if entries:
            await client.xack(STREAM, GROUP, *(entry_id for entry_id, _ in entries))
        committed += len(entries)
    say("done")
    await connection.close()
    await client.aclose()


def say(word: str) -> None:
    """Tell the benchmark where we are."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(consume(int(sys.argv[1])))
