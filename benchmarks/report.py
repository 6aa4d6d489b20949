"""Writes docs/benchmarks.md: the machine, and per benchmark its table, notes and plot.

In: sections of this run. Out: the page; sections that were not run keep the text of their last run.
Promise: no host name and no path gets into the page.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import NAMES
from benchmarks.measure import Section, table
from benchmarks.plots import plot
from streamgauge.embedded import find_redis, redis_version

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
PAGE: Final = DOCS / "benchmarks.md"
PACKAGES: Final = (
    "numpy",
    "asyncpg",
    "redis",
    "msgspec",
    "zstandard",
    "uvicorn",
    "fastapi",
    "prometheus-client",
    "prometheus-fastapi-instrumentator",
    "opentelemetry-sdk",
    "statsd",
    "datadog",
)
HEAD: Final = """\
# Benchmarks

`make bench` measures each number beside its goal and its peers, in one run, rounds of all taking turns, on a
scratch stack with fsync and the append-only file as shipped; `make bench-full` does so with full sizes. Figures
are medians, with the least and the greatest of the rounds. The ratios carry over to other machines, the absolute
numbers do not. A goal that was missed says so. A load average above a few tenths before a run tells that others
used the machine: then trust the ratios, and processor time, only.

The Python peers come with the extra `bench`. statsd's server is installed from npm on first use, into the user's
cache folder; Pushgateway (`prometheus-pushgateway`) and `wrk` are Debian packages. What is missing is said in its
section as not run.
"""


def write(sections: list[Section], full: bool, load_before: float = 0.0) -> None:
    """Replace the parts of the page that were measured now; `load_before` is what else kept the machine busy."""
    parts = _parts()
    (DOCS / "img").mkdir(parents=True, exist_ok=True)
    for section in sections:
        parts[section.name] = "\n".join(_part(section, full, load_before))
    body = [f"<!-- {name} -->\n{parts[name].strip()}\n" for name in NAMES if name in parts]
    PAGE.write_text("\n".join([HEAD, *body]))


def _parts() -> dict[str, str]:
    """Return the sections of the page as it is, by their markers."""
    found: dict[str, str] = {}
    for piece in PAGE.read_text().split("<!-- ")[1:] if PAGE.exists() else ():
        name, _, text = piece.partition(" -->\n")
        found[name] = text
    return found


def _part(section: Section, full: bool, load_before: float) -> list[str]:
    image = plot(section, DOCS / "img")
    size = "full sizes" if full else "quick sizes"
    lines = [f"## {section.title}", "", *table(section), ""]
    lines += [f"- {note}" for note in section.notes]
    lines += ["", f"![{section.title}](img/{image})"] if image else []
    busy = f"load average before: {load_before:.1f}"
    return [*lines, "", f"*{time.strftime('%Y-%m-%d')}, {size}, {busy}, {machine()}*"]


def machine() -> str:
    """Return what it was measured on; no host name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    redis = find_redis()
    servers = f"Redis {'.'.join(map(str, redis_version(redis)))}, " if redis else ""
    return (
        f"{_cpu()}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, PostgreSQL 18, {servers}{versions}"
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _cpu() -> str:
    try:
        said = subprocess.run(["lscpu", "--json"], capture_output=True, text=True, timeout=10, check=False).stdout
        fields = {
            x["field"]: x.get("data", "")
            for x in msgspec.json.decode(said, type=dict[str, list[dict[str, object]]])["lscpu"]
        }
        return str(fields.get("Model name:", platform.processor()))
    except (OSError, KeyError, msgspec.MsgspecError, json.JSONDecodeError):
        return platform.processor() or platform.machine()
