"""Settings of the optimizers.

Promise: frozen; each value is checked at start and a bad one ends the process with exit code 2 and its name.
"""

from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from database.settings import PostgresSettings, RedisSettings, RetentionSettings


class OptimizerSettings(PostgresSettings, RedisSettings, RetentionSettings):
    """What the scheduled jobs need to know. Times in seconds unless the name says otherwise."""

    streamgauge_optimizer_targets: SecretStr | None = None
    """Further databases to look at, by a read-only role: `name=dsn`, separated by spaces or lines."""
    streamgauge_optimizer_apply_targets: SecretStr | None = None
    """The same names with the addresses that `streamgauge optimize --apply` may change them by."""
    streamgauge_optimizer_replicas: SecretStr | None = None
    """Replicas whose index use counts too: `name=dsn`, a name as often as it has replicas; `monitoring` is ours."""
    streamgauge_checks_file: Path | None = None
    """TOML file of thresholds: a table per check, a key per threshold."""
    streamgauge_thresholds_file: Path | None = None
    """TOML file of what is calibrated; none: the file that is shipped."""
    streamgauge_optimizer_open_after_runs: int = Field(default=2, ge=1, le=100)
    """A finding is published when so many runs in a row have seen it."""
    streamgauge_optimizer_resolve_after_runs: int = Field(default=3, ge=1, le=100)
    """A finding is resolved when so many runs in a row have not seen it."""
    streamgauge_optimizer_shortest_interval_s: float = Field(default=300.0, ge=1, le=86_400)
    """Counters are compared over at least this long."""
    streamgauge_optimizer_automatic: bool = True
    """Whether findings of the automatic tier are acted on (in the monitoring database only)."""
    streamgauge_cache_ttl_apply: bool = False
    """Whether lifetimes are changed through Redis; else they are only proposed."""
    streamgauge_cache_ttl_hit_ratio: float = Field(default=0.9, gt=0, lt=1)
    """The hit ratio that lifetimes are set for."""
    streamgauge_cache_ttl_stale_share: float = Field(default=0.05, gt=0, le=0.5)
    """Share of hits that may be answered with a value that has changed since."""
    streamgauge_cache_ttl_cap_s: float = Field(default=86_400.0, ge=1)
    """No lifetime becomes longer."""
    streamgauge_cache_ttl_caps: str = ""
    """Other caps of single classes: `class=seconds`, separated by spaces or commas."""

    @field_validator("streamgauge_cache_ttl_caps")
    @classmethod
    def _check_caps(cls, text: str) -> str:
        _read_caps(text)
        return text

    def cache_ttl_caps(self) -> dict[str, float]:
        """Return the caps of single classes, seconds."""
        return _read_caps(self.streamgauge_cache_ttl_caps)


def _read_caps(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in text.replace(",", " ").split():
        name, _, cap = part.rpartition("=")
        try:
            found[name] = float(cap)
        except ValueError:
            raise ValueError(f"{part!r} is not class=seconds") from None
        if not name or not found[name] >= 1:
            raise ValueError(f"{part!r} is not class=seconds, with at least 1 second")
    return found
