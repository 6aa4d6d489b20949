"""`streamgauge thresholds`: what alerts compare with; hold one, take a change back, see the changes."""

import argparse
import asyncio
import getpass
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby, islice
from math import isfinite
from typing import Any

from database import thresholds
from database.connect import Connection, acquire
from database.thresholds import CrossedLimits, NoSuchThreshold
from streamgauge.commands import Subparsers
from streamgauge.reach import reach


def add_parser(sub: Subparsers) -> None:
    """Declare the options."""
    parser = sub.add_parser("thresholds", help="show alert thresholds and their changes; pin or revert one")
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    listing = what.add_parser("list", help="every threshold of this hour beside what is measured")
    pin = what.add_parser("pin", help="hold a threshold against recalibration")
    pin.add_argument("id", type=int)
    pin.add_argument("--warn", type=_value, required=True)
    pin.add_argument("--critical", type=_value, required=True)
    revert = what.add_parser("revert", help="restore what was before the newest change")
    revert.add_argument("id", type=int)
    for each in (pin, revert):
        each.add_argument("--bucket", type=int, choices=range(thresholds.BUCKETS), metavar="0..47")
    history = what.add_parser("history", help="changes, newest first")
    history.add_argument("id", type=int, nargs="?")
    history.add_argument("--limit", type=int, default=50, metavar="N", help="with --json: so many buckets' changes")
    exclude = what.add_parser("exclude", help="keep a time from teaching any threshold, or those of one metric")
    exclude.add_argument("since", type=_time, metavar="FROM")
    exclude.add_argument("until", type=_time, metavar="TO")
    exclude.add_argument("--metric")
    exclude.add_argument("--reason", required=True)
    for each in (listing, history):
        each.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Do it; 2 for a threshold that does not exist, or limits in the wrong order."""
    try:
        return asyncio.run(_run(args))
    except (NoSuchThreshold, CrossedLimits) as error:
        sys.stderr.write(f"streamgauge: {error}\n")
        return 2


def _value(text: str) -> float:
    value = float(text)
    if not isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError("a number from 0")
    return value


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


async def _run(args: argparse.Namespace) -> int:
    async with reach() as at, acquire(at.pool) as connection:
        return await _do(connection, args)


async def _do(connection: Connection, args: argparse.Namespace) -> int:
    who = getpass.getuser()
    if args.what == "list":
        _show(await thresholds.list_thresholds(connection, datetime.now(UTC)), "thresholds", as_json=args.json)
    elif args.what == "history":
        rows = args.limit if args.json else args.limit * thresholds.BUCKETS
        found = await thresholds.changes(connection, args.id, rows)
        _show(found if args.json else _merged(found, args.limit), "changes", as_json=args.json)
    elif args.what == "pin":
        await thresholds.pin(connection, args.id, args.warn, args.critical, who, args.bucket)
        print(f"{args.id}: pinned; take it back with: streamgauge thresholds revert {args.id}")
    elif args.what == "exclude":
        if args.since >= args.until:
            sys.stderr.write("streamgauge: FROM is not before TO\n")
            return 2
        await thresholds.exclude(connection, args.metric, args.since, args.until, args.reason, who)
        print("excluded")
    else:
        print(f"{args.id}: {await thresholds.revert(connection, args.id, who, args.bucket)} buckets reverted")
    return 0


def _show(rows: Any, name: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({name: rows}, default=lambda at: at.isoformat()))
        return
    for row in rows:
        print(_threshold(row) if name == "thresholds" else _change(row))
    if not rows:
        print(f"no {name} yet: the job recalibrate_thresholds writes them")


def _threshold(row: Any) -> str:
    actual = "unknown" if row["actual"] is None else f"{row['actual']:.4g}"
    held = "pinned" if row["is_pinned"] else row["method"]
    frozen = f"; frozen: {row['frozen']}" if row["frozen"] else ""
    state = "unknown" if row["actual"] is None else row["severity"] or "ok"
    limits = f"{row['side']} warn {row['warn']:.4g} critical {row['critical']:.4g} actual {actual}"
    return f"{row['id']:>4}  {row['metric']} {row['route']} {limits} ({state}, {held}{frozen})"


def _merged(rows: Sequence[Any], limit: int) -> list[list[Any]]:
    """Return the rows of all buckets that one act changed together, newest first."""
    same = groupby(rows, lambda row: tuple(row[name] for name in ("threshold_id", "at", "method", "reason", "actor")))
    return list(islice((list(buckets) for _, buckets in same), limit))


def _change(rows: Sequence[Any]) -> str:
    row = rows[0]
    buckets = f"bucket {row['bucket']}" if len(rows) == 1 else f"{len(rows)} buckets"
    where = " ".join(part for part in (row["metric"], row["route"], row["side"]) if part)
    limits = ", ".join(
        f"{name} {_span(one['old_' + name] for one in rows)} -> {_span(one['new_' + name] for one in rows)}"
        for name in ("warn", "critical")
    )
    said = f"{row['method']}, {row['reason']} by {row['actor']}"
    return f"{row['at']:%Y-%m-%d %H:%M:%SZ} {row['threshold_id']} {where}, {buckets}: {limits} ({said})"


def _span(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "none"
    low, high = f"{min(known):.4g}", f"{max(known):.4g}"
    return low if low == high else f"{low}..{high}"
