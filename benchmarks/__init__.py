"""Benchmarks: each number beside its goal and its peer, measured in one run on a scratch stack.

Run as `python -m benchmarks [--full] [--only NAME]`. Nothing here is installed with the package.
"""

from typing import Final

NAMES: Final = (
    "emit",
    "size",
    "drain",
    "growth",
    "pair",
    "statsd_server",
    "scrape",
    "multiprocess",
    "pushgateway",
    "freshness",
    "middleware",
    "storage",
    "memory",
    "history",
)
"""The benchmarks, each a module with `run(full) -> Section`, in the order of the page."""
