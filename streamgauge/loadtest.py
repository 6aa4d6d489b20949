"""Load test: real processes emit through the real library, and every event is followed to its commit.

In: a Load, and the addresses of the pipeline under test. Out: an Outcome, each number from its own source.
Promise: bounded in events and in time; it leaves no process; what it says of a pipeline that stands still is that
it stands still, not a guess.
"""

import asyncio
import secrets
import sys
import threading
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import asyncpg
import msgspec

from contract.errors import error_text
from database.queries import load
from streamgauge.load_account import OPERATIONAL, Account, Ledger, in_stream
from streamgauge.load_oracle import Difference, Expected, compare, read_oracle
from streamgauge.load_plan import PREFIX, KindOfLoad, Plan, Report, probe_key, service_of, share

POLL_S: Final = 0.05
SAY_EVERY_S: Final = 1.0
SETTLE_S: Final = 3.0
"""A ledger that has not changed for so long after a process was killed holds all that will come of it."""
STOP_DEADLINE_S: Final = 30.0
GUARD_SERIES: Final = 10_000
SILENT_AGGREGATOR_S: Final = 10.0


@dataclass(frozen=True)
class Load:
    """What to emit, and for how long to wait."""

    events: int
    series: int
    processes: int
    rate: float = 0.0
    """Events a second of all processes; 0 is as fast as they go."""
    run_id: str | None = None
    """None is real traffic."""
    kind: KindOfLoad = "mixed"
    deadline_s: float = 300.0
    oracle: Path | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How it ended. Counts are events, but for `duplicates` (batches) and `killed` (processes)."""

    run_id: str | None
    sent: int
    """Counted by the load generators, outside the library."""
    accepted: int
    committed: int
    dropped: int
    quarantined: int
    lost: int
    in_flight: int
    """In the stream, and accounted for nowhere."""
    duplicates: int
    events_per_s: float
    freshness_p50_s: float | None
    """Emit to commit, by probes; None: no probe was committed."""
    freshness_p99_s: float | None
    killed: int = 0
    """Generators that ended otherwise than by emitting their share."""
    elapsed_s: float
    complete: bool
    """sent = committed + dropped, and nothing was quarantined, lost or is in flight."""


class Progress(NamedTuple):
    """What a watcher is shown while the test runs."""

    sent: int
    account: Account
    freshness_s: float | None


@dataclass(slots=True)
class Generator:
    """One emitting process as its reports describe it."""

    plan: Plan
    process: Process
    sent: int = 0
    began_s: float | None = None
    done: bool = False
    probes: list[float] = field(default_factory=list[float])
    """When each probe was emitted, in order; taken off once it is committed."""
    probes_seen: int = 0


class LoadTest:
    """One load test. `run` may be called once."""

    def __init__(
        self,
        load: Load,
        redis_url: str,
        dsn: str,
        environ: Mapping[str, str],
        *,
        show: Callable[[Progress], None] = lambda progress: None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.load = load
        self.token = secrets.token_hex(4)
        self._redis_url = redis_url
        self._environ = environ
        self._show = show
        self._warn = warn
        self._ledger = Ledger(dsn, service_of(self.token), load.run_id)
        self._generators: list[Generator] = []
        self._account = Account()
        self._changed_s = time.monotonic()
        self._fresh: list[float] = []

    async def run(self) -> Outcome:
        """Emit, follow, and return the outcome; ends at the deadline at the latest (and the final reading)."""
        began_s = time.monotonic()
        readers: list[asyncio.Task[None]] = []
        try:
            await self._look_for_an_aggregator()
            for number in range(self.load.processes):
                generator = await self._start(number)
                self._generators.append(generator)
                readers.append(asyncio.create_task(_read(generator), name=f"loadtest - reports of {number}"))
            await self._follow(began_s + self.load.deadline_s)
            return await self._outcome(began_s)
        finally:
            await self._stop()
            await asyncio.gather(*readers, return_exceptions=True)
            await self._ledger.aclose()

    async def _start(self, number: int) -> Generator:
        load = self.load
        plan = Plan(
            number=number,
            token=self.token,
            events=share(load.events, load.processes, number),
            series=load.series,
            kind=load.kind,
            rate=load.rate / load.processes,
            deadline_s=load.deadline_s,
            oracle=f"{load.oracle}.{number}" if load.oracle else "",
        )
        environ = {**self._environ, "REDIS_URL": self._redis_url, "STREAMGAUGE_SERVICE": service_of(self.token)}
        environ.pop("STREAMGAUGE_RUN_ID", None)
        # The library's guard on live series is not what is tested here.
        environ["STREAMGAUGE_MAX_SERIES_PER_METRIC"] = str(max(GUARD_SERIES, load.series))
        if load.run_id is not None:
            environ["STREAMGAUGE_RUN_ID"] = load.run_id
        command = (sys.executable, "-m", "streamgauge.load_worker", msgspec.json.encode(plan).decode())
        return Generator(plan, await asyncio.create_subprocess_exec(*command, stdout=PIPE, env=environ))

    async def _look_for_an_aggregator(self) -> None:
        """Say at once when nobody will commit; go on, since one may be about to start."""
        try:
            age_s = await self._ledger.heartbeat_age_s()
        except OPERATIONAL as error:
            return self._warn(f"PostgreSQL does not answer ({type(error).__name__}): trying on until the deadline")
        if age_s is None or age_s > SILENT_AGGREGATOR_S:
            heard = "was ever heard of" if age_s is None else f"was heard of for {age_s:.0f} s"
            self._warn(f"no aggregator {heard}: nothing is committed until one runs (`streamgauge aggregate`)")

    async def _follow(self, deadline_s: float) -> None:
        shown_s = float("-inf")
        while time.monotonic() < deadline_s:
            try:
                await self._look()
            except OPERATIONAL:
                await asyncio.sleep(POLL_S)  # away for now: faults are what some load tests are for
            if self._is_over():
                return
            if time.monotonic() - shown_s >= SAY_EVERY_S:
                shown_s = time.monotonic()
                self._show(self._progress())
            await asyncio.sleep(POLL_S)

    async def _look(self) -> None:
        waiting = {probe_key(self.token, g.plan.number): g for g in self._generators if g.probes}
        seen = await self._ledger.probes(waiting)
        now_s = time.monotonic()
        for key, generator in waiting.items():
            fresh = seen.get(key.decode(), 0) - generator.probes_seen
            self._fresh += [now_s - at_s for at_s in generator.probes[:fresh]]
            del generator.probes[:fresh]
            generator.probes_seen += fresh
        account = await self._ledger.account()
        if account != self._account:
            self._account, self._changed_s = account, now_s

    def _is_over(self) -> bool:
        a = self._account
        if any(g.process.returncode is None for g in self._generators):
            return False
        if all(g.done for g in self._generators):
            return a.committed + a.dropped + a.quarantined + a.lost >= self._sent()
        return time.monotonic() - self._changed_s > SETTLE_S and a.ended >= sum(g.done for g in self._generators)

    def _sent(self) -> int:
        return sum(g.sent for g in self._generators)

    def _progress(self) -> Progress:
        last = self._fresh[-1] if self._fresh else None
        return Progress(self._sent(), self._account, last)

    async def _outcome(self, began_s: float) -> Outcome:
        in_flight = 0
        try:
            await self._look()
            in_flight = await in_stream(self._redis_url, service_of(self.token), await self._ledger.applied())
        except OPERATIONAL as error:
            self._warn(f"the last reading failed: {error_text(error)}")
        self._show(self._progress())
        a, sent = self._account, self._sent()
        began = min((g.began_s for g in self._generators if g.began_s is not None), default=began_s)
        complete = a.committed + a.dropped == sent == a.accepted and not (a.quarantined or a.lost or in_flight)
        if sent and not a.committed:
            self._warn("nothing was committed: is an aggregator running against the same Redis and PostgreSQL?")
        return Outcome(
            run_id=self.load.run_id,
            sent=sent,
            accepted=a.accepted,
            committed=a.committed,
            dropped=a.dropped,
            quarantined=a.quarantined,
            lost=a.lost,
            in_flight=in_flight,
            duplicates=a.duplicates,
            events_per_s=round(a.committed / max(self._changed_s - began, 1e-9), 1),
            freshness_p50_s=quantile(self._fresh, 0.50),
            freshness_p99_s=quantile(self._fresh, 0.99),
            killed=sum(not g.done for g in self._generators),
            elapsed_s=round(time.monotonic() - began_s, 3),
            complete=complete,
        )

    async def _stop(self) -> None:
        left = [g.process for g in self._generators if g.process.returncode is None]
        for process in left:
            process.terminate()
        for process in left:
            try:
                await asyncio.wait_for(process.wait(), STOP_DEADLINE_S)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _read(generator: Generator) -> None:
    """Take in one process's reports until it ends."""
    assert generator.process.stdout is not None, "BUG: started with a pipe"
    async for line in generator.process.stdout:
        try:
            report = msgspec.json.decode(line, type=Report)
        except msgspec.MsgspecError:
            continue  # a kill cut it off
        generator.sent = max(generator.sent, report.sent)
        generator.done = generator.done or report.done
        if report.began_s:
            generator.began_s = report.began_s
        if report.probe:
            generator.probes.append(report.at_s)
    await generator.process.wait()


def quantile(values: Iterable[float], q: float) -> float | None:
    """Return the value at rank ceil(q * n), in milliseconds' precision; None of nothing."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, max(0, -int(-q * len(ordered) // 1) - 1))], 3) if ordered else None


def compare_oracle(files: Iterable[Path | str], dsn: str, schema: str) -> list[Difference]:
    """Compare the oracle's files with the totals in `schema`; empty when every series agrees.

    Counts and `le` counts exactly, sums within 1e-9 relative. May be called where an event loop runs.
    """
    found: list[dict[str, Expected]] = []
    failed: list[BaseException] = []

    def read() -> None:
        try:
            found.append(asyncio.run(stored_totals(dsn, schema)))
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            failed.append(error)

    thread = threading.Thread(target=read, name="loadtest - totals")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return compare(read_oracle(files), found[0])


async def stored_totals(dsn: str, schema: str) -> dict[str, Expected]:
    """Return the totals of every load-test series in `schema`, shards and layouts added up."""
    connection = await asyncpg.connect(dsn, timeout=10, server_settings={"search_path": f'"{schema}"'})
    try:
        totals: dict[str, Expected] = {}
        for key, n, total, le in await connection.fetch(load("load_totals"), PREFIX, timeout=60):
            totals.setdefault(key, Expected()).add(n, total, le or ())
        return totals
    finally:
        await connection.close(timeout=10)
