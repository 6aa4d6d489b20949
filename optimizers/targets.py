"""Targets: the databases that DatabaseOptimizer looks at, and how it connects to them.

In: settings. Out: the monitoring database first, then each named one; connections that only read.
Promise: no address is ever shown; a name that is unknown, doubled or malformed is a SettingsError naming its setting.
"""

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg
from pydantic import SecretStr

from database.connect import Connection, dsn_parts
from database.settings import SettingsError
from optimizers.meter import Meter
from optimizers.settings import OptimizerSettings

MONITORING: Final = "monitoring"
APPLICATION: Final = "db_optimizer"
LOCK_TIMEOUT_S: Final = 1
STATEMENT_TIMEOUT_S: Final = 30
CHANGE_TIMEOUT_S: Final = 1800
"""Of a statement that `--apply` or the automatic tier runs: an index of a big table takes its time."""
_TIMEOUTS: Final = "SET statement_timeout = '{limit_s}s'; SET idle_in_transaction_session_timeout = '60s'"
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")


@dataclass(frozen=True)
class Address:
    """Where a server is; not shown."""

    parts: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Target:
    """One database to look at."""

    name: str
    address: Address
    apply: Address | None = None
    """By which it may be changed; for the monitoring database the service's own."""
    replicas: Sequence[Address] = ()

    @property
    def is_monitoring(self) -> bool:
        """Whether it is streamgauge's own database."""
        return self.name == MONITORING


def read_targets(settings: OptimizerSettings) -> list[Target]:
    """Return the monitoring database and all that the settings name; SettingsError names a bad setting."""
    own = Address(dsn_parts(settings))
    named = _once("STREAMGAUGE_OPTIMIZER_TARGETS", settings.streamgauge_optimizer_targets)
    apply = _once("STREAMGAUGE_OPTIMIZER_APPLY_TARGETS", settings.streamgauge_optimizer_apply_targets)
    replicas = _read("STREAMGAUGE_OPTIMIZER_REPLICAS", settings.streamgauge_optimizer_replicas)
    for setting, names in (("APPLY_TARGETS", apply), ("REPLICAS", dict(replicas))):
        unknown = names.keys() - named.keys() - ({MONITORING} if setting == "REPLICAS" else set())
        if unknown:
            raise SettingsError(f"STREAMGAUGE_OPTIMIZER_{setting}: no target is called {min(unknown)}")
    return [
        Target(name, address, changed, [each for other, each in replicas if other == name])
        for name, address, changed in (
            (MONITORING, own, own),
            *((name, address, apply.get(name)) for name, address in named.items()),
        )
    ]


def _once(setting: str, value: SecretStr | None) -> dict[str, Address]:
    found: dict[str, Address] = {}
    for name, address in _read(setting, value):
        if name in found or name == MONITORING:
            raise SettingsError(f"{setting}: {name} is {'there twice' if name in found else 'our own database'}")
        found[name] = address
    return found


def _read(setting: str, value: SecretStr | None) -> list[tuple[str, Address]]:
    found: list[tuple[str, Address]] = []
    for number, text in enumerate((value.get_secret_value() if value else "").split(), 1):
        name, equals, dsn = text.partition("=")
        # The text is not repeated: it may hold a password.
        if not equals or not _NAME.fullmatch(name):
            raise SettingsError(f"{setting}: part {number} is not name=dsn (a name is like shop or shop_eu)")
        if not dsn.startswith(("postgresql://", "postgres://")):
            raise SettingsError(f"{setting}: the address of {name} must begin with postgresql://")
        found.append((name, Address({"dsn": dsn})))
    return found


@asynccontextmanager
async def connected(
    address: Address, meter: Meter, connect_timeout_s: float, *, changes: bool = False
) -> AsyncGenerator[Connection, None]:
    """Open a connection of its own, read-only unless `changes`, with its time-outs set; closed at the end."""
    limit_s = CHANGE_TIMEOUT_S if changes else STATEMENT_TIMEOUT_S
    session = {
        "application_name": APPLICATION,
        "lock_timeout": f"{LOCK_TIMEOUT_S}s",
        "default_transaction_read_only": "off" if changes else "on",
        "timezone": "UTC",
    }
    async with meter.place():
        connection = await asyncpg.connect(
            **address.parts, timeout=connect_timeout_s, command_timeout=limit_s + 5, server_settings=session
        )
        try:
            # Not at the start: pg_settings.reset_val would be these, and nobody could see what the server has (G1).
            await connection.execute(_TIMEOUTS.format(limit_s=limit_s))
            async with meter.metered(connection):
                yield connection
        finally:
            await _close(connection)


async def _close(connection: Connection) -> None:
    try:
        await connection.close(timeout=5)
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()
