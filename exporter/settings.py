"""Settings of the exporter.

Promise: frozen; each value is checked at start, and an address beyond loopback without a token is refused.
"""

from ipaddress import ip_address
from pathlib import Path

from pydantic import Field, SecretStr

from database.settings import PostgresSettings, RedisSettings, SettingsError


class ExporterSettings(PostgresSettings, RedisSettings):
    """What one exporter needs to know. Times in seconds."""

    streamgauge_exporter_host: str = "127.0.0.1"
    streamgauge_exporter_port: int = Field(default=9464, ge=0, le=65535)
    streamgauge_exporter_token: SecretStr | None = None
    """Bearer token of all pages but /healthz and /readyz; needed unless bound to loopback."""
    streamgauge_derived_file: Path | None = None
    """TOML file of ratios over a trailing window, served as gauges."""
    streamgauge_series_ttl_s: float = Field(default=86_400.0, ge=60, le=366 * 86_400)
    """A series without data for longer leaves the exposition; its total stays and resumes."""
    streamgauge_live_s: float = Field(default=15.0, gt=0, le=3600)
    """A producer is live while it was heard of at most this long before the newest of its shard."""
    streamgauge_scrape_deadline_s: float = Field(default=9.0, gt=0, le=60)
    """A scrape that cannot be answered from a fresh snapshot by then is answered 503."""
    streamgauge_probe_deadline_s: float = Field(default=2.0, gt=0, le=30)
    """How long the monitor waits for each thing that it asks; all are asked at the same time."""
    streamgauge_postgres_replicas: SecretStr | None = None
    """DSNs of replicas that the monitor looks at, separated by white space or commas."""
    streamgauge_replica_lag_s: float = Field(default=15.0, gt=0, le=86_400)
    """A replica whose heartbeat row is further behind the primary's is degraded."""
    streamgauge_stream_behind_s: float = Field(default=30.0, gt=0, le=86_400)
    """A stream whose oldest waiting entry is older is degraded."""


def is_loopback(host: str) -> bool:
    """Whether an address to bind to can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_access(settings: ExporterSettings) -> None:
    """Raise SettingsError when the pages would be open to other machines without a token."""
    token = settings.streamgauge_exporter_token
    if token is not None and not token.get_secret_value():
        raise SettingsError("STREAMGAUGE_EXPORTER_TOKEN: is empty")
    if token is None and not is_loopback(settings.streamgauge_exporter_host):
        raise SettingsError(
            f"STREAMGAUGE_EXPORTER_TOKEN: needed because STREAMGAUGE_EXPORTER_HOST is "
            f"{settings.streamgauge_exporter_host}, which other machines can reach"
        )
