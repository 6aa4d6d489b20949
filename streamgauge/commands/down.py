"""`streamgauge down`: ask the running `up` to stop, and wait until it has."""

import argparse
import os

from streamgauge.commands import Subparsers
from streamgauge.processes import wait_until
from streamgauge.state import home_of, read_state

DEADLINE_S = 90.0


def add_parser(sub: Subparsers) -> None:
    """Declare the options."""
    sub.add_parser("down", help="stop what `up` started")


def run(args: argparse.Namespace) -> int:
    """Stop the stack of this home; 0 also when nothing ran."""
    home = home_of(os.environ)
    state = read_state(home)
    if state is None:
        print(f"nothing is up in {home}")
        return 0
    up = state.supervisor.known()
    up.stop(deadline_s=DEADLINE_S)
    for child in state.children:
        # Normally gone with `up`; left only where it was killed on a system without parent-death signals.
        child.known().stop(deadline_s=30.0)
    if not wait_until(lambda: not any(child.known().is_alive() for child in state.children), 5.0):
        print("some processes did not end: `streamgauge status` names them")
        return 1
    (home / "up.json").unlink(missing_ok=True)
    print("stopped")
    return 0
