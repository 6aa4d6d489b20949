"""Schedule: jobs that are overdue, or whose last run did not end well.

In: database.jobs. Out: one component with every job as a fact.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from database.jobs import list_jobs
from exporter.components.component import Component, Probe, Severity, Sources, Status

FAILED: Final = frozenset({"failed", "timed_out", "crashed"})


def probes(sources: Sources) -> list[Probe]:
    """Return one probe."""

    async def ask() -> list[Component]:
        return [judge(await list_jobs(sources.pool))]

    return [Probe("schedule", "schedule", Severity.WARNING, ask)]


def judge(jobs: Sequence[Mapping[str, Any]]) -> Component:
    """Say how the jobs are together."""
    overdue = [str(job["job"]) for job in jobs if job["is_overdue"]]
    failed = [
        f"{job['job']} {job['last']['outcome']}" for job in jobs if job["last"] and job["last"]["outcome"] in FAILED
    ]
    facts = {"jobs": len(jobs), "overdue": overdue, "failed": failed}
    if not jobs:
        return Component("schedule", Status.UNKNOWN, "no aggregator has written a schedule yet", facts)
    reasons = [f"overdue: {', '.join(overdue)}"] if overdue else []
    reasons += [f"last run: {', '.join(failed)}"] if failed else []
    return Component("schedule", Status.DEGRADED if reasons else Status.OK, "; ".join(reasons), facts)
