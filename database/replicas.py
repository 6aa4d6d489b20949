"""Replicas: addresses of servers that are only read, and pools of connections to each.

In: a text of DSNs. Out: pools by a name to show. Promise: a name holds host and port only; every call has a deadline.
"""

from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

import asyncpg

from database.connect import SCHEMA, Pool, server_settings
from database.settings import PostgresSettings, SettingsError

SETTING = "STREAMGAUGE_POSTGRES_REPLICAS"


def read_replicas(text: str) -> dict[str, str]:
    """Return name -> DSN; SettingsError tells which one, counted from 1, is none (a DSN may hold a password)."""
    found: dict[str, str] = {}
    for number, dsn in enumerate(text.replace(",", " ").split(), 1):
        try:
            name = _name(dsn)
        except ValueError:
            raise SettingsError(f"{SETTING}: number {number} is no postgresql://… address") from None
        if name in found:
            raise SettingsError(f"{SETTING}: {name} is named twice")
        found[name] = dsn
    return found


def _name(dsn: str) -> str:
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    host = parts.hostname or query.get("host", [""])[0]
    port = parts.port or int(query.get("port", ["5432"])[0])
    if parts.scheme not in ("postgresql", "postgres") or not host:
        raise ValueError(dsn)
    return f"{host}:{port}"


async def open_replicas(
    addresses: Mapping[str, str],
    settings: PostgresSettings,
    *,
    application: str = "streamgauge monitor",
    size: int = 1,
) -> dict[str, Pool]:
    """Make the pools, with the deadlines of `settings`; they connect when they are asked."""
    return {
        name: await asyncpg.create_pool(
            dsn=dsn,
            min_size=0,
            max_size=size,
            timeout=settings.streamgauge_postgres_connect_timeout_s,
            command_timeout=settings.streamgauge_statement_timeout_s,
            max_inactive_connection_lifetime=300,
            server_settings=server_settings(settings, SCHEMA, application),
        )
        for name, dsn in addresses.items()
    }
