"""`streamgauge explain`: which batches make up a series in a window, and what became of each."""

import argparse
import asyncio
import json
import sys
import time

import msgspec

from contract.windows import WINDOW_S
from database.explain import Explained, explain
from streamgauge.commands import Subparsers
from streamgauge.instants import parse_instant
from streamgauge.reach import reach


def add_parser(sub: Subparsers) -> None:
    """Declare the options."""
    parser = sub.add_parser("explain", help="show which batches make up a series in a window")
    parser.add_argument("series", metavar="SERIES", help='its key, labels sorted: name{a="x",b="y"}')
    parser.add_argument("window", metavar="WINDOW", help="an instant in it: 2026-01-31T12:00:00Z, Unix s, 5m (ago)")
    parser.add_argument("--run-id", metavar="X", help="of a load-test run (default: real traffic)")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Explain; 1 when neither the store nor the stream knows the series in that window."""
    try:
        window_s = parse_instant(args.window, time.time()) // WINDOW_S * WINDOW_S
    except ValueError as error:
        sys.stderr.write(f"streamgauge: {error}\n")
        return 2
    found = asyncio.run(_explain(args.series, window_s, args.run_id))
    if args.json:
        rows = {"stored": found.stored, "contributions": msgspec.to_builtins(found.contributions)}
        print(json.dumps({"series": args.series, "window_s": window_s, **rows}))
    else:
        _show(found)
    return 0 if found.stored or found.contributions else 1


async def _explain(series: str, window_s: int, run_id: str | None) -> Explained:
    async with reach(run_id) as at:
        return await explain(at.pool, at.link, series, window_s, run_id)


def _show(found: Explained) -> None:
    for row in found.stored:
        print(f"stored in {row['table']}: n {row['n']}, sum {row['sum']:g}")
    for each in found.contributions:
        print(f"  {each.stream}  {each.service} {each.producer} seq {each.seq}  {each.events} events  {each.state}")
    total = sum(each.events for each in found.contributions if each.state == "applied")
    print(f"{total} events applied from batches that the stream still holds")
