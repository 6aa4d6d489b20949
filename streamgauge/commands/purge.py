"""`streamgauge purge`: delete a load-test run; what still arrives of it is refused."""

import argparse
import asyncio
import sys

from database.load_runs import list_runs, purge
from streamgauge.commands import Subparsers
from streamgauge.reach import reach


def add_parser(sub: Subparsers) -> None:
    """Declare the options."""
    parser = sub.add_parser("purge", help="delete a load-test run and refuse what still arrives of it")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run-id", metavar="X", help="the run to delete")
    which.add_argument("--list", action="store_true", help="show the runs that are kept")


def run(args: argparse.Namespace) -> int:
    """Purge or list; 1 if there is no such run."""
    return asyncio.run(_list() if args.list else _purge(args.run_id))


async def _purge(run_id: str) -> int:
    async with reach() as at:
        if not await purge(at.pool, run_id):
            sys.stderr.write(f"streamgauge: there is no load-test run {run_id}\n")
            return 1
    print(f"purged: {run_id}")
    return 0


async def _list() -> int:
    async with reach() as at:
        for each in await list_runs(at.pool):
            print(f"{each.created_at:%Y-%m-%d %H:%M:%S}  {each.run_id}")
    return 0
