"""Snapshot: whether /metrics could be answered now, and how old the newest snapshot is.

In: the refresher. Out: one component. While totals are restored after a failover it says so and is down.
"""

from exporter.components.component import Component, Probe, Severity, Sources, Status


def probes(sources: Sources) -> list[Probe]:
    """Return one probe."""

    async def ask() -> list[Component]:
        view = await sources.refresher.fresh()
        facts = {"age_s": sources.refresher.age_s(), "series": view.shown, "identity": view.head.identity}
        return [Component("snapshot", Status.OK, "", facts)]

    return [Probe("snapshot", "snapshot", Severity.CRITICAL, ask, Status.DOWN)]
