"""One run's view of one target, and one check's share of it.

In: connections to target, replicas and store. Out: TargetLook, which fulfils the contract `Look`.
Promise: the target is only read; what is kept goes to the monitoring database.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime

import asyncpg

from database.connect import AWAY, SCHEMA, Connection
from database.queries import load
from optimizers.check import Interval
from optimizers.counters import Counters, Values
from optimizers.settings import OptimizerSettings

Connecting = Callable[[], AbstractAsyncContextManager[Connection]]


@dataclass(frozen=True)
class Facts:
    """What a target says of itself."""

    version: int
    server_version: str
    search_path: str
    extensions: frozenset[str]
    epoch: str
    stats_age_s: float | None


async def read_facts(connection: Connection) -> Facts:
    """Ask the target, and let names of its extensions resolve from now on."""
    row = await connection.fetchrow(load("target_facts"))
    assert row is not None
    schemas = ["pg_catalog", *row["extension_schemas"], "public"]
    await connection.execute(f"SET search_path = {', '.join(schemas)}")
    return Facts(
        row["version"],
        row["server_version"],
        row["search_path"],
        frozenset(row["extensions"]),
        row["epoch"],
        row["stats_age_s"],
    )


@dataclass
class Nodes:
    """A target's servers: the one that is looked at and its replicas."""

    primary: Connection
    replicas: Mapping[str, Connecting] = field(default_factory=dict[str, Connecting])
    """Each opens a connection for as long as one question takes: any number of replicas shares a place."""
    unseen: list[str] = field(default_factory=list[str])

    async def probe(self) -> None:
        """Connect to each replica once, so that one that hangs costs no check its time."""
        for name, connected in self.replicas.items():
            try:
                async with connected():
                    pass
            except AWAY:
                self.unseen.append(name)

    async def everywhere(self, query: str, *args: object) -> dict[str, Sequence[asyncpg.Record]]:
        """Ask all of them; a replica that fails is named in `unseen` from then on.

        One that refuses what the primary allows did answer: asyncpg.InsufficientPrivilegeError leaves here.
        """
        found: dict[str, Sequence[asyncpg.Record]] = {"primary": await self.primary.fetch(query, *args)}
        for name, connected in self.replicas.items():
            if name in self.unseen:
                continue
            try:
                async with connected() as replica:
                    found[name] = await replica.fetch(query, *args)
            except asyncpg.InsufficientPrivilegeError:
                raise
            except AWAY:
                self.unseen.append(name)
        return found


@dataclass(frozen=True)
class TargetLook:
    """What a check sees."""

    nodes: Nodes
    settings: OptimizerSettings
    now: datetime
    is_monitoring: bool
    facts: Facts
    counters: Counters

    @property
    def connection(self) -> Connection:
        """Read-only, to the target."""
        return self.nodes.primary

    @property
    def version(self) -> int:
        """Major version of the target's server."""
        return self.facts.version

    @property
    def extensions(self) -> frozenset[str]:
        """Installed in the target's database."""
        return self.facts.extensions

    @property
    def search_path(self) -> str:
        """Where names in the applications' statements resolve."""
        return f"{SCHEMA}, public" if self.is_monitoring else self.facts.search_path

    @property
    def stats_age_s(self) -> float | None:
        """Age of the target's statistics."""
        return self.facts.stats_age_s

    @property
    def unseen(self) -> Sequence[str]:
        """Configured replicas that did not answer."""
        return self.nodes.unseen

    async def since(
        self, name: str, counters: Values, epoch: str = "", *, is_complete: bool = False
    ) -> Interval | None:
        """See `Look.since`."""
        return await self.counters.since(name, counters, epoch, is_complete=is_complete)

    async def everywhere(self, query: str, *args: object) -> Mapping[str, Sequence[asyncpg.Record]]:
        """See `Look.everywhere`."""
        return await self.nodes.everywhere(query, *args)

    async def remember(self, name: str, values: Values) -> None:
        """See `Look.remember`."""
        await self.counters.remember(name, values)

    async def remembered(self, name: str) -> Mapping[str, Sequence[tuple[datetime, Mapping[str, float]]]]:
        """See `Look.remembered`."""
        return await self.counters.remembered(name)

    async def first_seen(self, objects: Iterable[str]) -> Mapping[str, datetime]:
        """See `Look.first_seen`."""
        return await self.counters.first_seen(objects)
