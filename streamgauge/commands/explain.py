"""`streamgauge explain`: which batches make up a series in a window, and what became of each."""

import argparse
import asyncio
import json
import sys
import time
from math import fsum
from typing import Final

import msgspec

from contract.series import SeriesError, parse_key, series_key
from contract.windows import WINDOW_S
from database.connect import acquire
from database.explain import Explained, explain
from database.queries import load
from streamgauge.commands import Subparsers
from streamgauge.instants import parse_instant
from streamgauge.reach import reach

SHOWN_KEYS: Final = 10


def add_parser(sub: Subparsers) -> None:
    """Declare the options."""
    parser = sub.add_parser("explain", help="show which batches make up a series in a window")
    parser.add_argument("series", metavar="SERIES", help='its key: name{a="x",b="y"}')
    parser.add_argument("window", metavar="WINDOW", help="an instant in it: 2026-01-31T12:00:00Z, Unix s, 5m (ago)")
    parser.add_argument("--run-id", metavar="X", help="of a load-test run (default: real traffic)")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Explain; 1 when neither the store nor the stream knows the series in that window."""
    try:
        window_s = parse_instant(args.window, time.time()) // WINDOW_S * WINDOW_S
        name, labels = parse_key(args.series.encode())
        key = series_key(name, labels)
    except (ValueError, SeriesError) as error:
        sys.stderr.write(f"streamgauge: {error}\n")
        return 2
    found, others = asyncio.run(_explain(name, key.decode(), window_s, args.run_id))
    if args.json:
        rows = {"stored": found.stored, "contributions": msgspec.to_builtins(found.contributions)}
        print(json.dumps({"series": key.decode(), "window_s": window_s, **rows}))
    else:
        _show(found, others)
    return 0 if found.stored or found.contributions else 1


async def _explain(metric: str, series: str, window_s: int, run_id: str | None) -> tuple[Explained, list[str]]:
    """Also return keys of the metric where the series is none of them."""
    async with reach(run_id) as at:
        found = await explain(at.pool, at.link, series, window_s, run_id)
        if found.stored or found.contributions:
            return found, []
        async with acquire(at.pool) as connection:
            rows = await connection.fetch(load("keys_beside"), metric, series, SHOWN_KEYS)
        return found, [row["key"] for row in rows]


def _show(found: Explained, others: list[str]) -> None:
    stored: dict[str, list[tuple[int, float]]] = {}
    for row in found.stored:
        stored.setdefault(row["table"], []).append((row["n"], row["sum"]))
    for table, rows in stored.items():
        n, total = sum(n for n, _ in rows), fsum(total for _, total in rows)
        print(f"stored in {table}: n {n}, sum {total:g} in {len(rows)} row(s)")
    if not found.stored and not found.contributions:
        print("neither stored nor in the stream: no such series, or nothing of it in this window")
    if others:
        print("series of this metric:", *others, sep="\n  ")
    for each in found.contributions:
        print(f"  {each.stream}  {each.service} {each.producer} seq {each.seq}  {each.events} events  {each.state}")
    total = sum(each.events for each in found.contributions if each.state == "applied")
    print(f"{total} events applied from batches that the stream still holds")
