"""Settings shared by the services: where PostgreSQL and Redis are, and how a bad setting is reported.

In: environment variables (and `NAME_FILE` files for secrets). Out: frozen settings objects.
Promise: an unknown STREAMGAUGE_ name or a value out of range ends the process with exit code 2 and its name.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from contract.streams import DEFAULT_SHARDS, MAX_SHARDS

EXIT_BAD_SETTINGS: Final = 2

SettingsT = TypeVar("SettingsT", bound=BaseSettings)


class SettingsError(Exception):
    """A setting that is missing, unknown or out of range; the text names it."""


class ServiceSettings(BaseSettings):
    """Base of every service's settings: frozen, read from the environment by field name, upper case."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix="", case_sensitive=False)


class PostgresSettings(ServiceSettings):
    """Where PostgreSQL is. `postgres_dsn` wins over the single parts."""

    postgres_dsn: SecretStr | None = None
    postgres_host: str = "127.0.0.1"
    postgres_port: int = Field(default=5432, ge=1, le=65535)
    postgres_db: str = "streamgauge"
    postgres_user: str = "streamgauge"
    postgres_password: SecretStr | None = None
    streamgauge_postgres_connect_timeout_s: float = Field(default=2.0, gt=0, le=60)
    """Deadline to connect to one host; each host of a list gets its own."""
    streamgauge_statement_timeout_s: float = Field(default=30.0, gt=0, le=3600)


class RedisSettings(ServiceSettings):
    """Where Redis is."""

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    streamgauge_redis_timeout_s: float = Field(default=5.0, gt=0, le=60)
    streamgauge_shards: int = Field(default=DEFAULT_SHARDS, ge=1, le=MAX_SHARDS)
    """Number of streams when Redis has none recorded; it may only grow."""


_OTHERS: Final = frozenset(
    {
        "STREAMGAUGE_HOME",
        "STREAMGAUGE_API_PORT",
        "STREAMGAUGE_REDIS_PORT",
        "STREAMGAUGE_SERVICE",
        "STREAMGAUGE_FLUSH_INTERVAL_S",
        "STREAMGAUGE_MAX_SERIES_PER_METRIC",
        "STREAMGAUGE_EXIT_TIMEOUT_S",
        "STREAMGAUGE_DISABLED",
        "STREAMGAUGE_RUN_ID",
        "STREAMGAUGE_SHARDS",
        "STREAMGAUGE_CRASH_AT",
    }
)
"""Names read by the producer library and the command line, which do not use this module."""

_KNOWN: Final[set[str]] = set(_OTHERS)


def known_names(*models: type[BaseSettings]) -> set[str]:
    """Return the environment names that the given settings classes and the producer side read."""
    return _KNOWN | {name.upper() for model in models for name in model.model_fields}


def read_settings(
    model: type[SettingsT], environ: Mapping[str, str] | None = None, also: Iterable[type[BaseSettings]] = ()
) -> SettingsT:
    """Read `model` from the environment; SettingsError names the first unknown or bad setting.

    `also` lists the settings classes of the other services that may share the environment.
    """
    environ = os.environ if environ is None else environ
    known = known_names(model, *also)
    for name in environ:
        plain = name.upper().removesuffix("_FILE")
        if name.upper().startswith("STREAMGAUGE_") and plain not in known and name.upper() not in known:
            raise SettingsError(f"{name}: no such setting")
    try:
        return model(**_from_files(model, environ))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).upper() if first["loc"] else model.__name__
        raise SettingsError(f"{name}: {first['msg']}") from None


def _from_files(model: type[BaseSettings], environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in model.model_fields:
        path = environ.get(f"{field.upper()}_FILE")
        if path is not None and f"{field}_file" not in model.model_fields:
            try:
                values[field] = Path(path).read_text().rstrip("\n")
            except OSError as error:
                raise SettingsError(f"{field.upper()}_FILE: {error.strerror}: {path}") from None
        elif (text := environ.get(field.upper())) is not None:
            values[field] = text
    return values


def exit_bad_settings(error: SettingsError) -> NoReturn:
    """Print the one line that names the setting and leave with exit code 2."""
    sys.stderr.write(f"streamgauge: bad setting: {error}\n")
    raise SystemExit(EXIT_BAD_SETTINGS)
