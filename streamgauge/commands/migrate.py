"""`streamgauge migrate`: bring the database schema to the newest version, and that of every load-test run."""

import argparse
import asyncio

from database.connect import open_pool
from database.load_runs import migrate_runs
from database.migrate import migrate
from database.settings import PostgresSettings, read_settings
from streamgauge.commands import Subparsers
from streamgauge.reach import environment
from streamgauge.stack import postgres_address


def add_parser(sub: Subparsers) -> None:
    """Declare the options."""
    sub.add_parser("migrate", help="bring the database schema to the newest version")


def run(args: argparse.Namespace) -> int:
    """Apply what is missing, one `up` or replica at a time."""
    applied = asyncio.run(_migrate())
    for name in applied:
        print(f"migrated: {name}")
    if not applied:
        print("the schema is at the newest version")
    return 0


async def _migrate() -> list[str]:
    environ = environment()
    applied = await migrate(postgres_address(environ))
    named = {name: value for name, value in environ.items() if name.startswith("POSTGRES_")}
    pool = await open_pool(read_settings(PostgresSettings, named), application="streamgauge-cli", size=1)
    try:
        return applied + await migrate_runs(pool)
    finally:
        await pool.close()
