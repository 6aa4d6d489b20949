"""Producer signals: what each service's processes said of themselves in the last 30 minutes.

In: a connection and the time. Out: per service what signals.staffing and signals.loop_lag judge.
Promise: a rate is over the minutes that have data, so that a service which just began is not taken for idle.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

from contract.series import parse_key
from database.connect import Connection
from database.merged_series import Merged, read_merged
from database.queries import load
from optimizers.signals.loop_lag import Lag
from optimizers.signals.staffing import Load

SPAN_S: Final = 1800
MINUTE_S: Final = 60
LIVE_S: Final = 15.0
"""A producer is live that was heard of at most so long before the newest of its shard."""
CPU: Final = "process_cpu_seconds_total"
LAG: Final = "event_loop_lag_seconds"
REQUESTS: Final = "http_requests_total"


class Services(NamedTuple):
    """What is known of each service."""

    loads: Mapping[str, Load]
    lags: Mapping[str, Lag]


async def read_services(connection: Connection, now: datetime) -> Services:
    """Return the services that told of themselves in the last 30 minutes."""
    end_s = int(now.timestamp()) // MINUTE_S * MINUTE_S
    found = await read_merged(connection, "rollup_1m", await _groups(connection), end_s - SPAN_S, end_s)
    live = {row["service"]: row["live"] for row in await connection.fetch(load("live_producers"), LIVE_S)}
    cpu, lag = _of(found, CPU), _of(found, LAG)
    requests = _of(found, REQUESTS).get("") if len(cpu) == 1 else None
    per_s = requests.sum / (requests.windows * MINUTE_S) if requests is not None else None
    loads = {
        name: Load(live.get(name, 0), of.sum / (of.windows * MINUTE_S), of.windows, per_s) for name, of in cpu.items()
    }
    return Services(loads, {name: Lag(of.quantile(0.99), of.n) for name, of in lag.items() if of.counts})


async def _groups(connection: Connection) -> dict[str, list[int]]:
    """Return series numbers by metric and service, apart by a space; requests carry no service."""
    groups: dict[str, list[int]] = {}
    for row in await connection.fetch(load("exporter_metric_series"), [CPU, LAG, REQUESTS]):
        name, labels = parse_key(row["key"].encode())
        if name == REQUESTS or "service" in labels:
            service = "" if name == REQUESTS else labels["service"]
            groups.setdefault(f"{name} {service}", []).append(row["series_id"])
    return groups


def _of(found: Mapping[str, Merged], metric: str) -> dict[str, Merged]:
    return {name.partition(" ")[2]: merged for name, merged in found.items() if name.partition(" ")[0] == metric}
