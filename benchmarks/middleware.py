"""Middleware: requests per second of a no-op FastAPI route without any, with ours, with the instrumentator's.

In: a scratch stack, `wrk` on PATH. Out: a Section. The three servers run side by side and are loaded in turns, the
order changing from round to round; each round's ratio is of neighbours in time. Every three rounds all three are new.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.measure import OURS, Section
from benchmarks.scratch import Scratch, cpu_s
from streamgauge.processes import free_port
from streamgauge.stack import answers

NONE: Final = "no middleware"
PEER: Final = "prometheus-fastapi-instrumentator"
APPS: Final = {NONE: "none", OURS: "streamgauge", PEER: "instrumentator"}
CONNECTIONS: Final = 16
WARM_S: Final = 1
ROOT: Final = Path(__file__).resolve().parent.parent


def run(full: bool) -> Section:
    """Load the three in turns."""
    section = Section("middleware", "FastAPI: requests per second of a no-op route", less_is_better=False)
    wrk = shutil.which("wrk")
    if wrk is None:
        section.notes.append("Not measured: `wrk` is not on PATH.")
        return section
    rates: dict[str, list[float]] = {name: [] for name in APPS}
    p99: dict[str, list[float]] = {name: [] for name in APPS}
    cpu: dict[str, list[float]] = {name: [] for name in APPS}
    with Scratch() as stack:
        for _ in range(8 if full else 4):
            # New processes again and again: one may be a tenth faster than another of the same program, all its life.
            servers = {name: _serve(stack, app) for name, app in APPS.items()}
            for server in servers.values():
                load(wrk, server[0], WARM_S)
            order = list(APPS)
            for _ in APPS:
                for name in order:
                    port, server = servers[name]
                    before_s = cpu_s(server.pid)
                    requests, rate, p99_ms = load(wrk, port, 2 if full else 1)
                    rates[name].append(rate)
                    p99[name].append(p99_ms)
                    cpu[name].append((cpu_s(server.pid) - before_s) / requests * 1e6)
                order = order[1:] + order[:1]
            for _, server in servers.values():
                stack.stop(server)
    _rows(section, rates, cpu)
    middle = {name: sorted(values)[len(values) // 2] for name, values in p99.items()}
    said = ", ".join(
        f"{name} {value:.1f} ms ({min(p99[name]):.1f} - {max(p99[name]):.1f})" for name, value in middle.items()
    )
    section.notes.append(f"p99 of a request at that load: {said}.")
    return section


def _rows(section: Section, rates: dict[str, list[float]], cpu: dict[str, list[float]]) -> None:
    for name, values in rates.items():
        section.add("requests", name, "1/s", values)
    for name in (OURS, PEER):
        shares = [mine / bare * 100 for mine, bare in zip(rates[name], rates[NONE], strict=True)]
        section.add("of the requests without middleware", name, "%", shares, at_least=97.0 if name == OURS else None)
    extra = {name: [mine - bare for mine, bare in zip(cpu[name], cpu[NONE], strict=True)] for name in (OURS, PEER)}
    for name, values in extra.items():
        values.sort()
        middle = values[len(values) // 2]
        section.notes.append(f"{name}: {middle:.1f} us of processor time a request more than without (median).")
    section.notes.append(f"uvicorn, one process; wrk, one thread, {CONNECTIONS} connections; paired rounds.")


def _serve(stack: Scratch, app: str) -> "tuple[int, subprocess.Popen[bytes]]":
    """Start uvicorn with one variant; returns its port and process."""
    port = free_port()
    where = ["--host", "127.0.0.1", "--port", str(port), "--app-dir", str(ROOT)]
    command = [sys.executable, "-m", "uvicorn", "benchmarks.middleware_app:app", *where, "--no-access-log"]
    process = stack.start(f"uvicorn-{app}", command, answers(port, "/items/1"), {"BENCH_MIDDLEWARE": app})
    return port, process


def load(wrk: str, port: int, seconds: int) -> tuple[int, float, float]:
    """Return requests, requests per second and p99 in ms of one run of wrk; errors fail it."""
    command = [
        wrk,
        "--latency",
        "-t",
        "1",
        "-c",
        str(CONNECTIONS),
        "-d",
        f"{seconds}s",
        f"http://127.0.0.1:{port}/items/1",
    ]
    said = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"the server failed under load:\n{said}")
    requests, rate = re.search(r"(\d+) requests in", said), re.search(r"Requests/sec:\s+([\d.]+)", said)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)\b", said)
    assert requests and rate and p99, f"BUG: wrk says {said!r}"
    return int(requests[1]), float(rate[1]), float(p99[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[p99[2]]
