"""The aggregator's own jobs: upkeep of the store, and the audit that proves that nothing is missing.

In: what these need of the running aggregator. Out: jobs for the schedule.
Promise: a step that fails and a finding of the audit are told in the run's row.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from aggregator.committer import Committer
from aggregator.redrive import redrive_parked
from database import upkeep
from database.audit import Report, audit
from database.redis_link import Link
from optimizers.job import Job, Outcome, Result, Run

LONGEST_UPKEEP_S: Final = 900.0
LONGEST_AUDIT_S: Final = 900.0
NAMED_FINDINGS: Final = 5


def upkeep_job(is_drained: Callable[[], Awaitable[bool]], committer: Committer, replay_window_s: float) -> Job:
    """Return the job that keeps the store up and folds parked entries that this version knows."""

    async def run(run: Run) -> Result:
        failed = await upkeep.run(run.pool, run.settings, drained=await is_drained(), replay_window_s=replay_window_s)
        redriven = await redrive_parked(run.pool, committer)
        outcome = Outcome.FAILED if failed else Outcome.DONE
        return Result(outcome, "; ".join(failed), {"redriven_entries": redriven})

    return Job("upkeep", "roll-ups, partitions, retention", 60.0, run, timeout_s=LONGEST_UPKEEP_S)


def audit_job(link: Link) -> Job:
    """Return the job that audits real traffic."""

    async def run(run: Run) -> Result:
        return audit_result(await audit(run.pool, link))

    return Job("audit", "every accepted event is accounted for", 3600.0, run, timeout_s=LONGEST_AUDIT_S)


def audit_result(report: Report) -> Result:
    """Return what an audit means for its run: a finding fails it."""
    facts: dict[str, Any] = msgspec.to_builtins(report)
    facts["findings"] = dict(Counter(finding.check for finding in report.findings))
    if report.ok:
        return Result(Outcome.DONE, f"{report.accepted} events accepted, all accounted for", facts)
    named = "; ".join(f"{f.check}: {f.culprit}" for f in report.findings[:NAMED_FINDINGS])
    return Result(Outcome.FAILED, f"{len(report.findings)} finding(s): {named}", facts)
