"""Replicas: addresses of servers that are only looked at, and pools of one connection to each.

In: a text of DSNs. Out: pools by a name to show. Promise: a name holds host and port only; every call has a deadline.
"""

from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

import asyncpg

from database.connect import SCHEMA, Pool
from database.settings import SettingsError

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


async def open_replicas(addresses: Mapping[str, str], deadline_s: float) -> dict[str, Pool]:
    """Make the pools; they connect when they are asked."""
    return {
        name: await asyncpg.create_pool(
            dsn=dsn,
            min_size=0,
            max_size=1,
            timeout=deadline_s,
            command_timeout=deadline_s,
            max_inactive_connection_lifetime=300,
            server_settings={"application_name": "streamgauge monitor", "search_path": f'"{SCHEMA}"'},
        )
        for name, dsn in addresses.items()
    }
