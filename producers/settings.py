"""Settings of the producer side, read from the environment by the library itself, so that it stays light.

Promise: a bad value raises SettingsError, which names the setting.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from contract.streams import DEFAULT_SHARDS, MAX_SHARDS

T = TypeVar("T")


class SettingsError(ValueError):
    """A setting that is missing or out of range; the text names it."""


@dataclass(frozen=True)
class Settings:
    """What a producer needs to know. Times in seconds."""

    redis_url: str = "redis://127.0.0.1:6379/0"
    service: str = "default"
    flush_interval_s: float = 0.25
    max_series_per_metric: int = 10_000
    """Live series of one metric; the surplus goes to its overflow series (gauges: dropped and counted)."""
    exit_timeout_s: float = 2.0
    """How long the end of the process may wait for the last batches to be acknowledged."""
    redis_timeout_s: float = 5.0
    shards: int = DEFAULT_SHARDS
    disabled: bool = False
    run_id: str | None = None
    """Marks everything as synthetic traffic of one load-test run."""
    release: str = ""
    """What this build of the application is called; becomes a label of request durations."""
    cache_ttl_apply: bool = False
    """Whether caches take the lifetimes that are set in Redis."""
    spool_dir: str = ""
    """Where sealed batches are kept until they are acknowledged, for a successor of a killed process; empty: off."""
    spool_events: bool = False
    """Whether every emit is written to the spool at once, so that a kill -9 loses none; some 250 ns each."""
    crash_at: str = ""
    """Test hook: the named point at which the process kills itself."""

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings from the environment."""
        env = os.environ if environ is None else environ
        return cls(
            redis_url=_text(env, "REDIS_URL", cls.redis_url),
            service=_service(_text(env, "STREAMGAUGE_SERVICE", cls.service)),
            flush_interval_s=_number(env, "STREAMGAUGE_FLUSH_INTERVAL_S", cls.flush_interval_s, float, 0.01, 10),
            max_series_per_metric=_number(
                env, "STREAMGAUGE_MAX_SERIES_PER_METRIC", cls.max_series_per_metric, int, 1, 10_000_000
            ),
            exit_timeout_s=_number(env, "STREAMGAUGE_EXIT_TIMEOUT_S", cls.exit_timeout_s, float, 0, 60),
            redis_timeout_s=_number(env, "STREAMGAUGE_REDIS_TIMEOUT_S", cls.redis_timeout_s, float, 0.1, 60),
            shards=_number(env, "STREAMGAUGE_SHARDS", cls.shards, int, 1, MAX_SHARDS),
            disabled=_is_on(env, "STREAMGAUGE_DISABLED"),
            run_id=_text(env, "STREAMGAUGE_RUN_ID", "") or None,
            release=_release(_text(env, "STREAMGAUGE_RELEASE", "")),
            cache_ttl_apply=_is_on(env, "STREAMGAUGE_CACHE_TTL_APPLY"),
            spool_dir=_text(env, "STREAMGAUGE_SPOOL_DIR", ""),
            spool_events=_spool_events(env),
            crash_at=_text(env, "STREAMGAUGE_CRASH_AT", ""),
        )


def _text(env: Mapping[str, str], name: str, default: str) -> str:
    path = env.get(f"{name}_FILE")
    if path is None:
        return env.get(name, default)
    try:
        return Path(path).read_text().rstrip("\n")
    except OSError as error:
        raise SettingsError(f"{name}_FILE: {error.strerror}: {path}") from None


def _is_on(env: Mapping[str, str], name: str) -> bool:
    return _text(env, name, "").strip().lower() not in ("", "0", "false", "f", "no", "n", "off")


def _service(text: str) -> str:
    if not text or not _is_label(text):
        raise SettingsError("STREAMGAUGE_SERVICE: 1 to 128 characters of valid Unicode are allowed")
    return text


def _spool_events(env: Mapping[str, str]) -> bool:
    is_on = _is_on(env, "STREAMGAUGE_SPOOL_EVENTS")
    if is_on and not _text(env, "STREAMGAUGE_SPOOL_DIR", ""):
        raise SettingsError("STREAMGAUGE_SPOOL_EVENTS: needs STREAMGAUGE_SPOOL_DIR")
    return is_on


def _release(text: str) -> str:
    if not _is_label(text):
        raise SettingsError("STREAMGAUGE_RELEASE: at most 128 characters of valid Unicode are allowed")
    return text


def _is_label(text: str) -> bool:
    # A lone surrogate (bytes in the environment that are not UTF-8) could not be encoded into a batch.
    return len(text) <= 128 and "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)


def _number(env: Mapping[str, str], name: str, default: T, kind: Callable[[str], T], low: float, high: float) -> T:
    if name not in env and f"{name}_FILE" not in env:
        return default
    text = _text(env, name, "")
    try:
        value = kind(text)
    except ValueError:
        raise SettingsError(f"{name}: {text!r} is not a number") from None
    if not low <= value <= high:  # type: ignore[operator]
        raise SettingsError(f"{name}: {text} is not between {low} and {high}")
    return value
