"""Demo: a database and an application that are ill on purpose, so that findings and alerts can be seen.

In: the address of PostgreSQL. Out: the schema `streamgauge_demo`, a load on it, and metrics `demo_*` of a shop whose
checkout is slow, fails half the time and blocks its event loop. Promise: everything is labelled demo; the schema is
dropped at the end.
Run by `streamgauge up --demo` as `python -m streamgauge.demo`.
"""

import asyncio
import logging
import os
import signal
import time
from typing import Any, Final

import asyncpg

from contract.errors import error_text
from database.connect import AWAY
from database.queries import load
from producers.loop_lag import watching
from streamgauge import Counter, Histogram, logs
from streamgauge.stack import postgres_address

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 30.0
PAUSE_S: Final = 0.05
SPILL_EVERY: Final = 100
BLOCK_EVERY: Final = 10
BLOCK_S: Final = 0.3
"""For so long the demo does what must not be done on an event loop: it waits without giving way."""
APPLICATION: Final = "streamgauge demo"

orders = Counter("demo_orders_total", "Orders of the demo's shop, of which every second fails.", ["outcome"])
checkout = Histogram("demo_checkout_seconds", "Time of the demo's questions to its ill tables.", unit="seconds")

Connection = Any
"""asyncpg's, which is generic in its stubs only."""


async def run(dsn: str, stopping: asyncio.Event) -> None:
    """Make the schema, load it until asked to stop, drop it."""
    owner = await _connect(dsn)
    forgotten = await _connect(dsn)
    try:
        await owner.execute(load("demo_schema"))
        await forgotten.execute("BEGIN")
        await forgotten.execute(load("demo_forgotten"))
        log.info("demo_is_ready", extra={"schema": "streamgauge_demo"})
        await _load(owner, stopping)
    finally:
        await forgotten.close(timeout=TIMEOUT_S)
        await owner.execute(load("demo_drop"))
        await owner.close(timeout=TIMEOUT_S)


async def _connect(dsn: str) -> Connection:
    # Of this session only: the demo is meant to be found idle, not to be ended for it.
    settings = {"application_name": APPLICATION, "idle_in_transaction_session_timeout": "0", "work_mem": "1MB"}
    return await asyncpg.connect(dsn, timeout=TIMEOUT_S, command_timeout=TIMEOUT_S, server_settings=settings)


async def _load(connection: Connection, stopping: asyncio.Event) -> None:
    number = 0
    while not stopping.is_set():
        number += 1
        began = time.perf_counter()
        await connection.fetch(load("demo_slow"), f"city {number * 7919 % 500}")
        await connection.execute(load("demo_parent"), 1 + number * 7919 % 2000)
        if number % SPILL_EVERY == 0:
            await connection.fetch(load("demo_spill"))
        if number % BLOCK_EVERY == 0:
            time.sleep(BLOCK_S)  # noqa: ASYNC251
        checkout.observe(time.perf_counter() - began)
        orders.labels("failed" if number % 2 else "done").inc()
        try:
            await asyncio.wait_for(stopping.wait(), PAUSE_S)
        except TimeoutError:
            continue


async def _serve() -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        async with watching():
            await run(postgres_address(os.environ), stopping)
    except AWAY as error:
        log.warning("demo_ended", extra={"error": error_text(error)})


if __name__ == "__main__":
    logs.configure()
    asyncio.run(_serve())
