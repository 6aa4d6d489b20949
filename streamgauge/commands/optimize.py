"""`streamgauge optimize`: look at the databases now, or apply one finding."""

import argparse
import asyncio
import sys
from dataclasses import asdict
from typing import Any, Final

from database.connect import acquire, open_pool
from database.migrate import check
from database.optimization import encode
from database.optimization_status import read_status
from database.settings import read_settings
from optimizers.applying import Refused, apply
from optimizers.database_optimizer import DatabaseOptimizer
from optimizers.job import Outcome
from optimizers.settings import OptimizerSettings
from streamgauge.commands import Subparsers
from streamgauge.reach import environment

ILL: Final = ("critical", "warn")


def add_parser(sub: Subparsers) -> None:
    """Declare the options."""
    parser = sub.add_parser("optimize", help="check the databases; apply one finding")
    parser.add_argument("--apply", metavar="FINGERPRINT", help="do what a finding of the opt-in tier says")
    parser.add_argument("--target", metavar="NAME", help="look at this one only (default: all; ours is `monitoring`)")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Do it; 1 when something open is ill, nothing could be looked at, or the finding was not applied."""
    if args.apply is not None and args.target is not None:
        sys.stderr.write("streamgauge: --apply takes no --target: the finding has its own\n")
        return 2
    return asyncio.run(_run(args))


async def _run(args: argparse.Namespace) -> int:
    settings = read_settings(OptimizerSettings, environment())
    pool = await open_pool(settings, application="streamgauge-cli", size=2)
    try:
        optimizer = DatabaseOptimizer(pool, settings)
        async with acquire(pool) as connection:
            await check(connection)
        if args.apply is not None:
            return await _apply(optimizer, args.apply, args.json)
        result = await optimizer.run(only=args.target)
        status = await read_status(pool)
    finally:
        await pool.close()
    if args.target is not None:
        for rows in ("checks", "findings", "applied_actions", "targets"):
            status[rows] = [row for row in status[rows] if row["target"] == args.target]
    if args.json:
        print(encode({"outcome": result.outcome, "detail": result.detail, "facts": result.facts} | status))
    else:
        _show(status, f"{result.outcome}: {result.detail}")
    is_ill = any(row["state"] == "open" and row["severity"] in ILL for row in status["findings"])
    return 1 if is_ill or result.outcome in (Outcome.FAILED, Outcome.SKIPPED) else 0


async def _apply(optimizer: DatabaseOptimizer, fingerprint: str, as_json: bool) -> int:
    try:
        done = await apply(optimizer, fingerprint)
    except Refused as why:
        sys.stderr.write(f"streamgauge: not applied: {why}\n")
        return 1
    if as_json:
        print(encode(asdict(done)))
    else:
        print(f"{'failed' if done.error else 'done'} on {done.target}: {done.sql}")
        print(f"  {done.error}" if done.error else f"  to undo: {done.rollback or 'nothing'}")
    return 1 if done.error else 0


def _show(status: dict[str, Any], outcome: str) -> None:
    for row in status["checks"]:
        why = f"  {row['detail']}" if row["detail"] else ""
        print(f"{row['target']:<12} {row['id']:<3} {row['status']:<18} {row['title']}{why}")
    for row in status["findings"]:
        acted = f"; done at {row['acted_at']:%Y-%m-%d %H:%M:%SZ}" if row["acted_at"] else ""
        print(f"\n{row['severity'].upper()} {row['check']} {row['object']} ({row['state']}, {row['target']}{acted})")
        print(f"  {row['recommendation']}")
        if row["sql"]:
            print(f"  {row['sql']}")
        if row["tier"] == "opt_in":
            print(f"  streamgauge optimize --apply {row['fingerprint']}")
    print(f"\n{outcome}")
