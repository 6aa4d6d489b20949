"""The contract of a check: what DatabaseOptimizer hands to it and what it answers.

In: a Look (a read-only connection to the target, settings, counters of earlier runs). Out: an Answer.
Promise: a check only looks; what may be done about a finding is in the finding, with its tier.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Protocol

import asyncpg

from database.connect import Connection
from optimizers.settings import OptimizerSettings


class Unsupported(Exception):
    """The target lacks what the check needs (an extension, a version); the text says what and how to get it."""


class Severity(StrEnum):
    """How bad a finding is."""

    INFO = "info"
    WARN = "warn"
    CRITICAL = "critical"


class Tier(StrEnum):
    """Who may act on a finding."""

    AUTOMATIC = "automatic"
    """Done at once, in the monitoring database only."""
    OPT_IN = "opt_in"
    """Done by `--apply` only, one at a time, with the SQL that undoes it recorded."""
    NEVER = "never"
    """Text for a person."""


class Remedy(StrEnum):
    """How a finding of the automatic or opt-in tier is acted on."""

    SQL = "sql"
    """Its own `sql`; the automatic tier takes no statement but ANALYZE and plain VACUUM."""
    PARTITIONS = "partitions"
    """The upkeep of the monitoring database: make the partitions that are missing."""
    RETENTION = "retention"
    """The upkeep of the monitoring database: drop what is older than the configured retention."""


@dataclass(frozen=True)
class Finding:
    """Something worth a person's time."""

    object: str
    """What it is about, qualified and quoted as SQL would write it; with the check's id its identity."""
    severity: Severity
    recommendation: str
    evidence: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The numbers it rests on, with units in their names."""
    sql: str | None = None
    """Statement to copy (or to apply, where the tier allows); never run by the check."""
    rollback: str | None = None
    """SQL that undoes `sql`; None: there is nothing to undo."""
    tier: Tier = Tier.NEVER
    remedy: Remedy = Remedy.SQL


@dataclass(frozen=True)
class Answer:
    """What a check found. Findings are sorted worst first and capped by the optimizer, not by the check."""

    findings: Sequence[Finding] = ()
    insufficient: str | None = None
    """Why nothing can be said yet; findings may still hold what is certain."""


@dataclass(frozen=True)
class Interval:
    """What was counted between an earlier run and now, for objects that were there at both."""

    seconds: float
    deltas: Mapping[str, Mapping[str, float]]
    """Object -> counter -> increase. An object whose counter fell was reset and is left out."""

    @property
    def hours(self) -> float:
        """Length in hours."""
        return self.seconds / 3600


class Look(Protocol):
    """A check's view of one target."""

    @property
    def connection(self) -> Connection:
        """Read-only, with statement and lock time-outs set, to the target."""
        ...

    @property
    def settings(self) -> OptimizerSettings: ...

    @property
    def now(self) -> datetime: ...

    @property
    def version(self) -> int:
        """Major version of the target's server."""
        ...

    @property
    def extensions(self) -> frozenset[str]:
        """Installed in the target's database."""
        ...

    @property
    def is_monitoring(self) -> bool:
        """Whether the target is streamgauge's own database."""
        ...

    @property
    def search_path(self) -> str:
        """Where names in statements of the target's applications resolve, as SET takes it."""
        ...

    @property
    def stats_age_s(self) -> float | None:
        """Age of the statistics of the target: since the last reset or crash."""
        ...

    async def since(
        self, name: str, counters: Mapping[str, Mapping[str, float]], epoch: str = "", *, is_complete: bool = False
    ) -> Interval | None:
        """Store counters under a name of this check and return what was added since about an hour ago.

        None: there is no earlier snapshot that is old enough (>= settings' shortest interval), or statistics were
        reset in between: the target's own (noticed here), or those whose `epoch` the caller gives, such as
        pg_stat_statements_info.stats_reset. `is_complete`: the counters name every object there is, each time, so
        that one that was not there before began at zero.
        """
        ...

    async def everywhere(self, query: str, *args: object) -> Mapping[str, Sequence["asyncpg.Record"]]:
        """Run one query on the target and on each replica that is configured for it: node -> rows.

        A replica that does not answer is missing here and named in `unseen`; `primary` is always there.
        """
        ...

    @property
    def unseen(self) -> Sequence[str]:
        """Configured replicas that did not answer in this run."""
        ...

    async def remember(self, name: str, values: Mapping[str, Mapping[str, float]]) -> None:
        """Keep this hour's values of objects for 14 days; a second call in an hour replaces the first."""
        ...

    async def remembered(self, name: str) -> Mapping[str, Sequence[tuple[datetime, Mapping[str, float]]]]:
        """Return what `remember` kept in earlier hours, by object, oldest first."""
        ...

    async def first_seen(self, objects: Iterable[str]) -> Mapping[str, datetime]:
        """Return since when this check has named each object in every run: the catalogue does not tell its age."""
        ...


class Check(Protocol):
    """One check: a frozen dataclass whose fields are its thresholds, so that a settings file can replace them.

    Errors that PostgreSQL raises are left to the optimizer: it reports them as permission, timeout or unsupported.
    """

    id: ClassVar[str]
    """As in the catalogue: Q1, I3, …"""
    title: ClassVar[str]
    timeout_s: ClassVar[float]

    async def look(self, look: Look) -> Answer:
        """Look once, inside a read-only transaction that is rolled back afterwards."""
        ...
