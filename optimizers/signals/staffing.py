"""Staffing: how many processes the measured load of a service needs.

In: CPU seconds per second and processes, per service. Out: Said.
Promise: the load is what was measured (Little's law: busy at once = arrivals per second x seconds each).
"""

from collections.abc import Mapping
from math import ceil
from typing import Final, NamedTuple

from optimizers.signals.said import Advice, Said, insufficient

WORKERS: Final = "workers"
BUSY: Final = 0.7
"""Share of a process that may be busy: beyond it waiting grows faster than load."""
MIN_MINUTES: Final = 10


class Load(NamedTuple):
    """What the processes of a service were doing."""

    processes: int
    """Now."""
    cpu_s_per_s: float
    """Of all of them together."""
    minutes: int
    """Measured."""
    requests_per_s: float | None
    """None: not known of this service alone."""


def workers_needed(cpu_s_per_s: float) -> int:
    """Return ceil(arrivals x CPU seconds each / 0.7)."""
    return max(1, ceil(cpu_s_per_s / BUSY))


def missing_of(load: Load) -> str | None:
    """Return what is missing to judge a service; None when it can be judged."""
    if load.processes < 1:
        return "no live process"
    if load.minutes < MIN_MINUTES:
        return f"CPU time of {load.minutes} of the last 30 minutes, {MIN_MINUTES} needed"
    return None


def judge_workers(services: Mapping[str, Load]) -> Said:
    """Say which services need more processes than they have."""
    missing = {name: lack for name, load in sorted(services.items()) if (lack := missing_of(load)) is not None}
    judged = tuple(name for name in sorted(services) if name not in missing)
    if not judged:
        example = next((f"{name}: {lack}" for name, lack in missing.items()), None)
        return insufficient(WORKERS, example or "no service sends process_cpu_seconds_total")
    advice = tuple(found for name in judged if (found := workers(name, services[name])) is not None)
    detail = f"{len(advice)} of {len(judged)} services need more processes; {len(missing)} with too little data"
    return Said(WORKERS, "warn" if advice else "ok", detail, advice, judged)


def workers(name: str, load: Load) -> Advice | None:
    """Return advice when the load needs more processes than there are."""
    needed = workers_needed(load.cpu_s_per_s)
    if needed <= load.processes:
        return None
    evidence: dict[str, float | int | None] = {
        "cpu_seconds_per_s": round(load.cpu_s_per_s, 3),
        "busy_percent": round(100 * load.cpu_s_per_s / load.processes, 1),
        "requests_per_s": None if load.requests_per_s is None else round(load.requests_per_s, 3),
        "minutes_measured": load.minutes,
    }
    effect = f"each process busy {load.cpu_s_per_s / needed:.0%} instead of {load.cpu_s_per_s / load.processes:.0%}"
    return Advice(name, _processes(load.processes), _processes(needed), effect, evidence, "medium")


def _processes(count: int) -> str:
    return f"{count} process" if count == 1 else f"{count} processes"
