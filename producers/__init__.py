"""The producer side: what an application imports to emit, and the threads that send it.

Imports `contract`, redis-py, msgspec and zstandard only.
"""

import functools

from producers.client import Client, Stats
from producers.metrics import Counter, Gauge, Histogram, Info, set_default
from producers.settings import Settings, SettingsError

__all__ = ["Client", "Counter", "Gauge", "Histogram", "Info", "Settings", "SettingsError", "Stats", "start", "stop"]


@functools.cache
def default_client() -> Client:
    """Return the client of metrics that name none."""
    return Client()


set_default(default_client)


def start(settings: Settings | None = None) -> None:
    """Start the default client; `labels()` does so by itself. SettingsError names a bad setting."""
    default_client().start(settings)


def stop(timeout_s: float | None = None) -> bool:
    """Flush the default client within a deadline; returns whether everything was acknowledged."""
    return default_client().stop(timeout_s)
