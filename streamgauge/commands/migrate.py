"""`streamgauge migrate`: bring the database schema to the newest version."""

import argparse
import asyncio
import os

from database.migrate import migrate
from streamgauge.commands import Subparsers
from streamgauge.stack import postgres_address


def add_parser(sub: Subparsers) -> None:
    """Declare the options."""
    sub.add_parser("migrate", help="bring the database schema to the newest version")


def run(args: argparse.Namespace) -> int:
    """Apply what is missing, one `up` or replica at a time."""
    applied = asyncio.run(migrate(postgres_address(os.environ)))
    for name in applied:
        print(f"migrated: {name}")
    if not applied:
        print("the schema is at the newest version")
    return 0
