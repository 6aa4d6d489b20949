"""`streamgauge audit`: is every accepted event committed, dropped, quarantined, lost or in flight?"""

import argparse
import asyncio

import msgspec

from database.audit import Report, audit
from streamgauge.commands import Subparsers
from streamgauge.reach import reach


def add_parser(sub: Subparsers) -> None:
    """Declare the options."""
    parser = sub.add_parser("audit", help="prove that every accepted event is accounted for")
    parser.add_argument("--run-id", metavar="X", help="audit a load-test run (default: real traffic)")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Audit once; 0 when it holds, 1 when there is a finding."""
    report = asyncio.run(_audit(args.run_id))
    if args.json:
        print(msgspec.json.encode(report).decode(), flush=True)
    else:
        _show(report)
    return 0 if report.ok else 1


async def _audit(run_id: str | None) -> Report:
    async with reach(run_id) as at:
        return await audit(at.pool, at.link, run_id)


def _show(report: Report) -> None:
    for name, value in msgspec.to_builtins(report).items():
        if isinstance(value, int) and name != "ok":
            print(f"  {name:<12}{value}")
    for reason, count in sorted(report.dropped_by_reason.items()):
        print(f"    dropped: {reason} {count}")
    for finding in report.findings:
        print(f"FINDING {finding.check}: {finding.culprit}: expected {finding.expected}, found {finding.found}")
    print("ok" if report.ok else f"{len(report.findings)} finding(s)")
