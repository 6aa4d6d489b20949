"""`streamgauge status`: what runs here, and how far the pipeline is."""

import argparse
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from streamgauge.commands import Subparsers
from streamgauge.live import committed, scrape
from streamgauge.stack import get
from streamgauge.state import UpState, home_of, read_state


def add_parser(sub: Subparsers) -> None:
    """Declare the options."""
    parser = sub.add_parser("status", help="show what `up` runs")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Show the state; 0 when everything runs and is ready, 1 when something is missing or nothing is up."""
    home = home_of(os.environ)
    state = read_state(home)
    found = {"up": False} if state is None else describe(state)
    if args.json:
        print(json.dumps(found))
    else:
        _show(found, home)
    return 0 if found["up"] and found.get("ready") else 1


def describe(state: UpState) -> dict[str, Any]:
    """Return what runs, whether the exporter is ready, and the events committed."""
    processes = {child.name: {"pid": child.pid, "alive": child.known().is_alive()} for child in state.children}
    port = urlsplit(state.addresses.get("metrics", "")).port
    ready = port is not None and get(port, "/readyz")[0] == 200
    return {
        "up": state.supervisor.known().is_alive(),
        "ready": ready and all(process["alive"] for process in processes.values()),
        "pid": state.supervisor.pid,
        "processes": processes,
        "addresses": state.addresses,
        "committed": committed(scrape(port)) if port is not None and ready else None,
    }


def _show(found: dict[str, Any], home: Path) -> None:
    if not found["up"]:
        print(f"nothing is up in {home}")
    for name, process in found.get("processes", {}).items():
        print(f"  {name:<11}pid {process['pid']:<8}{'running' if process['alive'] else 'gone'}")
    for name, address in found.get("addresses", {}).items():
        print(f"  {name:<11}{address}")
    if found.get("committed") is not None:
        print(f"  {found['committed']:.0f} events committed")
    if found["up"]:
        print("ready" if found["ready"] else "not ready")
