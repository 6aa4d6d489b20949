"""Pair: two aggregators beside one, on the same backlog.

In: a scratch stack. Out: a Section, events per second. Rounds of one and of two take turns: the second one is started
for its round and stopped again. Notes say how busy the cores were, which is what few cores hide.
"""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Final

from benchmarks.backlog import Backlog, push
from benchmarks.drain import DEADLINE_S, SHAPES, processor_s
from benchmarks.measure import OURS, Section
from benchmarks.scratch import Scratch, cpu_s, wait_committed, wait_for
from contract.streams import DEFAULT_SHARDS, lease_key

SHAPE: Final = SHAPES[1]
PRODUCERS: Final = 4
"""Even, so that both shards hold as much."""


def run(full: bool) -> Section:
    """Drain with one and with two in turns."""
    section = Section("pair", "Two aggregators beside one", less_is_better=False)
    rates: dict[int, list[float]] = {1: [], 2: []}
    busy: dict[int, list[float]] = {1: [], 2: []}
    own: dict[int, list[float]] = {1: [], 2: []}
    batches = SHAPE.batches * (5 if full else 1)
    with Scratch() as stack:
        first = stack.aggregator()
        backlog = Backlog(PRODUCERS, SHAPE.series)
        _drain(stack, [first], backlog, backlog.sweep)
        for _ in range(7 if full else 2):
            _book(rates[1], busy[1], own[1], *_drain(stack, [first], backlog, batches))
            second = stack.aggregator()
            wait_for(lambda: _holders(stack) == 2, DEADLINE_S, "a lease for each of two aggregators")
            _drain(stack, [first, second], backlog, backlog.sweep)  # the second one learns the series
            _book(rates[2], busy[2], own[2], *_drain(stack, [first, second], backlog, batches))
            stack.stop(second)
            wait_for(lambda: _holders(stack) == 1, DEADLINE_S, "both leases with one aggregator")
    _rows(section, rates, busy, own)
    return section


def _rows(
    section: Section, rates: dict[int, list[float]], busy: dict[int, list[float]], own: dict[int, list[float]]
) -> None:
    section.add(SHAPE.title, "one aggregator", "events/s", rates[1])
    section.add(SHAPE.title, "two aggregators", "events/s", rates[2])
    gains = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    section.add("two against one", OURS, "x", gains)
    cores = os.cpu_count() or 1
    for number, name in ((1, "one"), (2, "two")):
        section.notes.append(
            f"With {name}: aggregators, PostgreSQL and Redis kept {_median(busy[number]):.2f} of {cores} cores busy; "
            f"processor time of the aggregators {_median(own[number]):.3f} s per million events."
        )
    wanted = 2 * _median(busy[1])
    said = (
        f"that hides what a second one adds beyond {cores / wanted * 2:.2f} x" if wanted > cores else "there are enough"
    )
    section.notes.append(f"All share {cores} cores; twice the work of one would keep {wanted:.2f} busy: {said}.")


def _drain(
    stack: Scratch, aggregators: Sequence["subprocess.Popen[bytes]"], backlog: Backlog, batches: int
) -> tuple[int, float, float, float]:
    """Return events, seconds, processor seconds of all, and of the aggregators alone."""
    before = backlog.events
    sealed = backlog.seal(batches, SHAPE.samples)
    for process in aggregators:
        process.send_signal(signal.SIGSTOP)
    try:
        push(stack.client(), sealed)
        used, servers = _used(stack, aggregators)
        began_s = time.perf_counter()
    finally:
        for process in aggregators:
            process.send_signal(signal.SIGCONT)
    wait_committed(stack.dsn, backlog.events, DEADLINE_S)
    took_s = time.perf_counter() - began_s
    used_after, servers_after = _used(stack, aggregators)
    own_s = used_after - used
    return backlog.events - before, took_s, own_s + servers_after - servers, own_s


def _used(stack: Scratch, aggregators: Sequence["subprocess.Popen[bytes]"]) -> tuple[float, float]:
    _, postgres_s, redis_s = processor_s(stack, aggregators[0])
    return sum(cpu_s(process.pid) for process in aggregators), postgres_s + redis_s


def _book(
    rates: list[float], busy: list[float], own: list[float], events: int, took_s: float, all_s: float, own_s: float
) -> None:
    rates.append(events / took_s)
    busy.append(all_s / took_s)
    own.append(own_s / events * 1e6)


def _holders(stack: Scratch) -> int:
    """Return how many aggregators hold a lease, 0 while a shard has none."""
    client = stack.client()
    holders = [client.get(lease_key(shard)) for shard in range(DEFAULT_SHARDS)]
    return len(set(holders)) if all(holders) else 0


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
