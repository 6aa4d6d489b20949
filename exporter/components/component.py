"""Component: one thing that can be well or ill, and the probe that finds out.

Promise: a status is one of four words; what could not be found out is `unknown` or, for a server that does not
answer, `down`: never `ok`.
"""

from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from database.connect import AWAY as DATABASE_AWAY
from database.connect import Pool
from database.redis_link import Link
from exporter.refresh import Refresher
from exporter.settings import ExporterSettings
from exporter.snapshot import Unavailable
from exporter.streams import AWAY as REDIS_AWAY

AWAY: Final = (*DATABASE_AWAY, *REDIS_AWAY, Unavailable)
"""What a probe raises when the thing it asks fails it."""


class Status(StrEnum):
    """How a component is."""

    OK = "ok"
    DEGRADED = "degraded"
    DOWN = "down"
    UNKNOWN = "unknown"


class Severity(StrEnum):
    """What it means when a component is not ok."""

    CRITICAL = "critical"
    """Down: nothing true can be shown, all of it is down."""
    WARNING = "warning"
    """Something is held up or was lost; what is shown stays true."""
    INFO = "info"
    """Worth knowing; it changes nothing."""


class Component(NamedTuple):
    """What a probe found."""

    name: str
    status: Status
    reason: str = ""
    """Empty when there is nothing to say."""
    facts: Mapping[str, Any] = {}


class Sources(NamedTuple):
    """What probes ask."""

    settings: ExporterSettings
    pool: Pool
    link: Link
    refresher: Refresher
    replicas: Mapping[str, Pool]
    """By the name that is shown."""


class Probe(NamedTuple):
    """A question under one deadline. Several may belong to one kind."""

    name: str
    kind: str
    severity: Severity
    ask: Callable[[], Awaitable[list[Component]]]
    if_silent: Status = Status.UNKNOWN
    """Status of the components when there is no answer."""


RANK: Final = {Status.OK: 0, Status.UNKNOWN: 1, Status.DEGRADED: 2, Status.DOWN: 3}


def describe(error: BaseException) -> str:
    """Return why a probe failed. The text of a driver's error may name users, so only its kind is told."""
    if isinstance(error, Unavailable):
        return str(error)
    return f"does not answer: {type(error).__name__}"
