"""Writer batch: how many batches a commit should take, by additive increase and multiplicative decrease.

In: commit times and sizes of the aggregators' newest commits. Out: Said.
Promise: a larger batch is advised only where commits are full, since a limit that is not reached limits nothing. The
limit is in batches, which a commit takes whole; how many rows they bring is told.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Final, NamedTuple

from optimizers.signals.said import Advice, Said, insufficient

WRITER: Final = "writer_batch"
TARGET_S: Final = 0.2
GROW: Final = 1.1
SHRINK: Final = 0.5
FULL_SHARE: Final = 0.9
MIN_COMMITS: Final = 20
LEAST: Final = 1
MOST: Final = 10_000
LEAST_ROWS: Final = 500
"""What is slow with no more is slow for another reason: a slow disk, a lock, a machine that is busy."""
RECENT_S: Final = 600.0
"""Older commits are not judged: what was slow before a quiet night is not slow now."""
SETTING: Final = "STREAMGAUGE_COMMIT_MAX_BATCHES"


class Commits(NamedTuple):
    """The newest commits of one aggregator, of the last RECENT_S."""

    seconds: Sequence[float]
    batches: Sequence[int]
    rows: Sequence[int]
    """Of totals and gauges; 0: not told."""
    max_batches: int


def p95(values: Sequence[float]) -> float:
    """Return the value that 95 % do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


def next_size(p95_s: float, limit: int) -> int:
    """Return half above the target, a tenth more below it."""
    wanted = limit * SHRINK if p95_s > TARGET_S else max(limit * GROW, limit + 1)
    return max(LEAST, min(MOST, int(wanted)))


def judge_writer(consumers: Mapping[str, Commits]) -> Said:
    """Say whether commits should be smaller, or may be larger."""
    seconds = [value for each in consumers.values() for value in each.seconds]
    batches = [count for each in consumers.values() for count in each.batches]
    if len(seconds) < MIN_COMMITS:
        within = f"in the last {RECENT_S / 60:.0f} minutes"
        return insufficient(WRITER, f"{len(seconds)} commits measured {within}, {MIN_COMMITS} needed")
    limit = min(each.max_batches for each in consumers.values() if each.seconds)
    measured_s, largest = p95(seconds), p95(batches)
    rows = sum(count for each in consumers.values() for count in each.rows)
    per_batch = rows / max(sum(batches), 1)
    detail = f"p95 of {len(seconds)} commits {measured_s * 1000:.0f} ms, at most {largest:.0f} of {limit} batches"
    detail += f" of {per_batch:.0f} rows each" if rows else ""
    if measured_s <= TARGET_S and largest < FULL_SHARE * limit:
        return Said(WRITER, "ok", f"{detail}: the limit is not reached")
    slow, least = measured_s > TARGET_S, LEAST
    if slow:
        largest = p95([b for s, b in zip(seconds, batches, strict=True) if s > TARGET_S])
        least = _least(per_batch)
        if largest <= least:
            return Said(WRITER, "warn", f"{detail}: {_small(least)} slow, so that their size is not the cause")
    proposed = max(next_size(measured_s, limit if largest >= FULL_SHARE * limit else round(largest)), least)
    if proposed == limit:
        return Said(WRITER, "ok", f"{detail}: no larger size is advised")
    evidence = {"commit_p95_s": round(measured_s, 4), "batches_p95": largest, "commits": len(seconds)}
    evidence |= {"rows_per_batch": round(per_batch, 1)} if rows else {}
    effect = "shorter commits, less waiting behind them" if slow else "fewer commits for the same events"
    advice = Advice(SETTING, str(limit), str(proposed), effect, evidence, "medium" if slow else "low")
    return Said(WRITER, "warn" if slow else "ok", detail, (advice,))


def _least(rows_per_batch: float) -> int:
    """Return how many batches bring LEAST_ROWS; as few as may be where nobody tells rows."""
    return max(ceil(LEAST_ROWS / rows_per_batch), LEAST) if rows_per_batch else LEAST


def _small(least: int) -> str:
    return "a single batch is" if least == LEAST else f"{LEAST_ROWS} rows or fewer are"
