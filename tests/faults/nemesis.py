"""Nemesis: a seeded schedule of faults against a whole pipeline under load, and the account at the end.

Run `python -m tests.faults.nemesis --seed N --minutes M`. In: a seed. Out: the schedule with its times, what was
injected, and whether everything was committed once. Promise: the same seed and length give the same schedule; every
fault is healed; exit code 1, and the command to repeat it, when the account does not hold.
"""

import argparse
import os
import random
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from streamgauge.embedded import PostgresServer, RedisServer
from tests.faults.bench import Bench
from tests.faults.oracle import SPOOLS, Book, Spool, total
from tests.loading import DUPLICATES, fetch
from tests.servers import Servers

EMITTERS: Final = 2
RATE: Final = 500
DRAIN_S: Final = 120.0
LONGEST_S: Final = 3.0
LINKS: Final = ("producer-redis", "aggregator-redis", "aggregator-postgres")
MODES: Final = ("delay", "drop_replies", "blackhole", "reset", "cut_after")
POINTS: Final = (
    "after_read",
    "before_commit",
    "in_transaction",
    "after_commit",
    "before_ack",
    "after_note",
    "after_ack",
)
CALM_S: Final = 1.5
"""Between a fault's end and the next one's begin, on average."""


class Fault(NamedTuple):
    """One fault: what is done to whom, when, for how long. Faults of links, servers and services overlap."""

    at_s: float
    what: str
    target: str
    lasts_s: float = 0.0
    detail: str = ""

    def __str__(self) -> str:
        lasting = f" for {self.lasts_s:.1f} s" if self.lasts_s else ""
        return f"{self.at_s:7.1f} s  {self.what} {self.target} {self.detail}".rstrip() + lasting


def schedule(seed: int, length_s: float) -> list[Fault]:
    """Return the faults of a seed, in order of their begin; each is over before the length is."""
    draw = random.Random(seed)
    faults: list[Fault] = []
    tracks = (_links(draw), _servers(draw), _services(draw))
    for track in tracks:
        at_s = draw.uniform(0.5, 2 * CALM_S)
        while True:
            fault = track(at_s)
            end_s = at_s + fault.lasts_s
            if end_s > length_s:
                break
            faults.append(fault)
            at_s = end_s + draw.uniform(0.5, 2 * CALM_S)
    return sorted(faults)


def _links(draw: random.Random) -> Callable[[float], Fault]:
    def next_fault(at_s: float) -> Fault:
        mode, link = draw.choice(MODES), draw.choice(LINKS)
        if mode == "delay":
            return Fault(at_s, mode, link, draw.uniform(1, 4), f"{draw.uniform(0.01, 0.5):.2f}")
        if mode == "cut_after":
            return Fault(at_s, mode, link, draw.uniform(0.5, 1.5), str(draw.randrange(1, 20_000)))
        return Fault(at_s, mode, link, draw.uniform(0.5, 4))

    return next_fault


def _servers(draw: random.Random) -> Callable[[float], Fault]:
    def next_fault(at_s: float) -> Fault:
        server = draw.choice(("redis", "postgres"))
        what = draw.choice(("kill", "stop", "maxmemory") if server == "redis" else ("kill", "stop"))
        return Fault(at_s, what, server, draw.uniform(0.2, LONGEST_S))

    return next_fault


def _services(draw: random.Random) -> Callable[[float], Fault]:
    def next_fault(at_s: float) -> Fault:
        what = draw.choice(("kill", "stop", "crash"))
        target = "aggregator" if what == "crash" else draw.choice(("aggregator", "aggregator", "exporter", "emitter"))
        if what == "crash":
            return Fault(at_s, what, target, 2.5, f"{draw.choice(POINTS)}@{draw.randrange(1, 4)}")
        return Fault(at_s, what, target, draw.uniform(0.2, LONGEST_S))

    return next_fault


class Nemesis:
    """Injects a schedule into a bench; whatever was killed is started again at the fault's end."""

    def __init__(self, bench: Bench, redis: RedisServer, postgres: PostgresServer, faults: Sequence[Fault]) -> None:
        self.injected: list[Fault] = []
        self._bench = bench
        self._redis = redis
        self._postgres = postgres
        steps = [(fault.at_s, 1, fault) for fault in faults]
        steps += [(fault.at_s + fault.lasts_s, 0, fault) for fault in faults]
        self._steps = sorted(steps)
        self._heal: dict[Fault, Callable[[], object]] = {}
        self._end_s = 0.0

    def run(self, length_s: float) -> None:
        """Go through the schedule; times are those of the schedule, or later where a step takes its time."""
        began_s = time.monotonic()
        self._end_s = began_s + length_s
        for at_s, begins, fault in self._steps:
            time.sleep(max(0.0, began_s + at_s - time.monotonic()))
            if begins:
                say(f"{time.monotonic() - began_s:7.1f} s  {fault.what} {fault.target} {fault.detail}")
                self._heal[fault] = self._inject(fault)
                self.injected.append(fault)
            else:
                self._heal.pop(fault)()
        time.sleep(max(0.0, self._end_s - time.monotonic()))

    def _inject(self, fault: Fault) -> Callable[[], object]:
        """Begin a fault; returns what ends it."""
        if fault.target in LINKS:
            return self._spoil(fault)
        if fault.target in ("redis", "postgres"):
            return self._strike_server(fault)
        if fault.target == "emitter":
            return self._strike_emitter(fault)
        if fault.target == "exporter":
            return self._strike_exporter(fault)
        return self._strike_aggregator(fault)

    def _spoil(self, fault: Fault) -> Callable[[], object]:
        link = self._bench.links[fault.target]
        if fault.what == "delay":
            link.delay(float(fault.detail))
        elif fault.what == "cut_after":
            link.cut_after(int(fault.detail))
        else:
            getattr(link, fault.what)()
        return link.pass_on

    def _strike_server(self, fault: Fault) -> Callable[[], object]:
        server = self._redis if fault.target == "redis" else self._postgres
        if fault.what == "kill":
            server.kill()
            return server.open
        if fault.what == "stop":
            return _pause(server.pid)
        client = self._bench.client()
        client.config_set("maxmemory", "1mb")
        return lambda: client.config_set("maxmemory", "0")

    def _strike_emitter(self, fault: Fault) -> Callable[[], object]:
        emitters = self._bench.emitters
        # All may have emitted their share by now: then there is another to strike.
        name = next(iter(emitters.live()), "") or emit(self._bench, self._end_s - time.monotonic())
        if fault.what == "stop":
            return _pause(emitters.process(name).pid)
        emitters.kill(name)
        return lambda: emit(self._bench, self._end_s - time.monotonic())

    def _strike_exporter(self, fault: Fault) -> Callable[[], object]:
        if fault.what == "stop":
            return _pause(self._bench.pipeline.processes["exporter"].pid)
        self._bench.kill("exporter")
        return self._bench.restart_exporter

    def _strike_aggregator(self, fault: Fault) -> Callable[[], object]:
        alive = self._bench.aggregators()
        assert alive, "every aggregator died, and none of the last by our hand"
        name = alive[0]
        if fault.what == "stop":
            return _pause(self._bench.pipeline.processes[name].pid)
        self._bench.kill(name)
        if fault.what == "kill":
            return self._bench.begin_aggregator
        dying = self._bench.begin_aggregator(STREAMGAUGE_CRASH_AT=fault.detail)

        def replace() -> None:
            self._bench.kill(dying)
            self._bench.begin_aggregator()

        return replace


def _pause(pid: int) -> Callable[[], object]:
    """Stop a process by SIGSTOP; returns what lets it go on."""
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


def emit(bench: Bench, length_s: float) -> str:
    """Start an emitter for so long; returns its name."""
    return bench.emitters.start(max(1, int(RATE * length_s)), rate=RATE, deadline_s=length_s + 60)


class Outcome(NamedTuple):
    """What became of a run. `double` is 0, or the check would have failed."""

    faults: int
    books: list[Book]
    drained_s: float
    duplicates: int
    scrapes: int
    spool: Spool

    def __str__(self) -> str:
        books = self.books
        return (
            f"{self.faults} faults injected; {total(books, 'meant')} events emitted by {len(books)} producers; "
            f"{total(books, 'sent')} batches sent, {total(books, 'batches')} committed, "
            f"{self.duplicates} arrived again; {total(books, 'accepted')} events accepted, "
            f"{total(books, 'committed')} committed, {total(books, 'lost')} lost, 0 double, "
            f"{total(books, 'unsent')} emitted by killed producers and never sent (spool: {self.spool or 'none'}); "
            f"{self.scrapes} scrapes, no counter fell; "
            f"drained in {self.drained_s:.1f} s"
        )


def play(bench: Bench, redis: RedisServer, postgres: PostgresServer, seed: int, length_s: float) -> Outcome:
    """Run a seed; AssertionError when a promise is broken."""
    faults = schedule(seed, length_s)
    bench.exporter()
    for _ in range(2):
        bench.aggregator()
    for _ in range(EMITTERS):
        emit(bench, length_s)
    nemesis = Nemesis(bench, redis, postgres, faults)
    nemesis.run(length_s)
    bench.emitters.finish(length_s + DRAIN_S)
    began_s = time.monotonic()
    bench.emitters.drain(DRAIN_S)
    drained_s = time.monotonic() - began_s
    books = bench.check(1)
    assert total(books, "lost") == total(books, "missing") == total(books, "quarantined") == 0, books
    scrapes = bench.served.answers if bench.served else 0
    told = (len(nemesis.injected), books, drained_s, fetch(bench.dsn, DUPLICATES), scrapes)
    return Outcome(*told, bench.emitters.spool)


def spool_of(seed: int) -> Spool:
    """Return what the emitters of a seed keep for their successors."""
    return tuple(SPOOLS)[seed % len(SPOOLS)]


def again(seed: int, minutes: float) -> str:
    """Return the command that repeats a run: the same schedule, to the last digit of its length."""
    return f"make faults SEED={seed} MINUTES={minutes!r}"


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read `--seed` and `--minutes`; without a seed any."""
    parser = argparse.ArgumentParser(prog="make faults")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000))
    parser.add_argument("--minutes", type=float, default=1.0)
    return parser.parse_args(arguments)


def say(line: str) -> None:
    """Write a line now: a run that hangs has told what it did."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one seed on servers of our own."""
    args = read_arguments(arguments)
    length_s = args.minutes * 60
    say(f"seed {args.seed}, {args.minutes:g} minutes; the schedule:")
    for fault in schedule(args.seed, length_s):
        say(f"  {fault}")
    servers = Servers()
    folder = Path(tempfile.mkdtemp(prefix="sg-faults-"))
    try:
        redis, postgres = servers.redis(), servers.postgres()
        dsn = postgres.dsn(servers.new_database())
        with Bench(folder, dsn, redis.url, spool=spool_of(args.seed)) as bench:
            say(str(play(bench, redis, postgres, args.seed, length_s)))
    except Exception:
        say(f"FAILED; logs: {folder}; again: {again(args.seed, args.minutes)}")
        raise
    finally:
        servers.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
