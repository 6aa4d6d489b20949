"""What the streams hold, summed by series with the contract alone: the oracle for producers.

Promise: each (producer, seq) counts once, and the same identity with other bytes fails the test.
"""

import struct
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

import redis

from contract import sketch
from contract.batch import Body, Directory, Envelope, read_body, read_directory, read_envelope
from contract.streams import DEFAULT_SHARDS, FIELD, stream_key


@dataclass
class Series:
    """One series over all batches."""

    n: int = 0
    sum: float = 0.0
    last: float = 0.0
    sketch: dict[int, int] = field(default_factory=dict[int, int])
    le: list[int] = field(default_factory=list[int])


@dataclass
class Sums:
    """All batches of all producers, each once."""

    series: dict[bytes, Series] = field(default_factory=dict[bytes, Series])
    bodies: dict[tuple[bytes, int], Body] = field(default_factory=dict[tuple[bytes, int], Body])
    events: int = 0
    entries: int = 0
    duplicates: int = 0

    def dropped(self) -> dict[str, int]:
        """Return the newest drop counts, summed over producers."""
        found: dict[str, int] = {}
        for producer in {producer for producer, _ in self.bodies}:
            newest = max(seq for p, seq in self.bodies if p == producer)
            for reason, count in self.bodies[producer, newest].dropped.items():
                found[reason] = found.get(reason, 0) + count
        return found

    def missing(self) -> list[tuple[bytes, int]]:
        """Return seqs that lie between others of their producer and are not there."""
        gaps: list[tuple[bytes, int]] = []
        for producer in {producer for producer, _ in self.bodies}:
            seqs = sorted({0} | {seq for p, seq in self.bodies if p == producer})
            gaps += [(producer, low + 1) for low, high in pairwise(seqs) if high != low + 1]
        return gaps


def read_streams(url: str) -> Sums:
    """Read every stream of a Redis."""
    sums, seen = Sums(), dict[tuple[bytes, int], bytes]()
    with redis.Redis.from_url(url, protocol=2, socket_timeout=10) as client:
        for shard in range(DEFAULT_SHARDS):
            entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", client.xrange(stream_key(shard)))
            for _, fields in entries:
                data = fields[FIELD]
                envelope = read_envelope(data)
                identity = (envelope.producer_id, envelope.seq)
                sums.entries += 1
                assert seen.setdefault(identity, data) == data, "one identity, two contents"
                if identity in sums.bodies:
                    sums.duplicates += 1
                else:
                    _add(sums, envelope, data)
    return sums


def _add(sums: Sums, envelope: Envelope, data: bytes) -> None:
    body = read_body(envelope, data)
    directory = read_directory(body.directory)
    sums.bodies[envelope.producer_id, envelope.seq] = body
    sums.events += envelope.events
    first = _take(sums, directory.keys, body.counter_n, body.counter_sum)
    first += _take(sums, directory.keys[first:], body.gauge_n, body.gauge_last)
    at = 0
    for key, n in zip(directory.keys[first:], struct.iter_unpack("<I", body.sample_n), strict=False):
        values = struct.unpack_from(f"<{n[0]}d", body.samples, at)
        at += 8 * n[0]
        series = sums.series.setdefault(key, Series())
        series.n, series.sum = series.n + n[0], series.sum + sum(values)
        sketch.fold(values, series.sketch)
    first += directory.n_samples
    _take(sums, directory.keys[first:], body.merged_n, body.merged_sum)
    _take_merged(sums, directory, body, first)


def _take(sums: Sums, keys: list[bytes], ns: bytes, values: bytes) -> int:
    rows = list(zip(struct.iter_unpack("<Q", ns), struct.iter_unpack("<d", values), strict=True))
    for key, ((n,), (value,)) in zip(keys, rows, strict=False):
        series = sums.series.setdefault(key, Series())
        series.n, series.sum, series.last = series.n + n, series.sum + value, value
    return len(rows)


def _take_merged(sums: Sums, directory: Directory, body: Body, first: int) -> None:
    of: tuple[int, ...] = struct.unpack(f"<{len(directory.keys)}H", directory.metric_of)
    le_at = sketch_at = 0
    for i, (size,) in enumerate(struct.iter_unpack("<I", body.merged_sketch_len)):
        series = sums.series[directory.keys[first + i]]
        sketch.merge(series.sketch, sketch.decode(body.merged_sketch[sketch_at : sketch_at + size]))
        sketch_at += size
        width = len(directory.metrics[of[first + i]].bounds) + 1
        le: tuple[int, ...] = struct.unpack_from(f"<{width}Q", body.merged_le, 8 * le_at)
        le_at += width
        series.le = [a + b for a, b in zip(series.le or [0] * width, le, strict=True)]
