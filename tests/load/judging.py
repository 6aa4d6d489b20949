"""Judging: whether memory stayed flat and lag bounded, in figures.

In: samples, probes, and when faults were. Out: rows of a Result, and a picture. Promise: what counts as flat and
bounded is said here, and a run too short to tell is not judged.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from tests.load.report import Picture, Points, Result, mib, seconds
from tests.load.sampling import Fresh, Sample, quantile

TELLING_S: Final = 300.0
"""A shorter run fills caches for most of its time: its memory is told, not judged."""
SETTLED: Final = (0.1, 0.3)
"""The part of the run that memory is compared with, begun when caches are full."""
LATE: Final = 0.8
FLAT_SHARE: Final = 0.15
FLAT_MIB: Final = 24.0
"""More than this share and this much above the settled part is growth."""
KEPT: Final = 0.1
TAKEN: Final = 0.9
"""What a tenth of the samples is below, and above: a median would be the one or the other by chance where half of each
minute is spent with what catching up took."""
SLOWER_S: Final = 2.0
"""The oldest wait may be this much longer in the second half of the run."""

FED: Final = 0.9
"""Less than this share of what the pace asked for was not the load that is said."""

Roles = Mapping[str, Points]


class Calm(NamedTuple):
    """The time away from faults."""

    faults: Sequence[tuple[float, float]]
    after_s: float

    def holds(self, at_s: float) -> bool:
        """Whether a moment is away from every fault."""
        return not any(begin - 1.0 <= at_s <= end + self.after_s for begin, end in self.faults)


def by_role(samples: Sequence[Sample], began_s: float) -> Roles:
    """Return MiB over the seconds of the run, of the largest process of each role."""
    found: dict[str, list[tuple[float, float]]] = {}
    for sample in samples:
        largest: dict[str, float] = {}
        for name, size in sample.memory_mib.items():
            role = name.partition("-")[0]
            largest[role] = max(largest.get(role, 0.0), size)
        for role, size in largest.items():
            found.setdefault(role, []).append((sample.at_s - began_s, size))
    return found


def judge_fed(result: Result, before: Mapping[str, int], after: Mapping[str, int], length_s: float) -> None:
    """The feeder kept its pace, but for the seconds in which Redis was away or held it back."""
    sealed, withheld = (after[name] - before[name] for name in ("sealed", "withheld"))
    share = sealed / max(1, sealed + withheld)
    said = f"{sealed:,}; {withheld:,}; {share:.1%} of the pace"
    result.judge(
        "batches fed; not sealed while Redis was away or held back", said, share >= FED or length_s < TELLING_S
    )


def judge_memory(result: Result, role: str, points: Points, length_s: float) -> None:
    """Memory is flat when neither what is kept nor what catching up takes is more at the end than once settled."""
    settled = [v for t, v in points if SETTLED[0] * length_s <= t <= SETTLED[1] * length_s]
    late = [v for t, v in points if t >= LATE * length_s]
    if not settled or not late:
        return result.judge(f"memory of {role}", "not seen", False)
    kept, taken = ([quantile(part, q) or 0.0 for part in (settled, late)] for q in (KEPT, TAKEN))
    said = (
        f"kept {mib(kept[0])} settled, {mib(kept[1])} at the end; taken {mib(taken[0])}, {mib(taken[1])}; "
        f"{mib(max(v for _, v in points))} at most"
    )
    if length_s < TELLING_S:
        return result.row(f"memory of {role}", said)
    is_flat = all(after <= before * (1 + FLAT_SHARE) + FLAT_MIB for before, after in (kept, taken))
    result.judge(f"memory of {role}", said, is_flat)


def judge_lag(result: Result, samples: Sequence[Sample], calm: Calm) -> None:
    """Lag is bounded when it does not grow from one half of the run to the other, away from faults."""
    looked = [sample for sample in samples if sample.behind is not None]
    away = [sample for sample in looked if calm.holds(sample.at_s)]
    for where, some in (("all the time", looked), ("away from faults", away)):
        behind = max((sample.behind or 0 for sample in some), default=0)
        oldest_s = max((sample.oldest_s or 0.0 for sample in some), default=0.0)
        result.row(f"entries behind, oldest wait: worst, {where}", f"{behind:,}, {seconds(oldest_s)}")
    half = len(away) // 2
    halves = [[sample.oldest_s or 0.0 for sample in part] for part in (away[:half], away[half:])]
    early_s, late_s = (statistics.median(part) if part else 0.0 for part in halves)
    what = "oldest wait away from faults: median of the first half, of the second"
    result.judge(what, f"{seconds(early_s)}, {seconds(late_s)}", late_s <= early_s + SLOWER_S)


def tell_freshness(result: Result, fresh: Sequence[Fresh], calm: Calm) -> None:
    """Say how long it took from an emit to the first scrape that shows it."""
    away = [probe for probe in fresh if calm.holds(probe.emitted_s)]
    for where, some in (("all the time", fresh), ("away from faults", away)):
        p50, p99 = (quantile([probe.after_s for probe in some], q) for q in (0.5, 0.99))
        said = "no probe" if p50 is None or p99 is None else f"{seconds(p50)}, {seconds(p99)} of {len(some):,} probes"
        result.row(f"emit to visible: p50, p99, {where}", said)


def picture(
    began_s: float,
    faults: Sequence[tuple[float, float]],
    samples: Sequence[Sample],
    fresh: Sequence[Fresh],
    roles: Roles,
) -> Picture:
    """Draw memory, and below it waits and freshness."""
    found = Picture("Soak: a fault at each red line", [(begin - began_s) / 60 for begin, _ in faults])
    found.panel("MiB", {role: [(t / 60, v) for t, v in points] for role, points in roles.items()})
    waits = [
        ((sample.at_s - began_s) / 60, sample.oldest_s or 0.001) for sample in samples if sample.behind is not None
    ]
    visible = [((probe.emitted_s - began_s) / 60, probe.after_s) for probe in fresh]
    found.panel("s", {"oldest wait": waits, "emit to visible": visible})
    return found
