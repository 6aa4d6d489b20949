"""`streamgauge jobs`: what the schedule did and will do; run a job now."""

import argparse
import asyncio
import getpass
import json
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from database import jobs
from database.connect import Pool
from database.jobs import NoAggregator, NoSuchJob
from streamgauge.commands import Subparsers
from streamgauge.reach import reach

BAD: Final = frozenset({"failed", "timed_out"})
LOOK_EVERY_S: Final = 0.2


def add_parser(sub: Subparsers) -> None:
    """Declare the options."""
    parser = sub.add_parser("jobs", help="show the schedule and its history; run a job now")
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    listing = what.add_parser("list", help="every job with its last and next run")
    listing.add_argument("--json", action="store_true", help="one JSON object")
    run_now = what.add_parser("run", help="ask an aggregator to run a job now")
    run_now.add_argument("job", metavar="JOB")
    run_now.add_argument("--wait", action="store_true", help="wait for its end; exit code 1 if it failed")
    run_now.add_argument("--timeout", type=float, default=1800.0, metavar="S", help="longest wait (default 1800)")
    run_now.add_argument("--json", action="store_true", help="one JSON object")
    past = what.add_parser("history", help="runs, newest first, with their attempts")
    past.add_argument("job", metavar="JOB", nargs="?")
    past.add_argument("--limit", type=_positive, default=20, metavar="N")
    past.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Do it; 1 if the run failed or nobody would do it, 2 for a job that does not exist."""
    try:
        return asyncio.run(_run(args))
    except NoSuchJob as error:
        sys.stderr.write(f"streamgauge: {error}\n")
        return 2
    except NoAggregator as error:
        sys.stderr.write(f"streamgauge: {error}; start one: streamgauge aggregate\n")
        return 1


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10_000:
        raise argparse.ArgumentTypeError("1 to 10000")
    return number


async def _run(args: argparse.Namespace) -> int:
    async with reach() as at:
        if args.what == "list":
            return await _list(at.pool, as_json=args.json)
        if args.what == "history":
            return await _history(at.pool, args.job, args.limit, as_json=args.json)
        return await _run_now(at.pool, args)


async def _list(pool: Pool, *, as_json: bool) -> int:
    rows = await jobs.list_jobs(pool)
    is_alive = await jobs.is_aggregator_alive(pool)
    if as_json:
        _print_json({"aggregator_alive": is_alive, "jobs": rows})
        return 0
    for row in rows:
        last = row["last"]
        every, following = f"every {row['every_s']:g} s", f"next {_time(row['next_run'])}"
        overdue = "  OVERDUE" if row["is_overdue"] else ""
        print(f"{row['job']:<24}{every:<16}{following if is_alive else 'next: no aggregator is running'}{overdue}")
        print(f"  {_line(last) if last else 'never ran'}")
    if not rows:
        print("no jobs: no aggregator has run on this database")
    return 0


async def _history(pool: Pool, job: str | None, limit: int, *, as_json: bool) -> int:
    rows = await jobs.history(pool, job, limit=limit)
    if not rows and job is not None and job not in (known := [row["job"] for row in await jobs.list_jobs(pool)]):
        raise NoSuchJob(f"there is no job {job}; there are {', '.join(known) or 'none'}")
    if as_json:
        _print_json({"runs": rows})
        return 0
    for row in rows:
        _show(row)
    return 0


def _show(row: Mapping[str, Any]) -> None:
    by = f" asked for by {row['requested_by']} ({row['trigger']})" if row["requested_by"] else ""
    print(f"{row['job']:<24}{_line(row)}{by}")
    for attempt in row["attempts"] if len(row["attempts"]) > 1 else ():
        print(f"  attempt {attempt['attempt']} on {attempt['consumer']}: {attempt['ended']}")


async def _run_now(pool: Pool, args: argparse.Namespace) -> int:
    slot = await jobs.request(pool, args.job, "cli", getpass.getuser())
    ended = await _end_of(pool, args.job, slot, args.timeout) if args.wait else None
    if args.json:
        _print_json(ended or {"job": args.job, "scheduled_for": slot})
    elif ended is None:
        print(f"{args.job}: asked for; see: streamgauge jobs history {args.job}")
    else:
        _show(ended)
    return 1 if ended is not None and ended["outcome"] in BAD else 0


async def _end_of(pool: Pool, job: str, slot: datetime, timeout_s: float) -> Mapping[str, Any]:
    until_s = time.monotonic() + timeout_s
    while True:
        found = await jobs.find_ended(pool, job, slot)
        if found is not None:
            return found
        if time.monotonic() > until_s:
            raise NoAggregator(f"{job} has not ended after {timeout_s:g} s")
        if not await jobs.is_aggregator_alive(pool):
            raise NoAggregator("no aggregator is running any more")
        await asyncio.sleep(LOOK_EVERY_S)


def _line(run_row: Mapping[str, Any]) -> str:
    took = f" in {run_row['duration_s']:.1f} s" if run_row["duration_s"] is not None else ""
    on = f" on {run_row['consumer']}" if run_row["consumer"] else ""
    said = f": {run_row['detail']}" if run_row["detail"] else ""
    state = run_row["outcome"] or ("running" if run_row["attempt"] else "waiting")
    return f"{_time(run_row['scheduled_for'])} {state}{took}{on}{said}"


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%SZ")


def _print_json(value: Any) -> None:
    print(json.dumps(value, default=lambda at: at.isoformat()), flush=True)
