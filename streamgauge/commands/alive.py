"""`streamgauge alive`: does an aggregator of this machine have a current heartbeat? For a container's health check."""

import argparse
import asyncio
import socket

from database.connect import acquire, open_pool
from database.jobs import AGGREGATOR_CURRENT_S
from database.queries import load
from database.settings import PostgresSettings, read_settings
from streamgauge.commands import Subparsers
from streamgauge.reach import environment


def add_parser(sub: Subparsers) -> None:
    """Declare the options."""
    parser = sub.add_parser("alive", help="whether an aggregator of this machine has a current heartbeat")
    parser.add_argument("--host", default=socket.gethostname(), help="as aggregators name themselves (default: this)")


def run(args: argparse.Namespace) -> int:
    """Look once; 0 when there is one, 1 when there is none."""
    alive = asyncio.run(_alive(args.host[:40]))
    print("\n".join(alive) or f"no aggregator of {args.host} has a current heartbeat")
    return 0 if alive else 1


async def _alive(host: str) -> list[str]:
    pool = await open_pool(read_settings(PostgresSettings, environment()), application="streamgauge alive", size=1)
    try:
        async with acquire(pool) as connection:
            rows = await connection.fetch(load("exporter_aggregators"))
    finally:
        await pool.close()
    # A consumer is named after its host and eight hexadecimal digits.
    return [row["consumer"] for row in rows if row["consumer"][:-9] == host and row["age_s"] <= AGGREGATOR_CURRENT_S]
