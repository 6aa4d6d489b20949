"""History: answers a Question from rollups and the parts not yet compacted, in one snapshot.

In: the servers that may be read. Out: JSON points with n, sum, min, max, last, quantiles, and whether the window is
complete.
Promise: a level's row is taken only where it is up to date; else the level below is read, and always the parts.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any, Final, NamedTuple

import numpy as np

from contract import sketch
from contract.windows import LEVELS_S
from database.connect import AWAY, Connection, Pool, acquire, transaction
from database.progress import Progress, read_progress
from database.queries import load
from database.rows import Rows, columns_of, join, merge
from exporter.history_servers import PRIMARY, Behind, HistoryServers, Replica, Served
from exporter.question import BadQuestion, Question

MAX_CELLS: Final = 2_000_000
"""Series x windows of the level: bounds what one answer reads."""
FINEST: Final = "10s"
UNKNOWN_METRIC: Final = 404


class Gathered(NamedTuple):
    """What one snapshot says to a question."""

    series: int
    rows: Rows
    restated: dict[int, int]
    progress: list[Progress]
    served: Served = PRIMARY


async def gather(servers: HistoryServers, question: Question) -> Gathered:
    """Read what a question is about; BadQuestion when the metric is unknown or the answer too large."""
    for replica in servers.replicas():
        try:
            return await _gather(replica.pool, question, replica)
        except Behind:
            continue
        except BadQuestion as error:
            if error.status != UNKNOWN_METRIC:
                raise  # a metric that is new may not have arrived there
        except AWAY as error:
            replica.rest(error)
    return await _gather(servers.primary, question, None)


async def _gather(pool: Pool, question: Question, replica: Replica | None) -> Gathered:
    async with acquire(pool) as connection, transaction(connection, "REPEATABLE READ READ ONLY"):
        await connection.execute(load("lock_parts"))
        served = PRIMARY if replica is None else await replica.check(connection)
        found = await connection.fetch(load("exporter_metric_series"), [question.selector.name])
        ids = [row["series_id"] for row in found if question.selector.takes(row["key"])]
        if not found:
            raise BadQuestion("metric", f"no series of {question.selector.name} is known", UNKNOWN_METRIC)
        cells = len(ids) * (question.to_s - question.from_s) // LEVELS_S[question.level]
        if cells > MAX_CELLS:
            raise BadQuestion("from", f"{cells} stored windows would be read; at most {MAX_CELLS} are allowed", 422)
        rows = await _read(connection, ids, question)
        restated = await _restated(connection, question)
        progress = await read_progress(connection, question.from_s, question.to_s)
    return Gathered(len(ids), rows, restated, progress, served)


async def answer(servers: HistoryServers, question: Question) -> dict[str, Any]:
    """Return the points of a question; BadQuestion as `gather` raises it."""
    series, rows, restated, progress, served = await gather(servers, question)
    return {
        "metric": question.selector.name,
        "match": dict(question.selector.labels),
        "series": series,
        "from_s": question.from_s,
        "to_s": question.to_s,
        "step_s": question.step_s,
        "level": question.level,
        "server": served.server,
        "heartbeat_age_s": served.heartbeat_age_s,
        "points": list(points(rows, question, restated, progress)),
    }


def points(
    rows: Rows, question: Question, restated: Mapping[int, int], progress: Iterable[Progress]
) -> Iterable[dict[str, Any]]:
    """Yield one point per window that has data: everything matched is merged into one."""
    zero = np.zeros(len(rows.series), dtype=np.int64)
    merged = merge(rows._replace(series=zero, producer=zero), question.step_s)
    ends = np.cumsum(np.maximum(merged.sketch_len, 0))
    progress = list(progress)
    for i, start_s in enumerate(merged.window_s.tolist()):
        end_s = start_s + question.step_s
        missing = [f"{p.service}/{p.producer_no}" for p in progress if p.misses(start_s, end_s)]
        revision = max((r for at_s, r in restated.items() if start_s <= at_s < end_s), default=0)
        size = max(int(merged.sketch_len[i]), 0)
        packed = merged.sketches[int(ends[i]) - size : int(ends[i])].tobytes()
        counts = sketch.decode(packed) if question.quantiles else {}
        n = int(merged.n[i])
        yield {
            "start_s": start_s,
            "n": n,
            "sum": _known(merged.sum[i]),
            "mean": _known(merged.sum[i] / n) if n else None,
            "min": _known(merged.min[i]),
            "max": _known(merged.max[i]),
            "last": _known(merged.last[i]),
            "quantiles": {f"{q:g}": _known(sketch.quantile(counts, q)) for q in question.quantiles},
            "status": "partial" if missing else "restated" if revision else "complete",
            "missing": missing,
            "revision": revision,
        }


def _known(value: float) -> float | None:
    return float(value) if isfinite(value) else None


async def _read(connection: Connection, ids: list[int], question: Question) -> Rows:
    """Read each level where it is the finest that is up to date, and the parts."""
    stale = await _stale(connection, question)
    levels = list(LEVELS_S)
    at = levels.index(question.level)
    rows = await _rows(connection, "parts", ids, question, None, (), ())
    above: str | None = None
    while True:
        level = levels[at]
        skipped = stale.get(level, set()) if level != FINEST else set[int]()
        width_s = None if above is None else LEVELS_S[above]
        taken = () if above is None else stale[above]
        # Older first, so that `last` is the newest: merge sorts by window, stable within one.
        rows = join(await _rows(connection, f"rollup_{level}", ids, question, width_s, taken, skipped), rows)
        if not skipped:
            return rows
        above, at = level, at - 1


async def _rows(
    connection: Connection,
    table: str,
    ids: list[int],
    question: Question,
    width_s: int | None,
    taken: Iterable[int],
    skipped: Iterable[int],
) -> Rows:
    source = load("exporter_rollup_rows").format(table=table)
    row = await connection.fetchrow(
        load("read_rows").format(source=source),
        ids,
        _at(question.from_s),
        _at(question.to_s),
        None if width_s is None else timedelta(seconds=width_s),
        [_at(s) for s in taken],
        [_at(s) for s in skipped],
    )
    return columns_of(row)


async def _stale(connection: Connection, question: Question) -> dict[str, set[int]]:
    """Return per level the windows whose row lags; an hour with such a minute is one too."""
    rows = await connection.fetch(load("exporter_stale_windows"), _at(question.from_s), _at(question.to_s))
    found: dict[str, set[int]] = {"1m": set(), "1h": set()}
    for row in rows:
        found.setdefault(row["level"], set()).add(row["window_s"])
    found["1h"] |= {window_s // 3600 * 3600 for window_s in found["1m"]}
    return found


async def _restated(connection: Connection, question: Question) -> dict[int, int]:
    arguments = question.level, _at(question.from_s), _at(question.to_s)
    return {row["window_s"]: row["revision"] for row in await connection.fetch(load("exporter_restated"), *arguments)}


def _at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
