"""Event loop: how late a service's event loops get to what is due.

In: p99 of the delay and the number of samples, per service. Out: Said.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from optimizers.signals.said import Advice, Said, insufficient

LOOP: Final = "event_loop_lag"
WARN_S: Final = 0.1
MIN_SAMPLES: Final = 200


class Lag(NamedTuple):
    """How late the loops of a service were."""

    p99_s: float
    samples: int


def judge_loops(services: Mapping[str, Lag]) -> Said:
    """Say which services block their event loop."""
    judged = tuple(name for name, lag in sorted(services.items()) if lag.samples >= MIN_SAMPLES)
    if not judged:
        most = max((lag.samples for lag in services.values()), default=0)
        return insufficient(LOOP, f"{most} samples of event_loop_lag_seconds in 30 min, {MIN_SAMPLES} needed")
    late = {name: services[name] for name in judged if services[name].p99_s > WARN_S}
    advice = tuple(
        Advice(
            name,
            f"p99 of the delay {lag.p99_s * 1000:.0f} ms",
            "move what blocks the event loop (files, CPU, synchronous clients) into a thread or process",
            f"p99 below {WARN_S * 1000:.0f} ms; every request of the process waits as much less",
            {"lag_p99_s": round(lag.p99_s, 4), "samples": lag.samples},
            "high",
        )
        for name, lag in late.items()
    )
    few = len(services) - len(judged)
    detail = f"{len(late)} of {len(judged)} services block their event loop; {few} with too little data"
    return Said(LOOP, "warn" if late else "ok", detail, advice, judged)
