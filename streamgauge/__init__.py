"""The public face: `from streamgauge import Counter, Gauge, Histogram, instrument`, and the command `streamgauge`.

Promise: the import itself costs nothing; what an application names is loaded at its first use, and only the
producer side is.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from producers import Client, Counter, Gauge, Histogram, Info, Settings, SettingsError, start, stop
    from producers.asgi import InstrumentMiddleware, instrument, lifespan

__all__ = [
    "Client",
    "Counter",
    "Gauge",
    "Histogram",
    "Info",
    "InstrumentMiddleware",
    "Settings",
    "SettingsError",
    "instrument",
    "lifespan",
    "start",
    "stop",
]

_ASGI: Final = frozenset({"InstrumentMiddleware", "instrument", "lifespan"})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'streamgauge' has no attribute {name!r}")
    found = getattr(import_module("producers.asgi" if name in _ASGI else "producers"), name)
    globals()[name] = found
    return found
