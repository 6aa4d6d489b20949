"""Component metrics: what ProductionMonitor found, as gauges on /metrics/self.

In: a Report. Out: families for prometheus-client, each from one of `contract.self_metrics.COMPONENTS`.
Promise: what is unknown has no sample; a shard whose lag Redis cannot tell says so and shows no lag.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from contract.self_metrics import COMPONENTS
from exporter.components.component import Status
from exporter.monitor import Reading, Report

SEVERITIES: Final = ("critical", "warn")
_OF: Final = {metric.name: metric for metric in COMPONENTS}

Samples = Iterator[tuple[str, tuple[str, ...], float]]


class ComponentMetrics(Collector):
    """Shows the newest report that was put into it."""

    def __init__(self) -> None:
        self.report: Report | None = None

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing: names are not checked before there is a report."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the families that have a sample."""
        if self.report is None:
            return
        families: dict[str, GaugeMetricFamily] = {}
        for name, labels, value in samples(self.report):
            if name not in families:
                families[name] = GaugeMetricFamily(name, _OF[name].help, None, _OF[name].labels)
            families[name].add_metric(labels, value)
        yield from families.values()


def samples(report: Report) -> Samples:
    """Yield name, label values and value of every sample of a report."""
    for one in report.readings:
        for status in Status:
            labels = (one.component.name, one.kind, one.severity.value, status.value)
            yield "streamgauge_component_status", labels, float(one.status is status)
        yield "streamgauge_component_since_timestamp_seconds", (one.component.name,), one.since.timestamp()
        yield "streamgauge_component_probe_seconds", (one.component.name,), one.latency_ms / 1000
        if one.component.facts:
            yield from _facts(one)


def _facts(one: Reading) -> Samples:
    facts = one.component.facts
    match one.kind:
        case "streams":
            yield from _stream(one.component.name.removeprefix("stream "), facts)
        case "replicas":
            if facts["is_lag_known"]:
                yield "streamgauge_replica_lag_seconds", (one.component.name.removeprefix("replica "),), facts["lag_s"]
        case "aggregators":
            for member in facts["members"]:
                for shard, size in member.get("stream_bytes", {}).items():
                    yield "streamgauge_stream_bytes", (member["consumer"], f"{int(shard):02d}"), size
                if "stream_max_bytes" in member:
                    yield "streamgauge_stream_max_bytes", (member["consumer"],), member["stream_max_bytes"]
        case "thresholds":
            for severity in SEVERITIES:
                over = sum(row["severity"] == severity for row in facts.get("over", ()))
                yield "streamgauge_threshold_breaches", (severity,), over
        case _:
            return


def _stream(shard: str, facts: Mapping[str, Any]) -> Samples:
    yield "streamgauge_stream_entries", (shard,), facts["length"]
    yield "streamgauge_stream_pending_entries", (shard,), facts["pending"]
    yield "streamgauge_stream_lag_known", (shard,), float(facts["is_lag_known"])
    if facts["is_lag_known"]:
        yield "streamgauge_stream_lag_entries", (shard,), facts["lag"]
    yield "streamgauge_stream_oldest_wait_seconds", (shard,), facts["waiting_s"] or 0.0
    yield "streamgauge_stream_cut", (shard,), float(facts.get("is_cut", False))
