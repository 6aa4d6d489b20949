"""API: the same no-op API twice, with our middleware and without any, loaded by `wrk` in turns.

In: a bench, a length. Out: p99 of each, before, during and after. Promise: what the machine's contention does to an API
it does to both, so the difference between the two is ours; a request that fails ends the run.
"""

import shutil
import statistics
import sys
import time
from typing import Final, NamedTuple

from benchmarks.middleware import load
from streamgauge.processes import free_port
from streamgauge.stack import answers
from tests.faults.bench import Bench
from tests.load.report import Points, Result

APPS: Final = {"instrumented": "streamgauge", "bare": "none"}
WHEN: Final = ("before", "during", "after")
SLOWER: Final = 1.5
SLOWER_MS: Final = 5.0
"""The instrumented one's p99 may be this much worse: one run of `wrk` differs from the next by as much."""


class Window(NamedTuple):
    """One run of `wrk`."""

    when: str
    app: str
    at_s: float
    p99_ms: float
    requests_per_s: float


class Apis:
    """Both servers, and what `wrk` saw of them."""

    def __init__(self, bench: Bench) -> None:
        self.windows: list[Window] = []
        self._bench = bench
        self._ports = {app: free_port() for app in APPS}
        wrk = shutil.which("wrk")
        assert wrk is not None, "WRK IS NOT INSTALLED (a Debian package)"
        self._wrk = wrk

    def start(self) -> None:
        """Start both; they send through the producers' link."""
        redis_url = f"redis://{self._bench.producer_link.address}/0"
        for app, middleware in APPS.items():
            where = ("--host", "127.0.0.1", "--port", str(self._ports[app]), "--no-access-log")
            env = {"BENCH_MIDDLEWARE": middleware, "REDIS_URL": redis_url, "STREAMGAUGE_SERVICE": "api"}
            command = (sys.executable, "-m", "uvicorn", "benchmarks.middleware_app:app", *where)
            self._bench.pipeline.start(f"api-{app}", *command, env=env)
        for port in self._ports.values():
            self._bench.until(answers(port, "/items/1"), "an API answers")

    def load(self, when: str, length_s: float, window_s: int) -> None:
        """Load one after the other until the time is over; each once at least."""
        end_s = time.monotonic() + length_s
        while True:
            for app, port in self._ports.items():
                at_s = time.monotonic()
                _, rate, p99_ms = load(self._wrk, port, window_s)
                self.windows.append(Window(when, app, at_s, p99_ms, rate))
            if time.monotonic() >= end_s:
                break

    def stop(self) -> None:
        """End both."""
        for app in APPS:
            self._bench.pipeline.stop(f"api-{app}")

    def points(self, began_s: float) -> dict[str, Points]:
        """Return p99 over minutes of the run."""
        return {
            f"API p99, {app}": [((w.at_s - began_s) / 60, w.p99_ms) for w in self.windows if w.app == app]
            for app in APPS
        }

    def judge(self, result: Result, *, is_long: bool) -> None:
        """Tell both at each time, and judge while there was too much; a run too short to tell is not judged."""
        for when in WHEN:
            ours_ms, bare_ms = (self._median_ms(when, app) for app in APPS)
            is_as_fast = ours_ms <= bare_ms * SLOWER + SLOWER_MS
            said = f"{self._tell(when, 'instrumented')}; {self._tell(when, 'bare')}"
            result.judge(f"API p99 {when}: instrumented; bare", said, is_as_fast or when != "during" or not is_long)

    def _median_ms(self, when: str, app: str) -> float:
        return statistics.median(w.p99_ms for w in self.windows if (w.when, w.app) == (when, app))

    def _tell(self, when: str, app: str) -> str:
        p99 = [w.p99_ms for w in self.windows if (w.when, w.app) == (when, app)]
        rate = statistics.median(w.requests_per_s for w in self.windows if (w.when, w.app) == (when, app))
        middle_ms = self._median_ms(when, app)
        return f"{middle_ms:.1f} ms ({min(p99):.1f} - {max(p99):.1f}) at {rate:,.0f} requests/s"
