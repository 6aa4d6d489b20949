"""Serve: runs the exporter's app in uvicorn until it is told to stop.

In: settings. Out: an open port, for as long as the process lives.
Promise: the port opens only when settings, access and the database's schema were found right.
"""

import asyncio
import logging
import socket

import uvicorn

from contract.errors import error_text
from database.connect import AWAY, Pool, acquire, open_pool, require_access
from database.migrate import check as check_schema
from database.pooler import open_pooled
from database.settings import SettingsError
from exporter.app import make_app
from exporter.service import STOP_GRACE_S
from exporter.settings import ExporterSettings, check_access

log = logging.getLogger(__name__)

BACKLOG = 2048


async def require_schema(settings: ExporterSettings) -> None:
    """Wait for the database, then raise SchemaError unless its schema is this program's."""
    for open_any in (open_pool, open_pooled):
        await _require_schema(await open_any(settings, application="streamgauge exporter", size=1))


async def _require_schema(pool: Pool) -> None:
    try:
        while True:
            try:
                async with acquire(pool) as connection:
                    await check_schema(connection)
                return
            except AWAY as error:
                require_access(error)
                log.warning("waiting_for", extra={"what": "database", "error": error_text(error)})
                await asyncio.sleep(1.0)
    finally:
        pool.terminate()


class Server(uvicorn.Server):
    """Ends the page's streams before it waits for requests under way: such a stream has no end of its own."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop."""
        await self.config.app.state.page.stop()  # pyright: ignore[reportAttributeAccessIssue, reportFunctionMemberAccess]
        await super().shutdown(sockets)


def run(settings: ExporterSettings) -> None:
    """Serve until SIGTERM or SIGINT. Raises SettingsError or SchemaError before the port is opened."""
    check_access(settings)
    app = make_app(settings)
    asyncio.run(require_schema(settings))
    config = uvicorn.Config(
        app,
        loop="uvloop",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=STOP_GRACE_S,
        server_header=False,
    )
    with _listen(settings.streamgauge_exporter_host, settings.streamgauge_exporter_port) as listening:
        Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """Open the port ourselves: uvicorn would leave with a code of its own and without naming the setting."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        why = error.strerror or str(error)
        raise SettingsError(f"STREAMGAUGE_EXPORTER_HOST {host}, STREAMGAUGE_EXPORTER_PORT {port}: {why}") from None
