"""Account of one load test: what became of its events, each number read from its own source.

In: the addresses of Redis and PostgreSQL, the service name of the test's producers, its run id if it has one.
Out: an Account (ledger), probes that are committed (totals), events in the stream that are not accounted for.
Promise: servers that are away make a call fail with OPERATIONAL, never return a wrong number.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Any, Final, NamedTuple

import asyncpg
import redis.exceptions

from contract.batch import VERSION, BatchError, read_body, read_envelope
from contract.streams import DEFAULT_SHARDS, FIELD, GROUP, SHARD_COUNT_KEY, stream_key
from database.admission import key_hash
from database.connect import AWAY, SCHEMA
from database.queries import load
from database.redis_link import open_link
from database.settings import RedisSettings, read_settings

TIMEOUT_S: Final = 5.0
PAGE: Final = 500
OPERATIONAL: Final = (*AWAY, redis.exceptions.RedisError)


class Account(NamedTuple):
    """The ledger's terms, in events, but for `producers`, `ended` (of them) and `duplicates` (batches)."""

    producers: int = 0
    ended: int = 0
    accepted: int = 0
    committed: int = 0
    quarantined: int = 0
    duplicates: int = 0
    dropped: int = 0
    lost: int = 0


class Ledger:
    """A connection that is opened when it is needed and again after it failed."""

    def __init__(self, dsn: str, service: str, run_id: str | None) -> None:
        self._dsn = dsn
        self._service = service
        self._run_id = run_id
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self.schema: str | None = None
        """Where the test's rows are; None until its first batch was read."""

    async def account(self) -> Account:
        """Return the terms as they are committed now; all zero before the first batch was read."""
        rows = await self._fetch(load("load_account"), self._service)
        return Account(*rows[0].values()) if rows else Account()

    async def probes(self, keys: Iterable[bytes]) -> dict[str, int]:
        """Return how many events of each probe series are committed."""
        rows = await self._fetch(load("load_probes"), [key_hash(key) for key in keys])
        return {row["key"]: row["n"] for row in rows}

    async def applied(self) -> dict[bytes, Any]:
        """Return the seqs of each producer that are accounted for, as asyncpg ranges."""
        rows = await self._fetch(load("load_applied"), self._service)
        return {row["producer_id"].bytes: row["done"] for row in rows}

    async def heartbeat_age_s(self) -> float | None:
        """Return how long ago an aggregator was heard of; None: never."""
        connection = await self._open()
        age_s: float | None = await connection.fetchval(load("heartbeat_age"), timeout=TIMEOUT_S)
        return age_s

    async def _fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        connection = await self._open()
        try:
            return await self._ask(connection, query, *arguments)
        except OPERATIONAL:
            connection.terminate()  # a server that died may leave it neither closed nor usable
            raise

    async def _ask(
        self, connection: "asyncpg.Connection[asyncpg.Record]", query: str, *arguments: Any
    ) -> list[asyncpg.Record]:
        if self.schema is None:
            self.schema = await self._find_schema(connection)
            if self.schema is None:
                return []
        if self.schema != SCHEMA:
            async with connection.transaction(readonly=True):
                await connection.execute(f'SET LOCAL search_path = "{self.schema}"')
                return await connection.fetch(query, *arguments, timeout=TIMEOUT_S)
        return await connection.fetch(query, *arguments, timeout=TIMEOUT_S)

    async def _find_schema(self, connection: "asyncpg.Connection[asyncpg.Record]") -> str | None:
        if self._run_id is None:
            return SCHEMA
        found: str | None = await connection.fetchval(load("load_schema"), self._run_id, timeout=TIMEOUT_S)
        return found

    async def _open(self) -> "asyncpg.Connection[asyncpg.Record]":
        if self._connection is None or self._connection.is_closed():
            settings = {"search_path": SCHEMA, "application_name": "streamgauge-loadtest"}
            self._connection = await asyncpg.connect(
                self._dsn, timeout=TIMEOUT_S, command_timeout=TIMEOUT_S, server_settings=settings
            )
        return self._connection

    async def aclose(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None and not self._connection.is_closed():
            await self._connection.close(timeout=TIMEOUT_S)


async def in_stream(url: str, service: str, applied: dict[bytes, Any]) -> int:
    """Return the events of a test's batches that stand in the streams and are accounted for nowhere."""
    client: Any = open_link(read_settings(RedisSettings, {"REDIS_URL": url}), at_most_s=TIMEOUT_S)
    try:
        shards = int(await client.get(SHARD_COUNT_KEY) or DEFAULT_SHARDS)
        found: dict[tuple[bytes, int], int] = {}
        for shard in range(shards):
            async for data in _unacknowledged(client, stream_key(shard)):
                _count(data, service, applied, found)
        return sum(found.values())
    finally:
        await client.aclose()


async def _unacknowledged(client: Any, stream: str) -> AsyncIterator[bytes]:
    """Yield the bytes of each entry from the first one that the group has not acknowledged."""
    if not await client.exists(stream):
        return
    groups = {group["name"]: group for group in await client.xinfo_groups(stream)}
    group = groups.get(GROUP.encode())
    start: Any = "-"
    if group is not None:
        first = (await client.xpending(stream, GROUP))["min"]
        start = first if first is not None else b"(" + group["last-delivered-id"]
    while entries := await client.xrange(stream, start, "+", count=PAGE):
        for _, fields in entries:
            if FIELD in fields:
                yield fields[FIELD]
        start = b"(" + entries[-1][0]


def _count(data: bytes, service: str, applied: dict[bytes, Any], found: dict[tuple[bytes, int], int]) -> None:
    try:
        envelope = read_envelope(data)
        if envelope.version != VERSION or read_body(envelope, data).service != service:
            return
    except BatchError:
        return
    done = applied.get(envelope.producer_id, ())
    if not any(r.lower <= envelope.seq < r.upper for r in done):
        found[envelope.producer_id, envelope.seq] = envelope.events
