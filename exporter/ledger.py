"""Completeness and pipeline families: what the ledger says, summed per service, under the catalogue's names.

In: rows of exporter_services and exporter_pipeline, events in flight (None: unknown). Out: exposition bytes, JSON.
Promise: an unknown number has no sample; it is never shown as 0.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from contract.self_metrics import COMPLETENESS, PIPELINE, SERVICES, SelfMetric
from contract.series import series_key
from database.connect import Connection
from database.queries import load
from exporter.columns import Row
from exporter.exposition import format_value, header

STATES: Final = ("live", "ended", "unclean")

Labels = tuple[str, ...]
Samples = dict[str, list[tuple[Labels, float]]]
"""Per metric name: label values in the order of the catalogue, and the value."""


class Service(NamedTuple):
    """One service's account."""

    service: str
    accepted: int
    committed: int
    quarantined: int
    lost: int
    open: int
    """Events in open gaps."""
    parked: int
    """Events parked above all that their producer's committed batches told of."""
    duplicates: int
    displaced: int
    states: dict[str, int]
    last_seen_s: float | None
    dropped: dict[str, int]

    def in_flight(self, waiting: Mapping[str, int] | None) -> int | None:
        """Return the events not accounted for; `waiting` holds those in the streams (None: unknown)."""
        return None if waiting is None else self.open + self.parked + waiting.get(self.service, 0)

    def accepted_so_far(self, waiting: Mapping[str, int] | None) -> int | None:
        """Return what is accepted with what waits, of which no committed batch has told yet."""
        return None if waiting is None else self.accepted + self.parked + waiting.get(self.service, 0)


class Pipeline(NamedTuple):
    """The pipeline's own numbers."""

    quarantined: dict[str, int]
    payload_gone: int
    parked: dict[str, int]
    series: dict[str, int]
    aggregators: int
    last_commit_s: float | None


STORED: Final[tuple[str, ...]] = (
    "samples_jobs",
    "samples_findings",
    "samples_thresholds",
    "samples_performance",
    "samples_cache_ttl",
)
"""Queries of what the scheduled jobs keep: rows of name, label values in the catalogue's order, value."""


async def read_stored(connection: Connection) -> Samples:
    """Return the samples of SERVICES."""
    found: Samples = {}
    if STORED:
        for row in await connection.fetch("\nUNION ALL\n".join(f"({load(name)}\n)" for name in STORED)):
            found.setdefault(row["name"], []).append((tuple(row["labels"]), row["value"]))
    return found


def read_services(rows: Sequence[Row]) -> list[Service]:
    """Read exporter_services."""
    fields = ("service", "accepted", "committed", "quarantined", "lost", "open", "parked", "duplicates", "displaced")
    return [
        Service(
            *(row[name] for name in fields),
            states={state: row[state] for state in STATES},
            last_seen_s=row["last_seen_s"],
            dropped=json.loads(row["dropped"]),
        )
        for row in rows
    ]


def with_waiting(services: Sequence[Service], waiting: Mapping[str, int] | None) -> list[Service]:
    """Return the services, also those of which nothing but entries in the streams is known, in order."""
    new = (waiting or {}).keys() - {s.service for s in services}
    unheard = (Service(name, 0, 0, 0, 0, 0, 0, 0, 0, dict.fromkeys(STATES, 0), None, {}) for name in new)
    return sorted([*services, *unheard], key=lambda s: s.service)


def read_pipeline(row: Row, head: Row) -> Pipeline:
    """Read exporter_pipeline and what exporter_head says of commits."""
    loads = json.loads
    return Pipeline(
        loads(row["quarantined"]),
        row["payload_gone"],
        loads(row["parked"]),
        loads(row["series"]),
        row["aggregators"],
        head["last_commit_s"],
    )


def samples(
    services: Sequence[Service], pipeline: Pipeline, stored: Samples, in_flight: Mapping[str, int] | None
) -> Samples:
    """Return all samples of the catalogue but the exporter's own; `in_flight` holds the events in the streams."""
    found: Samples = {
        **stored,
        "streamgauge_accepted_events_total": [((s.service,), s.accepted) for s in services],
        "streamgauge_committed_events_total": [((s.service,), s.committed) for s in services],
        "streamgauge_dropped_events_total": [
            ((s.service, reason), n) for s in services for reason, n in sorted(s.dropped.items())
        ],
        "streamgauge_quarantined_events_total": [((s.service,), s.quarantined) for s in services],
        "streamgauge_lost_events": [((s.service,), s.lost) for s in services],
        "streamgauge_duplicate_batches_total": [((s.service,), s.duplicates) for s in services],
        "streamgauge_displaced_batches_total": [((s.service,), s.displaced) for s in services],
        "streamgauge_producers": [((s.service, state), s.states[state]) for s in services for state in STATES],
        "streamgauge_last_seen_timestamp_seconds": [
            ((s.service,), s.last_seen_s) for s in services if s.last_seen_s is not None
        ],
        "streamgauge_quarantined_entries_total": [((why,), n) for why, n in sorted(pipeline.quarantined.items())],
        "streamgauge_payload_gone_entries_total": [((), pipeline.payload_gone)],
        "streamgauge_parked_entries": [((why,), n) for why, n in sorted(pipeline.parked.items())],
        "streamgauge_series": [((metric,), n) for metric, n in sorted(pipeline.series.items())],
        "streamgauge_aggregators": [((), pipeline.aggregators)],
    }
    if pipeline.last_commit_s is not None:
        found["streamgauge_last_commit_timestamp_seconds"] = [((), pipeline.last_commit_s)]
    if in_flight is not None:
        known = with_waiting(services, in_flight)
        found["streamgauge_in_flight_events"] = [((s.service,), s.in_flight(in_flight) or 0) for s in known]
    return found


def render(found: Samples, *, openmetrics: bool) -> bytes:
    """Return the families of the catalogue that have a sample."""
    return b"".join(
        _family(metric, found[metric.name], openmetrics=openmetrics)
        for metric in (*COMPLETENESS, *PIPELINE, *SERVICES)
        if found.get(metric.name)
    )


def _family(metric: SelfMetric, values: Iterable[tuple[Labels, float]], *, openmetrics: bool) -> bytes:
    lines = [header(metric.name, metric.kind, metric.help, "", openmetrics=openmetrics)]
    for labels, value in values:
        lines.append(_key(metric.name, metric.labels, labels) + f" {format_value(float(value))}\n".encode())
    return b"".join(lines)


@lru_cache(maxsize=10_000)
def _key(name: str, labelnames: tuple[str, ...], labels: tuple[str, ...]) -> bytes:
    """Return the key of one of our own series, checked and escaped once: 5 us each, at every scrape twice."""
    return series_key(name, list(zip(labelnames, labels, strict=True)))
