"""Hosts: which of the servers that an address names is connected to.

In: PostgresSettings. Out: `connect`, by which a pool makes its connections.
Promise: each host has a deadline of its own, so that one that accepts and never answers costs no more than that; a
server on an older timeline than one that was used, or was required, is passed over: its commits would be on a branch
that nobody follows.
"""

from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from database.queries import load
from database.settings import PostgresSettings

DEFAULT_PORT: Final = 5432
REFUSALS: Final = (
    asyncpg.CannotConnectNowError,
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InternalClientError,  # among them: the server does not take writes
    OSError,
    TimeoutError,
)
"""What lets the next host be tried; a wrong password is as wrong there."""


class OldTimeline(OSError):
    """The server is behind the one whose commits were acknowledged: writing to it would fork history."""

    def __init__(self, system: int, timeline: int, needed: int) -> None:
        super().__init__(f"database {system} is on timeline {timeline}, acknowledgements refer to {needed}")
        self.system = system
        self.needed = needed


class Hosts:
    """The servers of one address, for any number of pools. `changes` counts how often a newer timeline was met."""

    def __init__(self, settings: PostgresSettings) -> None:
        self.changes = 0
        self._places = places(settings)
        self._least: dict[int, int] = {}

    def require(self, system: int, timeline: int) -> None:
        """Pass over servers of this system on an older timeline."""
        if timeline > self._least.get(system, 0):
            self._least[system] = timeline
            self.changes += 1

    def require_identity(self, identity: str) -> None:
        """Do the same for `<system identifier>/<timeline>`, as Redis has it; any other text is passed over."""
        system, _, timeline = identity.partition("/")
        if system.isdigit() and timeline.isdigit():
            self.require(int(system), int(timeline))

    async def connect(self, *arguments: Any, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
        """Connect to the first host that may be used, the one of the last time first."""
        if len(self._places) == 1:
            return await self._connect(*arguments, **options)
        if not self._least:
            await self._look_at_all(*arguments, **options)
        refusal: BaseException = OSError("no host is named")
        for place in tuple(self._places):
            try:
                connection = await self._connect(*arguments, **options | place)
            except REFUSALS as error:
                refusal = error
                continue
            self._places.remove(place)
            self._places.insert(0, place)
            return connection
        raise refusal

    async def _look_at_all(self, *arguments: Any, **options: Any) -> None:
        """Find out which timeline is the newest: a former primary that woke up takes writes, too."""
        for place in tuple(self._places):
            with suppress(*REFUSALS):
                connection = await self._connect(*arguments, **options | place)
                await connection.close(timeout=options["timeout"])

    async def _connect(self, *arguments: Any, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
        connection = await asyncpg.connect(*arguments, **options)
        try:
            row = await connection.fetchrow(load("database_identity"), timeout=options["timeout"])
            assert row is not None, "BUG: a query without FROM has a row"
            system, timeline = int(row["system_identifier"]), int(row["timeline"])
            if timeline < self._least.get(system, 0):
                raise OldTimeline(system, timeline, self._least[system])
        except BaseException:
            connection.terminate()
            raise
        self.require(system, timeline)
        return connection


def host_names(settings: PostgresSettings) -> list[str]:
    """Return the hosts of POSTGRES_HOST, which may name several: whichever takes writes is used."""
    return [host.strip() for host in settings.postgres_host.split(",")]


def places(settings: PostgresSettings) -> list[dict[str, Any]]:
    """Return host and port of each server; one empty place where an address names a single one."""
    if settings.postgres_dsn is None:
        return [{"host": host, "port": settings.postgres_port} for host in host_names(settings)]
    parts = urlsplit(settings.postgres_dsn.get_secret_value())
    named = parts.netloc.rpartition("@")[2]
    if not named:
        query = parse_qs(parts.query)
        hosts = query.get("host", [""])[0].split(",")
        ports = query.get("port", [str(DEFAULT_PORT)])[0].split(",")
        named = ",".join(f"{host}:{ports[min(i, len(ports) - 1)]}" for i, host in enumerate(hosts))
    if "," not in named:
        return [{}]
    return [_place(one) for one in named.split(",")]


def _place(text: str) -> dict[str, Any]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    return {"host": unquote(host).strip("[]"), "port": int(port)}
