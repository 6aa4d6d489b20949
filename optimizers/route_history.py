"""Route history: the latency samples of each route, now and at this time of day on the days before.

In: a connection and the time. Out: per route what signals.latency judges.
Promise: only the hour around this time is read of each day, so that a run costs 15 hours of minutes, not 14 days.
"""

from datetime import datetime
from typing import Final

from database.connect import Connection
from database.threshold_samples import STEP_S, Source, read_history
from optimizers.signals.latency import DAYS, Route

DAY_S: Final = 86_400
RECENT_S: Final = 1800
MARGIN_S: Final = 900
METRIC: Final = "http_request_duration_seconds"
P95: Final = Source("quantile", METRIC, by_route=True, quantile=0.95, min_events=20)
RATE: Final = Source("rate", METRIC, by_route=True)


async def read_routes(connection: Connection, now: datetime) -> dict[str, Route]:
    """Return every route that was asked for in the last 30 minutes."""
    end_s = int(now.timestamp()) // STEP_S * STEP_S
    start_s = end_s - RECENT_S
    rates = await read_history(connection, RATE, start_s, end_s)
    if not rates:
        return {}
    recent = await read_history(connection, P95, start_s, end_s)
    days = [
        await read_history(connection, P95, start_s - MARGIN_S - day * DAY_S, end_s + MARGIN_S - day * DAY_S)
        for day in range(DAYS, 0, -1)
    ]
    return {
        route: Route(
            recent[route].values.tolist() if route in recent else [],
            round(float(rate.values.sum()) * STEP_S),
            [day[route].values.tolist() if route in day else [] for day in days],
        )
        for route, rate in rates.items()
    }
