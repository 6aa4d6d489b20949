"""Settings of the reference application, from the environment; `NAME_FILE` reads a value from a file.

In: an environment. Out: Settings, or an error that names the setting. The servers are the pipeline's own
(`REDIS_URL`, `POSTGRES_*`); without them the listing route answers 503 and the rest works.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

import msgspec

CACHE_SCHEMES: Final = ("redis://", "rediss://", "unix://")
"""What the cache can connect to; Sentinel and Cluster addresses leave it off."""


class SettingError(ValueError):
    """A setting that cannot be used; the text names it."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the reference application is told."""

    postgres: Mapping[str, Any] | None = None
    """Arguments of asyncpg.connect; None: no PostgreSQL was named."""
    cache_url: str | None = None
    cache_ttl_s: int = 60
    ws_origins: tuple[str, ...] = ()
    """Origins of pages that may open a WebSocket, beside the server's own."""
    ws_per_client: int = 20
    """WebSockets that one client address may have open with this replica."""
    ws_messages_per_s: int = 50
    """Messages a second that a WebSocket may send."""
    seller_model_file: Path | None = None
    intent_model_file: Path | None = None
    score_model_file: Path | None = None

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings; SettingError names the one that cannot be used."""
        url = _value(environ, "REFERENCE_CACHE_URL") or _value(environ, "REDIS_URL")
        return cls(
            postgres=_postgres(environ),
            cache_url=url if url and url.startswith(CACHE_SCHEMES) else None,
            cache_ttl_s=_positive(environ, "REFERENCE_CACHE_TTL_S", 60),
            ws_origins=_origins(environ, "REFERENCE_WS_ORIGINS"),
            ws_per_client=_positive(environ, "REFERENCE_WS_PER_CLIENT", 20),
            ws_messages_per_s=_positive(environ, "REFERENCE_WS_MESSAGES_PER_S", 50),
            seller_model_file=_path(environ, "JORGE_SELLER_MODEL_FILE"),
            intent_model_file=_path(environ, "INTENT_MODEL_FILE"),
            score_model_file=_path(environ, "SCORE_MODEL_FILE"),
        )


def _value(environ: Mapping[str, str], name: str) -> str | None:
    if path := environ.get(f"{name}_FILE"):
        try:
            return Path(path).read_text().rstrip("\n")
        except OSError as error:
            raise SettingError(f"{name}_FILE: {error.strerror}: {path}") from None
    return environ.get(name) or None


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]) if environ.get(name) else None


def _origins(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    found = tuple((environ.get(name) or "").replace(",", " ").split())
    for one in found:
        if urlsplit(one).scheme not in ("http", "https") or urlsplit(one)._replace(path="").geturl() != one:
            raise SettingError(f"{name}: {one!r} is not scheme://host[:port]")
    return found


def _positive(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isdecimal() or not int(text):
        raise SettingError(f"{name}: {text!r} is not a positive whole number")
    return int(text)


def _postgres(environ: Mapping[str, str]) -> Mapping[str, Any] | None:
    if dsn := _value(environ, "POSTGRES_DSN"):
        return {"dsn": dsn}
    host = _value(environ, "POSTGRES_HOST")
    if host is None:
        return None
    return {
        "host": host.split(",") if "," in host else host,
        "port": _positive(environ, "POSTGRES_PORT", 5432),
        "database": _value(environ, "POSTGRES_DB") or "streamgauge",
        "user": _value(environ, "POSTGRES_USER") or "streamgauge",
        "password": _value(environ, "POSTGRES_PASSWORD"),
        # Of several hosts the primary: the first replica that starts makes the table.
        "target_session_attrs": "read-write",
    }
