"""Health: what the page reads of the monitor.

In: the exporter. Out: what /metrics/health says, and its HTTP status.
"""

from typing import Any

from exporter.monitor_routes import status_code, summarize
from exporter.service import Exporter


async def report(exporter: Exporter) -> tuple[dict[str, Any], int]:
    """Return the health of everything by kind."""
    found = await exporter.monitor.look()
    answer = summarize(found, exporter)
    answer["components"]["aggregators"] |= {"members": answer["components"]["aggregators"]["facts"].get("members", [])}
    return answer, status_code(found)
