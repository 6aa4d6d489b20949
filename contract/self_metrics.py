"""The catalogue of streamgauge's own metrics: name, kind, labels and meaning, once.

Out: SelfMetric entries that services use to make and render their metrics. A test ties docs/metrics.md to
this list. A metric marked `loss` counts something that will never be part of a total.
"""

from typing import Final, NamedTuple

from contract.metric import Kind


class SelfMetric(NamedTuple):
    """One of streamgauge's own metrics."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    loss: bool = False


def _counter(name: str, text: str, *labels: str, loss: bool = False) -> SelfMetric:
    return SelfMetric(name, Kind.COUNTER, text, labels, loss)


def _gauge(name: str, text: str, *labels: str, loss: bool = False) -> SelfMetric:
    return SelfMetric(name, Kind.GAUGE, text, labels, loss)


COMPLETENESS: Final = (
    _counter("streamgauge_accepted_events_total", "Events producers accepted, sealed batches only.", "service"),
    _counter("streamgauge_committed_events_total", "Events committed to rollups and totals.", "service"),
    _counter("streamgauge_dropped_events_total", "Events dropped on purpose.", "service", "reason", loss=True),
    _counter("streamgauge_quarantined_events_total", "Events set aside for good.", "service", loss=True),
    _gauge("streamgauge_lost_events", "Events in closed gaps of producers' sequences.", "service", loss=True),
    _gauge("streamgauge_in_flight_events", "Events accepted but not yet accounted for.", "service"),
    _counter("streamgauge_duplicate_batches_total", "Batches that arrived again and changed nothing.", "service"),
    _counter(
        "streamgauge_displaced_batches_total", "Batches booked to a window that is not theirs: it was over.", "service"
    ),
    _gauge("streamgauge_producers", "Producers by state (live, ended, unclean).", "service", "state"),
    _gauge("streamgauge_last_seen_timestamp_seconds", "When a producer was last heard of.", "service"),
)
"""Rendered by the exporter on /metrics from the ledger, summed per service."""

PIPELINE: Final = (
    _counter("streamgauge_quarantined_entries_total", "Stream entries quarantined.", "reason", loss=True),
    _counter(
        "streamgauge_payload_gone_entries_total",
        "Stream entries that were trimmed or deleted before they were committed.",
        loss=True,
    ),
    _gauge("streamgauge_parked_entries", "Stream entries parked for a later reader.", "reason"),
    _gauge("streamgauge_series", "Series admitted, by metric.", "metric"),
    _gauge("streamgauge_aggregators", "Aggregators whose heartbeat is current."),
    _gauge("streamgauge_last_commit_timestamp_seconds", "When the newest commit was made."),
)
"""Rendered by the exporter on /metrics from PostgreSQL."""

SERVICES: Final[tuple[SelfMetric, ...]] = (
    _gauge("streamgauge_job_last_success_timestamp_seconds", "When a run of a job last ended well.", "scheduled_job"),
    _gauge("streamgauge_job_next_run_timestamp_seconds", "When the next slot of a job comes.", "scheduled_job"),
    _gauge("streamgauge_job_last_duration_seconds", "How long the last run of a job took.", "scheduled_job"),
    _counter("streamgauge_job_runs_total", "Runs of a job that ended, by outcome.", "scheduled_job", "outcome"),
    _counter("streamgauge_job_crashes_total", "Attempts at a run of a job whose process died.", "scheduled_job"),
    _gauge("streamgauge_job_overdue", "1 when a job has not ended well for three intervals.", "scheduled_job"),
    _gauge("streamgauge_findings", "Open findings of DatabaseOptimizer.", "check", "severity"),
    _gauge("streamgauge_check_duration_seconds", "Time a check took in the last run, the slowest target.", "check"),
    _gauge(
        "streamgauge_check_status",
        "Targets by the answer of a check (ok, warn, critical, error, insufficient_data).",
        "check",
        "status",
    ),
    _gauge("streamgauge_optimizer_connections", "Most connections DatabaseOptimizer had open at once in its last run."),
    _gauge("streamgauge_optimizer_database_time_share", "Share of the time between two runs that its statements took."),
    _gauge("streamgauge_threshold", "Alert threshold of this hour.", "metric", "route", "side", "severity"),
    _gauge("streamgauge_threshold_frozen", "1 while a threshold of the metric may not be recalibrated.", "metric"),
    _gauge("streamgauge_threshold_age_seconds", "Time since the threshold judged longest ago was judged."),
    _gauge("streamgauge_recommendations", "Recommendations for performance.", "kind", "state"),
    _gauge("streamgauge_collected_timestamp_seconds", "When signals of performance were last judged."),
    _gauge("streamgauge_cache_ttl_seconds", "Cache lifetimes (current, proposed, applied).", "key_class", "what"),
)
"""Rendered by the exporter on /metrics from what the scheduled jobs keep in PostgreSQL (queries `samples_*`)."""

EXPORTER: Final = (
    _gauge("streamgauge_snapshot_age_seconds", "Age of the newest database snapshot served."),
    _counter("streamgauge_scrapes_total", "Requests to /metrics by outcome.", "outcome"),
    _gauge("streamgauge_refresh_seconds", "Time the last refresh took, by kind (full, incremental).", "kind"),
    _gauge("streamgauge_exposed_series", "Series in the exposition."),
    _gauge("streamgauge_fenced", "1 while /metrics is withheld: totals are restored after a database failover."),
)
"""Served by each exporter on /metrics/self through prometheus-client."""

COMPONENTS: Final = (
    _gauge(
        "streamgauge_component_status",
        "1 for the status a component has (ok, degraded, down, unknown).",
        "component",
        "kind",
        "severity",
        "status",
    ),
    _gauge("streamgauge_component_since_timestamp_seconds", "Since when a component has its status.", "component"),
    _gauge("streamgauge_component_probe_seconds", "Time the probe of a component took.", "component"),
    _gauge("streamgauge_stream_entries", "Entries in a stream; the replay window keeps those already read.", "shard"),
    _gauge("streamgauge_stream_lag_known", "1 where it is known how many entries nobody has read.", "shard"),
    _gauge("streamgauge_stream_lag_entries", "Entries nobody has read; no sample while unknown.", "shard"),
    _gauge("streamgauge_stream_pending_entries", "Entries read and not yet acknowledged.", "shard"),
    _gauge("streamgauge_stream_oldest_wait_seconds", "Age of the oldest entry not yet acknowledged.", "shard"),
    _gauge("streamgauge_stream_cut", "1 when entries were removed before anybody read them.", "shard"),
    _gauge("streamgauge_stream_bytes", "Memory of a stream, as its aggregator measured it.", "consumer", "shard"),
    _gauge("streamgauge_stream_max_bytes", "Memory at which producers hold back.", "consumer"),
    _gauge("streamgauge_replica_lag_seconds", "How far a PostgreSQL replica is behind, by heartbeat row.", "replica"),
    _gauge("streamgauge_threshold_breaches", "Metrics beyond their alert threshold now.", "severity"),
)
"""What ProductionMonitor found, served by each exporter on /metrics/self."""

CATALOGUE: Final = COMPLETENESS + PIPELINE + SERVICES + EXPORTER + COMPONENTS
