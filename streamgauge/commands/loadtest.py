"""`streamgauge loadtest`: push synthetic events from real processes through the real pipeline, and follow each."""

import argparse
import asyncio
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import streamgauge.loadtest as runner
from database.settings import RedisSettings, read_settings
from streamgauge.commands import Subparsers
from streamgauge.loadtest import Load, LoadTest, Outcome
from streamgauge.stack import names_any, postgres_address
from streamgauge.state import home_of, read_state

EVENTS_PER_S_EXPECTED = 50_000
"""A pipeline slower than this runs into the deadline, unless another is given."""


def add_parser(sub: Subparsers) -> None:
    """Declare the options."""
    parser = sub.add_parser("loadtest", help="push synthetic events through the pipeline and follow each")
    parser.add_argument("--events", type=_positive, default=1_000_000, metavar="N", help="in all (default 1000000)")
    parser.add_argument("--series", type=_positive, default=1000, metavar="S", help="shared by all processes (1000)")
    parser.add_argument("--producers", type=_positive, default=2, metavar="P", help="emitting processes (2)")
    parser.add_argument(
        "--rate", type=float, default=0.0, metavar="R", help="events a second in all (default: no limit)"
    )
    parser.add_argument("--kind", choices=("mixed", "histogram"), default="mixed", help="kinds of metric (mixed)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--run-id", metavar="X", help="keep it apart under this run (default: a new one)")
    which.add_argument("--real", action="store_true", help="as real traffic: it counts and appears on /metrics")
    parser.add_argument("--deadline", type=float, metavar="S", help="give up after S seconds")
    parser.add_argument("--oracle", type=Path, metavar="FILE", help="write what is meant to FILE.<n> before each burst")
    parser.add_argument("--json", action="store_true", help="nothing on standard output but the last line, in JSON")


def run(args: argparse.Namespace) -> int:
    """Run it; 0 when sent = committed + dropped and nothing else differs, 1 otherwise."""
    redis_url, dsn = addresses(dict(os.environ))
    run_id = None if args.real else args.run_id or f"load-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    load = Load(
        events=args.events,
        series=args.series,
        processes=args.producers,
        rate=args.rate,
        run_id=run_id,
        kind=args.kind,
        deadline_s=args.deadline or 60 + args.events / min(args.rate or EVENTS_PER_S_EXPECTED, EVENTS_PER_S_EXPECTED),
        oracle=args.oracle,
    )
    with Console(stderr=True) as console:
        show, close = _bar(console, load) if console.is_terminal else (_plain(load), lambda: None)
        test = LoadTest(load, redis_url, dsn, os.environ, show=show, warn=lambda text: _say(f"loadtest: {text}"))
        try:
            outcome = asyncio.run(test.run())
        finally:
            close()
    if not args.json:
        _summarise(outcome)
    print(msgspec.json.encode(outcome).decode(), flush=True)
    return 0 if outcome.complete else 1


def addresses(environ: dict[str, str]) -> tuple[str, str]:
    """Return the addresses of Redis and PostgreSQL: the environment's, else those of the `up` of this home."""
    up = read_state(home_of(environ))
    if up is not None and not names_any(environ, "REDIS_URL") and "redis" in up.addresses:
        environ["REDIS_URL"] = up.addresses["redis"]
    if up is not None and not names_any(environ, "POSTGRES_DSN", "POSTGRES_HOST") and "postgres" in up.addresses:
        environ["POSTGRES_DSN"] = up.addresses["postgres"]
    named = {name: value for name, value in environ.items() if name.startswith("REDIS_")}
    return read_settings(RedisSettings, named).redis_url.get_secret_value(), postgres_address(environ)


def _positive(text: str) -> int:
    number = int(text.replace("_", ""))
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _bar(console: Console, load: Load) -> tuple[Callable[[runner.Progress], None], Callable[[], None]]:
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=console)
    sent = bar.add_task("sent", total=load.events, note="")
    committed = bar.add_task("committed", total=load.events, note="")
    bar.start()

    def show(progress: runner.Progress) -> None:
        fresh = "" if progress.freshness_s is None else f"emit to commit {progress.freshness_s:.2f} s"
        bar.update(sent, completed=progress.sent)
        bar.update(committed, completed=progress.account.committed, note=fresh)

    return show, bar.stop


def _plain(load: Load) -> Callable[[runner.Progress], None]:
    def show(progress: runner.Progress) -> None:
        _say(f"sent {progress.sent} of {load.events}, committed {progress.account.committed}")

    return show


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _summarise(outcome: Outcome) -> None:
    for name, value in msgspec.to_builtins(outcome).items():
        print(f"  {name:<16}{value}")
