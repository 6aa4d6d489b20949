"""The contract between the schedule and what it runs.

In: a Job names itself, its interval and its function. Out: a Result that is stored with the run and shown.
Promise: a job that finds too little data says `insufficient_data`; that is an answer, not a failure.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from database.connect import Pool
from optimizers.settings import OptimizerSettings


class Outcome(StrEnum):
    """How a run ended."""

    DONE = "done"
    FAILED = "failed"
    INSUFFICIENT_DATA = "insufficient_data"
    SKIPPED = "skipped"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True)
class Result:
    """What a run says of itself."""

    outcome: Outcome
    detail: str = ""
    """One sentence for a person; for FAILED the error."""
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """JSON: numbers and names worth keeping with the run."""


@dataclass(frozen=True)
class Run:
    """One execution of a job."""

    pool: Pool
    """Of the monitoring database."""
    settings: OptimizerSettings
    scheduled_for: datetime
    """The slot, UTC; the run may have begun later."""
    every_s: float | None = None
    """How often the job runs, as it is configured."""


@dataclass(frozen=True)
class Job:
    """Something to do regularly."""

    name: str
    title: str
    """For a person: what it does, a few words."""
    every_s: float
    run: Callable[[Run], Awaitable[Result]]
    judges_s: float = 0.0
    """How much time before its slot it judges: it waits until those windows are complete, or times out and says so."""
    timeout_s: float = 300.0

    @property
    def judges_data(self) -> bool:
        """Whether it reads windows."""
        return self.judges_s > 0
