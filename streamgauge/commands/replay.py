"""`streamgauge replay`: windows computed again from the stream; compared with what is stored, or sent on."""

import argparse
import asyncio
import json
import sys
import time

import msgspec

from contract.streams import FIELD
from contract.windows import WINDOW_S
from database.retained import retained
from streamgauge.commands import Subparsers
from streamgauge.instants import parse_instant
from streamgauge.reach import Reach, reach
from streamgauge.replay import Replayed, differences, listed, replay


def add_parser(sub: Subparsers) -> None:
    """Declare the options."""
    parser = sub.add_parser("replay", help="compute windows again from the stream")
    parser.add_argument("--from", dest="start", default="5m", metavar="T", help="2026-01-31T12:00:00Z, Unix s, 5m: ago")
    parser.add_argument("--to", dest="end", default="now", metavar="T", help="exclusive (default: now)")
    parser.add_argument("--metric", metavar="NAME", help="only this metric")
    parser.add_argument("--run-id", metavar="X", help="of a load-test run (default: real traffic)")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--verify", action="store_true", help="compare with what is stored; exit 1 where it differs")
    parser.add_argument("--into", metavar="STREAM", help="add the entries to another stream instead")
    parser.add_argument("--speed", type=float, default=0.0, metavar="X", help="with --into: 1 as they came, 0 at once")


def run(args: argparse.Namespace) -> int:
    """Replay; 0 fine, 1 the stored windows differ, 2 wrong use."""
    try:
        now_s = time.time()
        span = parse_instant(args.start, now_s), parse_instant(args.end, now_s)
        if span[0] >= span[1]:
            raise ValueError(f"--from {args.start} is not before --to {args.end}")
        if args.speed < 0:
            raise ValueError("--speed must not be negative")
        if (args.into or "").startswith("sg:{"):
            raise ValueError(f"--into {args.into} is one of the pipeline's own streams")
    except ValueError as error:
        sys.stderr.write(f"streamgauge: {error}\n")
        return 2
    return asyncio.run(_run(args, *span))


async def _run(args: argparse.Namespace, from_s: int, to_s: int) -> int:
    async with reach(args.run_id) as at:
        if args.into:
            return await _send(at, from_s, to_s, args.into, args.speed)
        from_s, to_s = from_s // WINDOW_S * WINDOW_S, -(-to_s // WINDOW_S) * WINDOW_S
        found = await replay(at.pool, at.link, from_s, to_s, args.run_id, args.metric)
    if args.verify:
        return _verify(found, from_s, to_s, args.format, args.metric)
    _show(found, args.format)
    return 0


def _verify(found: Replayed, from_s: int, to_s: int, form: str, metric: str | None) -> int:
    unlike = differences(found)
    report = {
        "ok": not unlike and (metric is None or len(found.rows.series) > 0),
        "batches": found.batches,
        "rows": len(found.rows.series),
        "windows": max(0, to_s - max(from_s, found.covered_from_s)) // WINDOW_S,
        "windows_not_covered": max(0, min(found.covered_from_s, to_s) - from_s) // WINDOW_S,
        "differences": msgspec.to_builtins(unlike),
    }
    if form == "json":
        print(json.dumps(report))
        return 0 if report["ok"] else 1
    if not report["rows"] and metric is not None:
        print(f"nothing compared: no batch of these windows holds the metric {metric}")
        return 1
    for each in unlike:
        where = f"{each.series} window {each.window_s} {each.column}"
        print(f"DIFFERS {where}: {each.stored} stored, {each.replayed} replayed")
    shown = ", ".join(f"{value} {name}" for name, value in report.items() if name not in ("ok", "differences"))
    print(f"{'ok' if not unlike else f'{len(unlike)} difference(s)'}: {shown}")
    return 1 if unlike else 0


def _show(found: Replayed, form: str) -> None:
    rows = listed(found)
    if form == "json":
        print(json.dumps({"batches": found.batches, "rows": rows}))
        return
    for row in rows:
        at = time.strftime("%H:%M:%S", time.gmtime(row["window_s"]))
        values = "  ".join(f"{name}={row[name]:g}" for name in ("n", "sum", "min", "max") if row[name] is not None)
        print(f"{at}  {row['series']}  {values}")
    print(f"{len(rows)} rows from {found.batches} batches")


async def _send(at: Reach, from_s: int, to_s: int, stream: str, speed: float) -> int:
    sent, first_ms, began_s = 0, None, time.monotonic()
    async for entry in retained(at.link, from_ms=from_s * 1000, to_ms=to_s * 1000):
        added_ms = int(entry.stream_id.partition("-")[0])
        first_ms = added_ms if first_ms is None else first_ms
        if speed:
            due_s = began_s + (added_ms - first_ms) / 1000 / speed
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        await at.link.xadd(stream, {FIELD: entry.data})
        sent += 1
    print(f"{sent} entries added to {stream}")
    return 0
