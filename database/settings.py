"""Settings shared by the services: where PostgreSQL and Redis are, and how a bad setting is reported.

In: environment variables (and `NAME_FILE` files for secrets). Out: frozen settings objects.
Promise: an unknown STREAMGAUGE_ name or a value out of range ends the process with exit code 2 and its name.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_core import PydanticCustomError
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
    postgres_pooled_dsn: SecretStr | None = None
    """The same database through PgBouncer in transaction mode, for commits and scrapes."""
    postgres_host: str = "127.0.0.1"
    """One host, or several separated by commas: the one that takes writes is used."""
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


_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}


def read_duration_s(value: object) -> object:
    """Return seconds of a text such as `36h`, `2d` or `2y`; a number is left to the field's own check."""
    text = str(value).strip()
    if text[:-1].isdigit() and text[-1:] in _UNITS_S:
        return int(text[:-1]) * _UNITS_S[text[-1]]
    try:
        float(text)
    except ValueError:
        raise PydanticCustomError("duration", "expected seconds, or a duration such as 2d (s m h d w y)") from None
    return value


Duration = Annotated[float, BeforeValidator(read_duration_s)]

SHORTEST_RETENTION_S: Final = 26 * 3600
"""Longer than data may be late: a window is rolled up again from the level below, which must still hold all of it."""


class RetentionSettings(ServiceSettings):
    """How long each level is kept: seconds, or a number with one of the units s m h d w y."""

    streamgauge_retention_10s: Duration = Field(default=2 * 86_400, ge=SHORTEST_RETENTION_S)
    streamgauge_retention_1m: Duration = Field(default=30 * 86_400, ge=SHORTEST_RETENTION_S)
    streamgauge_retention_1h: Duration = Field(default=2 * 365 * 86_400, ge=SHORTEST_RETENTION_S)
    streamgauge_retention_partitions: int = Field(default=20, ge=1, le=10_000)
    """Dropped in one run at most; the next run drops more."""


KNOWN_NAMES: Final = frozenset(
    {
        "STREAMGAUGE_API_PORT",
        "STREAMGAUGE_API_URLS",
        "STREAMGAUGE_AUDIT_INTERVAL_S",
        "STREAMGAUGE_CACHE_TTL_APPLY",
        "STREAMGAUGE_CACHE_TTL_CAPS",
        "STREAMGAUGE_CACHE_TTL_CAP_S",
        "STREAMGAUGE_CACHE_TTL_HIT_RATIO",
        "STREAMGAUGE_CACHE_TTL_INTERVAL_S",
        "STREAMGAUGE_CACHE_TTL_STALE_SHARE",
        "STREAMGAUGE_CHECKS_FILE",
        "STREAMGAUGE_COLLECT_METRICS_INTERVAL_S",
        "STREAMGAUGE_COMMIT_INTERVAL_S",
        "STREAMGAUGE_COMMIT_MAX_BATCHES",
        "STREAMGAUGE_COMMIT_MAX_BYTES",
        "STREAMGAUGE_CRASH_AT",
        "STREAMGAUGE_DERIVED_FILE",
        "STREAMGAUGE_DISABLED",
        "STREAMGAUGE_EXIT_TIMEOUT_S",
        "STREAMGAUGE_EXPORTER_HOST",
        "STREAMGAUGE_EXPORTER_PORT",
        "STREAMGAUGE_EXPORTER_TOKEN",
        "STREAMGAUGE_EXPORTER_URL",
        "STREAMGAUGE_FLUSH_INTERVAL_S",
        "STREAMGAUGE_HEALTH_DISKS",
        "STREAMGAUGE_HEARTBEAT_S",
        "STREAMGAUGE_HOME",
        "STREAMGAUGE_LEASE_S",
        "STREAMGAUGE_LIVE_S",
        "STREAMGAUGE_LOAD_RUNS",
        "STREAMGAUGE_MAX_SERIES_PER_METRIC",
        "STREAMGAUGE_OPTIMIZER_APPLY_TARGETS",
        "STREAMGAUGE_OPTIMIZER_AUTOMATIC",
        "STREAMGAUGE_OPTIMIZER_OPEN_AFTER_RUNS",
        "STREAMGAUGE_OPTIMIZER_REPLICAS",
        "STREAMGAUGE_OPTIMIZER_RESOLVE_AFTER_RUNS",
        "STREAMGAUGE_OPTIMIZER_SHORTEST_INTERVAL_S",
        "STREAMGAUGE_OPTIMIZER_TARGETS",
        "STREAMGAUGE_POSTGRES_CONNECT_TIMEOUT_S",
        "STREAMGAUGE_POSTGRES_REPLICAS",
        "STREAMGAUGE_PROBE_DEADLINE_S",
        "STREAMGAUGE_RECALIBRATE_THRESHOLDS_INTERVAL_S",
        "STREAMGAUGE_RECLAIM_IDLE_S",
        "STREAMGAUGE_RECLAIM_INTERVAL_S",
        "STREAMGAUGE_REDIS_PORT",
        "STREAMGAUGE_REDIS_TIMEOUT_S",
        "STREAMGAUGE_REPLAY_WINDOW_S",
        "STREAMGAUGE_REPLICA_LAG_S",
        "STREAMGAUGE_RELEASE",
        "STREAMGAUGE_RETENTION_10S",
        "STREAMGAUGE_RETENTION_1H",
        "STREAMGAUGE_RETENTION_1M",
        "STREAMGAUGE_RETENTION_PARTITIONS",
        "STREAMGAUGE_RUN_ID",
        "STREAMGAUGE_RUN_OPTIMIZATION_INTERVAL_S",
        "STREAMGAUGE_SCHEDULE_BEAT_S",
        "STREAMGAUGE_SCHEDULE_COALESCE",
        "STREAMGAUGE_SCHEDULE_JITTER_S",
        "STREAMGAUGE_SCHEDULE_MISFIRE_GRACE_S",
        "STREAMGAUGE_SCHEDULE_STALE_S",
        "STREAMGAUGE_SCHEDULE_WAIT_S",
        "STREAMGAUGE_SCRAPE_DEADLINE_S",
        "STREAMGAUGE_SERIES_BUDGET",
        "STREAMGAUGE_SERIES_TTL_S",
        "STREAMGAUGE_SERVICE",
        "STREAMGAUGE_SHARDS",
        "STREAMGAUGE_SPOOL_DIR",
        "STREAMGAUGE_SPOOL_EVENTS",
        "STREAMGAUGE_STATEMENT_TIMEOUT_S",
        "STREAMGAUGE_STREAM_BEHIND_S",
        "STREAMGAUGE_STREAM_MAX_BYTES",
        "STREAMGAUGE_THRESHOLDS_FILE",
        "STREAMGAUGE_TRIM_INTERVAL_S",
        "STREAMGAUGE_UPKEEP_INTERVAL_S",
    }
)
"""Every STREAMGAUGE_ name that a service, the producer library or the command line reads: they may share an
environment, so each must know the others' names to tell a misspelt one. A test holds this to the settings."""


def read_settings(model: type[SettingsT], environ: Mapping[str, str] | None = None) -> SettingsT:
    """Read `model` from the environment; SettingsError names the first unknown or bad setting."""
    environ = os.environ if environ is None else environ
    for name in environ:
        known = KNOWN_NAMES & {name.upper(), name.upper().removesuffix("_FILE")}
        if name.upper().startswith("STREAMGAUGE_") and not known:
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
