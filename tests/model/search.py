"""Search: runs the schedules of many seeds, on every core, and one mutant after another.

In: how many, from which seed. Out: what was seen, in numbers; the first schedule that broke a promise, cut short.
Promise: the same seeds give the same numbers, however many processes share them; no process is left.
"""

import gc
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.model.mutants import mutated
from tests.model.schedules import Ran, describe, run_seed, shrink
from tests.model.services import simulated

CHUNK: Final = 250
"""Seeds that a process runs before it reports."""
COLLECT_EVERY: Final = 100
"""A world is full of cycles: collecting them a hundred at a time costs a fifth less than as Python would."""

Hashes = NDArray[np.int64]


class Finding(NamedTuple):
    """A seed whose schedule broke a promise."""

    seed: int
    text: str
    actions: int
    lines: list[str]
    """The shortened schedule."""


class Chunk(NamedTuple):
    """What became of some seeds."""

    seeds: int
    keys: Hashes
    states: Hashes
    steps: int
    finding: Finding | None


@dataclass
class Seen:
    """What became of all of them."""

    schedules: int = 0
    steps: int = 0
    seconds: float = 0.0
    finding: Finding | None = None
    _keys: list[Hashes] = field(default_factory=list[Hashes])
    _states: list[Hashes] = field(default_factory=list[Hashes])

    def take(self, chunk: Chunk) -> None:
        """Add a chunk; of several findings the one with the least seed stays."""
        self.schedules += chunk.seeds
        self.steps += chunk.steps
        self._keys.append(chunk.keys)
        self._states.append(chunk.states)
        if chunk.finding is not None and (self.finding is None or chunk.finding.seed < self.finding.seed):
            self.finding = chunk.finding

    def distinct(self) -> tuple[int, int]:
        """Return how many schedules, and how many states, differ from each other."""
        return _size(self._keys), _size(self._states)


class Caught(NamedTuple):
    """How a mutant was found out."""

    name: str
    schedules: int
    """Run until one broke a promise."""
    seconds: float
    finding: Finding | None


def _size(parts: list[Hashes]) -> int:
    return len(np.unique(np.concatenate(parts))) if parts else 0


def _enter() -> None:
    """Begin a process of the search: for its whole life it lives in simulated time."""
    logging.disable(logging.CRITICAL)
    _simulated = simulated()
    _simulated.__enter__()
    _kept.append(_simulated)
    gc.collect()
    gc.freeze()
    gc.disable()


_kept: list[object] = []


def _run(first: int, seeds: int) -> Chunk:
    keys: list[int] = []
    states: set[int] = set()
    steps = 0
    for seed in range(first, first + seeds):
        ran = run_seed(seed)
        keys.append(ran.key)
        states.update(ran.states)
        steps += ran.steps
        if seed % COLLECT_EVERY == 0:
            gc.collect()
        if ran.broken is not None:
            return Chunk(len(keys), _array(keys), _array(states), steps, _finding(seed, ran))
    return Chunk(len(keys), _array(keys), _array(states), steps, None)


def _array(hashes: "list[int] | set[int]") -> Hashes:
    return np.unique(np.fromiter(hashes, dtype=np.int64, count=len(hashes)))


def _finding(seed: int, ran: Ran) -> Finding:
    short = shrink(ran)
    return Finding(seed, str(short.broken), len(short.actions), describe(short))


def _catch(name: str, first: int, limit: int) -> Caught:
    began_s = time.perf_counter()
    with mutated(name):
        for seed in range(first, first + limit):
            ran = run_seed(seed)
            if seed % COLLECT_EVERY == 0:
                gc.collect()
            if ran.broken is not None:
                seconds = time.perf_counter() - began_s
                return Caught(name, seed - first + 1, seconds, _finding(seed, ran))
    return Caught(name, limit, time.perf_counter() - began_s, None)


@contextmanager
def _processes(jobs: int) -> Generator[ProcessPoolExecutor]:
    # States are counted by their hashes, which must be the same in every process.
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = "0"
    try:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, mp_context=context, initializer=_enter) as pool:
            yield pool
    finally:
        if before is None:
            del os.environ["PYTHONHASHSEED"]
        else:
            os.environ["PYTHONHASHSEED"] = before


def search(first: int, schedules: int, jobs: int, show: Callable[[Seen], None], mutant: str = "") -> Seen:
    """Run so many schedules, or up to the first that breaks a promise."""
    seen = Seen()
    began_s = time.perf_counter()
    chunks = [(at, min(CHUNK, first + schedules - at)) for at in range(first, first + schedules, CHUNK)]
    with _processes(jobs) as pool:
        left = iter(chunks)
        running: set[Future[Chunk]] = set()
        while True:
            while len(running) < 2 * jobs and seen.finding is None and (chunk := next(left, None)) is not None:
                running.add(pool.submit(_run_mutated, mutant, *chunk))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                seen.take(future.result())
            seen.seconds = time.perf_counter() - began_s
            show(seen)
    return seen


def _run_mutated(mutant: str, first: int, seeds: int) -> Chunk:
    with mutated(mutant):
        return _run(first, seeds)


def catch(names: list[str], first: int, limit: int, jobs: int, show: Callable[[Caught], None]) -> list[Caught]:
    """Search for each mutant, one process each, up to the first schedule that finds it out."""
    found: list[Caught] = []
    with _processes(jobs) as pool:
        running = [pool.submit(_catch, name, first, limit) for name in names]
        for future in running:
            found.append(future.result())
            show(found[-1])
    return found
