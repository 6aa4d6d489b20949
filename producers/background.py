"""Background: the end of a task that an application's shutdown waits for.

In: a task of ours. Out: it has ended.
Promise: neither a cancellation that got lost nor a bug of ours holds up the application or makes it fail.
"""

import asyncio
from typing import Final

from producers.event_log import EventLog

log = EventLog(__name__)

AGAIN_S: Final = 1.0


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task until it has ended; what it raised is logged.

    On Python 3.11 redis-py loses a cancellation that comes in the moment in which it has sent a command.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=AGAIN_S)
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.error("background_failed", exc_info=error, extra={"task": task.get_name()})
