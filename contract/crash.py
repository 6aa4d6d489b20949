"""Crash points: named places where a test may end this process as kill -9 would.

In: STREAMGAUGE_CRASH_AT, a name of POINTS or `name@n` for the n-th time it is reached. Out: SIGKILL.
Promise: without that setting a point costs one comparison.
"""

import os
import signal
from typing import Final

POINTS: Final = {
    "before_seal": "producer: events are drained, none is sealed",
    "after_seal": "producer: batches are sealed, the sender has none",
    "before_send": "producer: batches wait, Redis has none",
    "after_send": "producer: Redis has them, the producer does not know",
    "after_acknowledged": "producer: it knows",
    "before_fin": "producer: everything is sealed but the farewell",
    "after_lease": "aggregator: it holds a shard and has read nothing",
    "after_read": "aggregator: entries are pending, nothing is done",
    "before_commit": "aggregator: entries are folded, no transaction has begun",
    "in_transaction": "aggregator: everything is written, COMMIT is not sent",
    "after_commit": "aggregator: committed, nothing else",
    "before_ack": "aggregator: committed, Redis has not heard of it",
    "after_note": "aggregator: Redis knows of the commit, the entries are pending",
    "after_ack": "aggregator: acknowledged",
    "after_quarantine": "aggregator: an entry is set aside, and pending",
    "after_trim": "aggregator: a stream is trimmed, its flag is not set or cleared",
    "after_fence": "aggregator: the fence is up, nothing is restored",
    "before_fence_falls": "aggregator: everything is restored, the fence is up",
    "after_fence_fell": "aggregator: the fence is down, Redis knows the old database",
}
IN_JOB: Final = "in_job:"
"""Before the name of a scheduled job: its lock is held, it has not begun."""


class CrashPoint:
    """Kills the process when the point of its name is reached."""

    def __init__(self, where: str = "") -> None:
        """ValueError: there is no such point."""
        self._name, _, times = where.partition("@")
        if self._name and self._name not in POINTS and not self._name.startswith(IN_JOB):
            raise ValueError(f"STREAMGAUGE_CRASH_AT: there is no point {self._name!r}")
        self._left = int(times or 1)

    def reach(self, name: str) -> None:
        """Die here if this is the chosen point and its time has come."""
        if self._name and self._name == name:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


NEVER: Final = CrashPoint()
