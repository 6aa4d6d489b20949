"""Drainer: empties the children, keeps what cannot be sealed yet, seals what can.

In: children and a time. Out: sealed batches for the sender. Pure of I/O and of locks.
Promise: nothing drained is forgotten; while no batch may be sealed, memory stays at one accumulator a series.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from contract.crash import NEVER, CrashPoint
from contract.metric import Kind
from contract.reasons import Dropped
from contract.windows import WINDOW_S, window_start_s
from producers.clock import Clock
from producers.metrics import Child
from producers.pending import AT_ONCE, Accumulator, Chunks, GaugeState, Samples, take
from producers.seal import MAX_SAMPLES, Sealed, Sealer, split

HEARTBEAT_MS: Final = 5000
LET_GO_S: Final = 50e-6
"""A pause in which another thread gets the interpreter: one of none would most often take it back at once."""
MAX_WAITING_SAMPLES: Final = 32 * MAX_SAMPLES
"""Samples beyond this that found no slot within a flush interval are merged: 4 MiB."""


@dataclass
class Drainer:
    """One producer's life between emits and batches. Used by one thread at a time."""

    sealer: Sealer
    clock: Clock
    crash: CrashPoint = NEVER
    accepted: int = 0
    """Events drained, dropped ones included."""
    _pending: dict[Child, Accumulator] = field(default_factory=dict[Child, Accumulator])
    _gauges: dict[Child, GaugeState] = field(default_factory=dict[Child, GaugeState])
    _repeated_s: int = 0
    _repeated_ms: int = 0
    """By elapsed time, as `_sealed_ms`."""
    _span_start_ms: int = 0
    _held_at_s: float | None = None
    """time.monotonic() of the first drain before the clock was measured."""
    _sealed_ms: int = 0
    _reported: int = 0

    def drop(self, reason: Dropped, count: int) -> None:
        """Count deliberate loss."""
        self.sealer.dropped[reason] = self.sealer.dropped.get(reason, 0) + count

    def drain(self, children: Iterable[Child]) -> None:
        """Take everything that was emitted."""
        samples = Chunks()
        # `list`: emitters may add children while we look.
        for child in list(children):
            values = child.values
            if not values:
                continue
            # Exactly what was counted: an append that comes between stays for the next drain.
            size = len(values)
            chunk = values[:size]
            del values[:size]
            self.accepted += size
            if child.drop is not None:
                self.drop(child.drop, size)
            elif child.metric.kind is Kind.HISTOGRAM:
                samples.add(child, chunk)
            else:
                if child.metric.kind is Kind.GAUGE:
                    self._pending[child] = self._gauges.setdefault(child, GaugeState())
                take(child, chunk, self._pending, self.drop)
        samples.take(self._pending, self.drop)

    def tick(self, children: Sequence[Child], slots: int) -> list[Sealed]:
        """Drain, then seal at most `slots` batches; without a slot the samples are merged.

        Without children only what waits is sealed.
        """
        now_ms = self.clock.now_ms()
        # A burst may wait as it is; an application that stays faster than its slots must not pile up samples.
        if children and self.samples() > MAX_WAITING_SAMPLES:
            self._merge()
        self.drain(children)
        if not self._span_start_ms:
            held_s = 0.0 if self._held_at_s is None else time.monotonic() - self._held_at_s
            self._span_start_ms = now_ms - int(held_s * 1000)
        if slots <= 0:
            self._merge()
            return []
        self._repeat_gauges(now_ms)
        parts = split([(c, a) for c, a in self._pending.items() if not _is_empty(a)])
        if not parts and not self._is_due():
            self._span_start_ms = now_ms
            return []
        self.crash.reach("before_seal")
        sealed = [self.sealer.seal(part, self._span_start_ms, now_ms) for part in parts[:slots] or [[]]]
        self._keep(parts[slots:])
        self._sealed_ms = self.clock.elapsed_ms()
        self._reported = sum(self.sealer.dropped.values())
        if len(parts) <= slots:
            self._span_start_ms = now_ms
        return sealed

    def levels(self) -> dict[bytes, float]:
        """Return what each gauge stands at, by its key: a successor's relative changes go on from there."""
        return {child.key: state.last for child, state in self._gauges.items() if state.was_set}

    def take_levels(self, children: Iterable[Child], levels: Mapping[bytes, float]) -> None:
        """Go on from a dead producer's `levels`."""
        for child in children:
            if child.values and child.key in levels:
                state = self._gauges[child] = GaugeState()
                state.last, state.was_set = levels[child.key], True

    def drafts(self) -> list[Sealed]:
        """Freeze what waits to be sealed as it would be now, for a successor; nothing changes."""
        parts = split([(c, a) for c, a in self._pending.items() if not _is_empty(a)])
        if not parts and sum(self.sealer.dropped.values()) != self._reported:
            parts.append([])
        # Before it is measured the clock is not to be read: it never goes back, and may be hours ahead.
        now_ms = self.clock.now_ms() if self.clock.is_measured() else int(time.time() * 1000)
        return self.sealer.draft(parts, min(self._span_start_ms or now_ms, now_ms), now_ms)

    def hold(self, children: Iterable[Child]) -> None:
        """Drain and merge before the time is known: nothing can be sealed yet."""
        if self._held_at_s is None:
            self._held_at_s = time.monotonic()
        self.drain(children)
        self._merge()

    def has_pending(self) -> bool:
        """Whether something drained waits to be sealed."""
        return any(not _is_empty(accumulator) for accumulator in self._pending.values())

    def samples(self) -> int:
        """Return how many samples wait to be sealed that are not merged."""
        return sum(len(a.values) for a in self._pending.values() if isinstance(a, Samples))

    def unsealed(self) -> int:
        """Return how many events were drained and stand in no batch yet."""
        return self.accepted - self.sealer.sealed_events - sum(self.sealer.dropped.values())

    def discard(self, children: Iterable[Child]) -> None:
        """Take what was emitted after the end; it is dropped."""
        for child in list(children):
            size = len(child.values)
            del child.values[:size]
            self.accepted += size
            if size:
                self.drop(Dropped.SHUTDOWN, size)

    def _is_due(self) -> bool:
        """Whether a batch must be sealed although no series has anything to say."""
        silent_ms = self.clock.elapsed_ms() - self._sealed_ms
        return silent_ms >= HEARTBEAT_MS or sum(self.sealer.dropped.values()) != self._reported

    def _repeat_gauges(self, now_ms: int) -> None:
        """Once a window every gauge that was ever set is said again, so that each window knows it."""
        window_s, elapsed_ms = window_start_s(now_ms), self.clock.elapsed_ms()
        if window_s != self._repeated_s or elapsed_ms - self._repeated_ms >= WINDOW_S * 1000:
            self._repeated_s, self._repeated_ms = window_s, elapsed_ms
            for child, state in self._gauges.items():
                if state.was_set:
                    state.repeat = True
                    self._pending[child] = state

    def _merge(self) -> None:
        """Merge all samples; half a microsecond each in Python, in which the application's threads wait."""
        merged = 0
        for child, accumulator in self._pending.items():
            for count in accumulator.merge(child.metric) if isinstance(accumulator, Samples) else ():
                merged += count
                if merged >= AT_ONCE:
                    time.sleep(LET_GO_S)
                    merged = 0

    def _keep(self, parts: "list[list[tuple[Child, Accumulator]]]") -> None:
        """Begin a new batch, with what did not fit into the last one."""
        left: dict[Child, Accumulator] = {}
        for child, accumulator in (item for part in parts for item in part):
            known = left.get(child)
            if isinstance(known, Samples) and isinstance(accumulator, Samples):
                known.values.extend(accumulator.values)
            else:
                left[child] = accumulator
        for child, state in self._gauges.items():
            if child in self._pending and child not in left:
                state.clear()
        self._pending = left


def _is_empty(accumulator: Accumulator) -> bool:
    if isinstance(accumulator, Samples):
        return accumulator.n() == 0
    if isinstance(accumulator, GaugeState):
        return accumulator.n == 0 and not accumulator.repeat
    return accumulator.n == 0
