"""`python -m benchmarks [--full] [--only NAME ...]`: run, print, and write docs/benchmarks.md with its plots.

Promise: a benchmark that fails is named, the others still run; exit code 1 only where one failed to measure.
A goal that is missed is printed as missed and is no failure: this is a measurement, not a test.
"""

import argparse
import importlib
import os
import sys
import time
import traceback

from benchmarks import NAMES
from benchmarks.measure import Section, advantage, spread, verdict
from benchmarks.report import write


def main(argv: list[str] | None = None) -> int:
    """Run the chosen benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Numbers beside their goals and peers.")
    parser.add_argument("--full", action="store_true", help="full sizes and more rounds")
    parser.add_argument("--only", choices=NAMES, action="append", help="run just this one (may be repeated)")
    parser.add_argument("--no-docs", action="store_true", help="print only; leave docs/benchmarks.md as it is")
    args = parser.parse_args(argv)
    failed: list[str] = []
    load_before = os.getloadavg()[0]
    for name in args.only or NAMES:
        print(f"\n== {name} ==", flush=True)
        began_s = time.monotonic()
        try:
            section: Section = importlib.import_module(f"benchmarks.{name}").run(args.full)
        except Exception:  # noqa: BLE001 - whatever it was, the other benchmarks still run
            traceback.print_exc()
            failed.append(name)
            continue
        _print(section)
        if not args.no_docs:
            write([section], args.full, load_before)
        print(f"({time.monotonic() - began_s:.0f} s)", flush=True)
    if failed:
        print(f"\nfailed to measure: {', '.join(failed)}")
    return 1 if failed else 0


def _print(section: Section) -> None:
    print(section.title)
    for row in section.rows:
        better = advantage(section, row)
        subject = f"{row.subject} ({row.note})" if row.note else row.subject
        print(f"  {row.work:<44}{subject:<34}{spread(row):<34}{row.unit:<10}{verdict(row)}{better}")
    for note in section.notes:
        print(f"  {note}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
