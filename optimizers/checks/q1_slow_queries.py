"""Q1: statements that are slow on average and called often.

Reads pg_stat_statements, as what was added in about an hour. Never automatic: a plan needs a person.
Source of the thresholds: pghero (20 ms, 100 calls).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from optimizers.check import Answer, Finding, Look, Severity
from optimizers.statements import Spent, Statement, read_statements, spent_since


@dataclass(frozen=True)
class SlowQueries:
    """Thresholds of Q1."""

    id: ClassVar[str] = "Q1"
    title: ClassVar[str] = "slow queries"
    timeout_s: ClassVar[float] = 15.0

    calls_per_hour: float = 100.0
    mean_ms: float = 20.0
    critical_share: float = 0.10
    """Of the time all statements of the database took."""

    async def look(self, look: Look) -> Answer:
        """Return the statements above both thresholds, the costliest first."""
        statements = await read_statements(look)
        spent = await spent_since(look, statements)
        if spent is None:
            return Answer(insufficient="no hour of statement counters yet")
        slow = [name for name, each in spent.by_id.items() if self._is_slow(each, spent.hours)]
        slow.sort(key=lambda name: -spent.by_id[name]["total_ms"])
        return Answer([self._finding(statements[name], spent) for name in slow])

    def _is_slow(self, counters: Mapping[str, float], hours: float) -> bool:
        calls = counters["calls"]
        return calls >= self.calls_per_hour * hours and counters["total_ms"] >= self.mean_ms * calls

    def _finding(self, statement: Statement, spent: Spent) -> Finding:
        counters = spent.by_id[statement.queryid]
        calls, total_ms = counters["calls"], counters["total_ms"]
        share = total_ms / spent.total_ms
        per_call = {name: counters[name] / calls for name in ("rows", "blocks_read")}
        return Finding(
            object=f"query {statement.queryid}",
            severity=Severity.CRITICAL if share >= self.critical_share else Severity.WARN,
            recommendation=(
                f"Query {statement.queryid}: {calls / spent.hours:.0f} calls/h, mean {total_ms / calls:.1f} ms, "
                f"{share:.1%} of database time, {per_call['rows']:.1f} rows and {per_call['blocks_read']:.1f} blocks "
                "read per call. Look at its plan: EXPLAIN (ANALYZE, BUFFERS)."
            ),
            evidence={
                "query": statement.shown,
                "roles": statement.roles,
                "calls_per_hour": calls / spent.hours,
                "mean_ms": total_ms / calls,
                "time_share": share,
                "rows_per_call": per_call["rows"],
                "blocks_read_per_call": per_call["blocks_read"],
                "interval_s": spent.hours * 3600,
            },
        )
