"""`python -m tests.model`: search for a schedule that breaks a promise; with --mutants, for one that finds each out.

Exit code 1: a promise was broken by the code as it is, or a mutant was not found out.
"""

import argparse
import os
import secrets
import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.model.mutants import MUTANTS
from tests.model.search import Caught, Finding, Seen, catch, search


def main(arguments: Sequence[str] | None = None) -> int:
    """Search."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description="The model check.")
    parser.add_argument("--schedules", type=int, default=100_000, metavar="N", help="at most (default 100000)")
    parser.add_argument("--seed", type=int, metavar="S", help="the first one's (default: by chance)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="J", help="processes (default: cores)")
    parser.add_argument("--mutant", choices=MUTANTS, default="", help="search with this mechanism taken away")
    parser.add_argument("--mutants", action="store_true", help="take each mechanism away in turn")
    args = parser.parse_args(arguments)
    seed = secrets.randbelow(10**9) if args.seed is None else args.seed
    if args.mutants:
        return _catch(seed, args.schedules, args.jobs)
    with _bar(args.schedules) as show:
        seen = search(seed, args.schedules, args.jobs, show, args.mutant)
    schedules, states = seen.distinct()
    print(
        f"seed {seed}: {seen.schedules} schedules, {schedules} distinct; {seen.steps} steps; {states} distinct states; "
        f"{seen.seconds:.1f} s on {args.jobs} processes"
    )
    if seen.finding is None:
        print("no promise was broken")
        return 0
    _say(seen.finding, f" --mutant {args.mutant}" if args.mutant else "")
    return 1


class _bar:  # noqa: N801 - a context manager, used as a function
    """Shows how far the search is, where somebody looks."""

    def __init__(self, schedules: int) -> None:
        console = Console(stderr=True)
        columns = (
            TextColumn("schedules"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=schedules)

    def __enter__(self) -> Callable[[Seen], None]:
        self._progress.start()
        return lambda seen: self._progress.update(self._task, completed=seen.schedules)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _say(finding: Finding, more: str) -> None:
    print(f"BROKEN by seed {finding.seed}: {finding.text}\nas {finding.actions} actions:")
    print("\n".join(finding.lines))
    print(f"again: python -m tests.model --seed {finding.seed} --schedules 1{more}")


def _catch(seed: int, limit: int, jobs: int) -> int:
    print(
        f"seed {seed}; each mutant gets {limit} schedules\n| mutant | schedules | seconds | actions | broken promise |"
    )
    print("|---|---|---|---|---|", flush=True)
    found = catch(list(MUTANTS), seed, limit, jobs, _tell)
    left = [caught.name for caught in found if caught.finding is None]
    print(f"not found out: {', '.join(left)}" if left else f"all {len(found)} mutants are found out")
    return 1 if left else 0


def _tell(caught: Caught) -> None:
    finding = caught.finding
    actions, promise = (finding.actions, finding.text.partition(":")[0]) if finding else ("-", "NOT FOUND OUT")
    what = f"{MUTANTS[caught.name].what} (`{caught.name}`)"
    print(f"| {what} | {caught.schedules} | {caught.seconds:.1f} | {actions} | {promise} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
