"""The exporter's own metrics, kept by prometheus-client and served on /metrics/self.

Promise: always answered, also while /metrics answers 503.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from contract.self_metrics import EXPORTER
from exporter.component_metrics import ComponentMetrics
from exporter.refresh import Refresher

_HELP = {metric.name: metric.help for metric in EXPORTER}


class OwnMetrics:
    """A registry of one exporter's metrics."""

    def __init__(self, refresher: Refresher) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        name = "streamgauge_scrapes_total"
        self.scrapes = Counter(name, _HELP[name], ["outcome"], registry=self.registry)
        for outcome in ("served", "not_modified", "unavailable"):
            self.scrapes.labels(outcome)
        self.registry.register(_Newest(refresher))
        self.components = ComponentMetrics()
        self.registry.register(self.components)


class _Newest(Collector):
    """What the newest view says of itself."""

    def __init__(self, refresher: Refresher) -> None:
        self._refresher = refresher

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield nothing but what is known."""
        age_s = self._refresher.age_s()
        if age_s is not None:
            yield _gauge("streamgauge_snapshot_age_seconds", age_s)
        refresh = GaugeMetricFamily("streamgauge_refresh_seconds", _HELP["streamgauge_refresh_seconds"], None, ["kind"])
        for kind, seconds in self._refresher.took_s.items():
            refresh.add_metric([kind], seconds)
        yield refresh
        yield _gauge("streamgauge_fenced", float(self._refresher.is_restoring))
        if self._refresher.newest is not None:
            yield _gauge("streamgauge_exposed_series", self._refresher.newest.shown)


def _gauge(name: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, _HELP[name], value)
