"""The levels side of the audit: at each level, archived base + retained windows = totals.

In: one snapshot. Out: findings that name the level and the series, then the windows in which two levels differ.
Promise: counts exactly, sums within 1e-9 of the magnitudes added; windows that wait for their roll-up are read from
the level below, so that a healthy store shows no difference at any moment.
"""

from typing import Any, Final

import numpy as np

from contract.windows import LEVELS_S
from database.connect import Connection
from database.findings import Finding
from database.queries import load
from database.rollup import BELOW
from database.rows import measure, read, sketch_counts

TOLERANCE: Final = 1e-9
MOST: Final = 50
"""Findings of one kind that are listed: after that the count is what matters."""
CALL_TIMEOUT_S: Final = 610.0


async def check_levels(connection: Connection) -> list[Finding]:
    """Compare each level with the totals, then each level with the one below where they differ."""
    findings: list[Finding] = []
    suspects: set[int] = set()
    for level in LEVELS_S:
        rows = await connection.fetch(load(f"audit_level_{level}"), TOLERANCE, timeout=CALL_TIMEOUT_S)
        for row in rows[:MOST]:
            findings.append(_differs("levels", f"rollup_{level} {row['key']}", row))
            suspects.add(row["series_id"])
    for level in BELOW:
        rows = await connection.fetch(load(f"audit_windows_{level}"), list(suspects), TOLERANCE, timeout=CALL_TIMEOUT_S)
        for row in rows[:MOST]:
            where = f"rollup_{BELOW[level]}/rollup_{level} {row['key']} window {row['window_start']:%Y-%m-%dT%H:%M:%SZ}"
            findings.append(_differs("windows", where, row))
    return findings


def _differs(check: str, culprit: str, row: Any) -> Finding:
    if row["expected_n"] != row["found_n"]:
        return Finding(check, f"{culprit} n", row["expected_n"], row["found_n"])
    return Finding(check, f"{culprit} sum", row["expected_sum"], row["found_sum"])


async def check_sketches(connection: Connection) -> list[Finding]:
    """Every sketch counts exactly the samples of its row."""
    findings: list[Finding] = []
    for table in ("parts", *(f"rollup_{level}" for level in LEVELS_S)):
        span = await measure(connection, table, "sketch IS NOT NULL")
        for low, high in span.chunks():
            condition = "sketch IS NOT NULL AND series_id >= $1 AND series_id < $2"
            rows = await read(connection, table, condition, low, high)
            counted = sketch_counts(rows)
            for at in np.flatnonzero(counted != rows.n)[: MOST - len(findings)].tolist():
                key = await connection.fetchval(load("series_key"), int(rows.series[at]))
                where = f"{table} {key} window {int(rows.window_s[at])} sketch"
                findings.append(Finding("sketches", where, int(rows.n[at]), int(counted[at])))
    return findings
