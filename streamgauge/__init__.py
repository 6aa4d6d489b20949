"""The public face: `from streamgauge import Counter, Gauge, Histogram, Info, instrument`.

Imported lazily, so that `import streamgauge` costs nothing and the command line does not start a producer.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producers import Client, Counter, Gauge, Histogram, Info, Settings, start, stop
    from producers.asgi import instrument, lifespan

__all__ = [
    "Client",
    "Counter",
    "Gauge",
    "Histogram",
    "Info",
    "Settings",
    "instrument",
    "lifespan",
    "start",
    "stop",
]


def __getattr__(name: str) -> Any:
    if name in ("instrument", "lifespan"):
        from producers import asgi

        return getattr(asgi, name)
    if name in __all__:
        import producers

        return getattr(producers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
