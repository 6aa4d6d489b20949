"""Seal: accumulators to frozen batches.

In: series with something to say. Out: batch bytes under consecutive seqs of one producer.
Promise: the events of all batches so far are `accepted - dropped` of each; no batch crosses a window; none is
longer than the wire allows.
"""

import os
import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from contract import sketch
from contract.batch import Body, Directory, encode_directory, seal
from contract.metric import MetricDef
from contract.windows import window_start_s
from producers.clock import Clock
from producers.metrics import Child
from producers.pending import Accumulator, CounterSum, GaugeState, Merged, Samples

MAX_SERIES: Final = 4096
MAX_SAMPLES: Final = 16_384
"""Most series and samples of one batch: 8 B a sample on the wire, so at most some 130 kB."""
MAX_PART_BYTES: Final = 512 << 10
"""Most bytes of one batch as estimated before compression: half of what the wire allows, whatever zstd can do."""
DIRECTORIES: Final = 64


@dataclass(frozen=True, slots=True)
class Sealed:
    """A frozen batch."""

    seq: int
    events: int
    data: bytes
    fin: bool = False


class Numbering(msgspec.Struct, array_like=True, frozen=True):
    """Where a producer stands: what its next batch goes on from."""

    seq: int = 0
    sealed_events: int = 0
    window_s: int = 0
    window_first_seq: int = 1


class Sealer:
    """Numbers and freezes the batches of one producer. Used by one thread."""

    def __init__(self, clock: Clock, service: str, run_id: str | None, producer_id: bytes | None = None) -> None:
        self.producer_id = producer_id or os.urandom(16)
        self.seq = 0
        self.sealed_events = 0
        self.dropped: dict[str, int] = {}
        self._clock = clock
        self.service = service
        self.run_id = run_id
        self._window_s = 0
        self._window_first_seq = 1
        self._directories: dict[tuple[Child, ...], bytes] = {}

    def seal(self, part: "Sequence[tuple[Child, Accumulator]]", span_start_ms: int, now_ms: int) -> Sealed:
        """Freeze one part of `split`; an empty one is the heartbeat."""
        return self._freeze(part, span_start_ms, now_ms)

    @property
    def numbering(self) -> Numbering:
        """Where it stands; set by a successor, who goes on from there."""
        return Numbering(self.seq, self.sealed_events, self._window_s, self._window_first_seq)

    @numbering.setter
    def numbering(self, at: Numbering) -> None:
        self.seq, self.sealed_events = at.seq, at.sealed_events
        self._window_s, self._window_first_seq = at.window_s, at.window_first_seq

    def draft(
        self, parts: "Sequence[Sequence[tuple[Child, Accumulator]]]", span_start_ms: int, now_ms: int
    ) -> list[Sealed]:
        """Return what `seal` would, and stay where it stands: the same seqs will be sealed with other content."""
        before = self.numbering
        try:
            return [self._freeze(part, span_start_ms, now_ms) for part in parts]
        finally:
            self.numbering = before

    def fin(self, now_ms: int) -> Sealed:
        """Freeze the last batch of this producer."""
        return self._freeze([], now_ms, now_ms, fin=True)

    def _freeze(
        self, part: "Sequence[tuple[Child, Accumulator]]", span_start_ms: int, now_ms: int, *, fin: bool = False
    ) -> Sealed:
        self.seq += 1
        window_s = window_start_s(now_ms)
        if window_s != self._window_s:
            self._window_s, self._window_first_seq = window_s, self.seq
        columns = _Columns(part)
        self.sealed_events += columns.events
        body = Body(
            service=self.service,
            window_start_s=window_s,
            span_start_ms=span_start_ms,
            flushed_ms=now_ms,
            clock_offset_us=self._clock.offset_us(),
            clock_uncertainty_us=self._clock.uncertainty_us(),
            window_first_seq=self._window_first_seq,
            accepted=self.sealed_events + sum(self.dropped.values()),
            dropped=dict(self.dropped),
            fin=fin,
            run_id=self.run_id,
            directory=self._directory(columns),
            **columns.encoded(),
        )
        return Sealed(self.seq, columns.events, seal(self.producer_id, self.seq, columns.events, body), fin)

    def _directory(self, columns: "_Columns") -> bytes:
        runs = (columns.counters, columns.gauges, columns.sampled, columns.merged)
        children = tuple(child for run in runs for child, _ in run)
        # The same child may stand in two runs; their lengths make the look-up exact.
        known = self._directories.get((*children, *map(len, runs)))  # type: ignore[arg-type]
        if known is None:
            known = encode_directory(_directory(children, [len(run) for run in runs]))
            while len(self._directories) >= DIRECTORIES:
                del self._directories[next(iter(self._directories))]
            self._directories[(*children, *map(len, runs))] = known  # type: ignore[index]
        return known


def _directory(children: Sequence[Child], runs: Sequence[int]) -> Directory:
    metrics: dict[MetricDef, int] = {}
    of = [metrics.setdefault(child.metric, len(metrics)) for child in children]
    return Directory(tuple(metrics), [child.key for child in children], struct.pack(f"<{len(of)}H", *of), *runs)


def split(items: "Sequence[tuple[Child, Accumulator]]") -> "list[list[tuple[Child, Accumulator]]]":
    """Cut into parts that fit a batch; a series with very many samples is cut too."""
    parts: list[list[tuple[Child, Accumulator]]] = []
    series = samples = size_bytes = MAX_SAMPLES + 1
    known: set[str] = set()
    for child, accumulator in items:
        for piece in _pieces(accumulator):
            size = len(piece.values) if isinstance(piece, Samples) else 0
            piece_bytes = _estimated_bytes(child, piece, size)
            if series >= MAX_SERIES or samples + size > MAX_SAMPLES or size_bytes + piece_bytes > MAX_PART_BYTES:
                parts.append([])
                series = samples = size_bytes = 0
                known.clear()
            parts[-1].append((child, piece))
            if child.metric.name not in known:
                known.add(child.metric.name)
                size_bytes += 4 * len(child.metric.help) + 9 * len(child.metric.bounds)
            series, samples, size_bytes = series + 1, samples + size, size_bytes + piece_bytes
    return parts


def _estimated_bytes(child: Child, piece: Accumulator, samples: int) -> int:
    """Return about what one series adds to a batch; merged histograms are the large ones."""
    size_bytes = len(child.key) + 48 + 8 * samples
    merged = piece.merged if isinstance(piece, Samples) else None
    return size_bytes if merged is None else size_bytes + 48 + 8 * len(merged.le) + 4 * len(merged.sketch)


def _pieces(accumulator: Accumulator) -> Sequence[Accumulator]:
    if not isinstance(accumulator, Samples) or len(accumulator.values) <= MAX_SAMPLES:
        return (accumulator,)
    pieces: list[Samples] = []
    for at in range(0, len(accumulator.values), MAX_SAMPLES):
        piece = Samples()
        piece.values = accumulator.values[at : at + MAX_SAMPLES]
        pieces.append(piece)
    pieces[0].merged = accumulator.merged
    return pieces


class _Columns:
    """The columns of one batch."""

    def __init__(self, part: "Sequence[tuple[Child, Accumulator]]") -> None:
        self.counters: list[tuple[Child, CounterSum]] = []
        self.gauges: list[tuple[Child, GaugeState]] = []
        self.sampled: list[tuple[Child, Samples]] = []
        self.merged: list[tuple[Child, Merged]] = []
        for child, accumulator in part:
            if isinstance(accumulator, CounterSum):
                self.counters.append((child, accumulator))
            elif isinstance(accumulator, GaugeState):
                self.gauges.append((child, accumulator))
            else:
                if accumulator.values:
                    self.sampled.append((child, accumulator))
                if accumulator.merged is not None:
                    self.merged.append((child, accumulator.merged))
        self.events = (
            sum(c.n for _, c in self.counters)
            + sum(g.n for _, g in self.gauges)
            + sum(len(s.values) for _, s in self.sampled)
            + sum(m.n for _, m in self.merged)
        )

    def encoded(self) -> dict[str, bytes]:
        """Return Body's column fields."""
        gauges = [g for _, g in self.gauges]
        merged = [m for _, m in self.merged]
        sketches = [sketch.encode(m.sketch) for m in merged]
        return {
            "counter_n": _pack("Q", [c.n for _, c in self.counters]),
            "counter_sum": _pack("d", [c.sum for _, c in self.counters]),
            "gauge_n": _pack("Q", [g.n for g in gauges]),
            "gauge_last": _pack("d", [g.last for g in gauges]),
            "gauge_sum": _pack("d", [g.sum for g in gauges]),
            "gauge_min": _pack("d", [g.min if g.n else g.last for g in gauges]),
            "gauge_max": _pack("d", [g.max if g.n else g.last for g in gauges]),
            "sample_n": _pack("I", [len(s.values) for _, s in self.sampled]),
            "samples": _join([s.values for _, s in self.sampled]),
            "merged_n": _pack("Q", [m.n for m in merged]),
            "merged_sum": _pack("d", [m.sum for m in merged]),
            "merged_min": _pack("d", [m.min for m in merged]),
            "merged_max": _pack("d", [m.max for m in merged]),
            "merged_last": _pack("d", [m.last for m in merged]),
            "merged_le": b"".join(_pack("Q", m.le) for m in merged),
            "merged_sketch_len": _pack("I", [len(s) for s in sketches]),
            "merged_sketch": b"".join(sketches),
        }


def _join(values: "Sequence[array[float]]") -> bytes:
    joined = b"".join([each.tobytes() for each in values])
    if sys.byteorder == "big":
        swapped = array("d", joined)
        swapped.byteswap()
        return swapped.tobytes()
    return joined


def _pack(code: str, values: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(values)}{code}", *values)
