"""`streamgauge forget`: delete series, at every level; the audit stays ok."""

import argparse
import asyncio
import getpass
import sys

from database.forget import find, forget
from streamgauge.commands import Subparsers
from streamgauge.reach import reach

SHOWN = 20


def add_parser(sub: Subparsers) -> None:
    """Declare the options."""
    parser = sub.add_parser("forget", help="delete series, with all they hold")
    parser.add_argument("selector", metavar="SELECTOR", help='as in Prometheus: name{label="value",other=~"a|b"}')
    parser.add_argument("--yes", action="store_true", help="really delete; without it the series are only listed")


def run(args: argparse.Namespace) -> int:
    """List or delete; 1 when nothing matches, 2 for text that is no selector."""
    try:
        return asyncio.run(_forget(args.selector, args.yes))
    except ValueError as error:
        sys.stderr.write(f"streamgauge: {error}\n")
        return 2


async def _forget(selector: str, really: bool) -> int:
    async with reach() as at:
        keys = await find(at.pool, selector)
        for key in keys[:SHOWN]:
            print(f"  {key}")
        if len(keys) > SHOWN:
            print(f"  and {len(keys) - SHOWN} more")
        if not keys:
            sys.stderr.write("streamgauge: no series matches\n")
            return 1
        if not really:
            print(f"{len(keys)} series match; --yes deletes them and all they hold")
            return 0
        gone = await forget(at.pool, selector, getpass.getuser())
    print(f"forgotten: {gone.series} series, {gone.events} events")
    return 0
