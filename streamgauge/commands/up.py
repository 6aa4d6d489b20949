"""`streamgauge up`: the whole line on one machine, until Ctrl-C."""

import argparse
import os
import time

from streamgauge.commands import Subparsers
from streamgauge.first_runs import first_runs
from streamgauge.live import first_numbers
from streamgauge.state import home_of
from streamgauge.supervisor import Supervisor


def add_parser(sub: Subparsers) -> None:
    """Declare the options."""
    parser = sub.add_parser("up", help="run everything on this machine")
    parser.add_argument("--duration", type=float, metavar="S", help="stop after S seconds")
    parser.add_argument("--no-traffic", action="store_true", help="start no synthetic traffic")
    parser.add_argument("--no-jobs", action="store_true", help="leave the jobs to their schedule")
    parser.add_argument("--demo", action="store_true", help="add a schema and a load that are ill on purpose")


def run(args: argparse.Namespace) -> int:
    """Start, show the addresses and a few live numbers, wait, stop."""
    began = time.monotonic()
    supervisor = Supervisor(home_of(os.environ), dict(os.environ), _say)

    def show(up: Supervisor) -> None:
        _say(f"streamgauge is up after {time.monotonic() - began:.1f} s:")
        for name, address in up.addresses.items():
            _say(f"  {name:<11}{address}")
        for line in first_numbers(up, wanted=not args.no_traffic):
            _say(line)
        if not args.no_jobs:
            first_runs(up.dsn, _say, up.check)
        _say(
            "Ctrl-C (or `streamgauge down`) stops it." if args.duration is None else f"Stops after {args.duration:g} s."
        )

    supervisor.run(args.duration, show, with_traffic=not args.no_traffic, with_demo=args.demo)
    _say("stopped; nothing is left running, and the next `up` goes on from here.")
    return 0


def _say(text: str) -> None:
    print(text, flush=True)
