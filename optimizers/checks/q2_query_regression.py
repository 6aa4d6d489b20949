"""Q2: statements that became slower than they were at this hour of other days.

Reads pg_stat_statements as hourly means, kept for 14 days. A regression is twice the median of the same hour, and
beyond the usual spread (median + 3.5 x 1.4826 x MAD). Never automatic.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import ClassVar, Final

from optimizers.check import Answer, Finding, Look, Severity
from optimizers.statements import Spent, Statement, read_statements, spent_since

MAD_TO_SIGMA: Final = 1.4826
"""Makes the median absolute deviation of normal data its standard deviation."""

Past = Sequence[tuple[datetime, Mapping[str, float]]]


@dataclass(frozen=True)
class QueryRegression:
    """Thresholds of Q2."""

    id: ClassVar[str] = "Q2"
    title: ClassVar[str] = "query regression"
    timeout_s: ClassVar[float] = 15.0

    times_median: float = 2.0
    deviations: float = 3.5
    calls: float = 50.0
    """In the interval, and in each hour it is compared with."""
    time_share: float = 0.01
    days: int = 5
    """Days with this hour that a statement needs before it is judged."""

    async def look(self, look: Look) -> Answer:
        """Keep this hour's means; return the statements whose mean is out of line."""
        statements = await read_statements(look)
        spent = await spent_since(look, statements)
        if spent is None:
            return Answer(insufficient="no hour of statement counters yet")
        now = {name: _hour(each, spent.hours) for name, each in spent.by_id.items() if each["calls"] >= self.calls}
        past = await look.remembered("means")
        await look.remember("means", now)
        judged = {name: self._same_hour(past.get(name, ()), look.now) for name in now}
        judged = {name: hours for name, hours in judged.items() if len(hours) >= self.days}
        if now and not judged:
            return Answer(insufficient=f"no statement has {self.days} days with this hour yet")
        found = [self._finding(statements[name], spent, now[name], judged[name]) for name in judged]
        return Answer([each for each in found if each is not None])

    def _same_hour(self, past: Past, now: datetime) -> list[Mapping[str, float]]:
        return [values for hour, values in past if hour.hour == now.hour]

    def _finding(
        self, statement: Statement, spent: Spent, now: Mapping[str, float], hours: Sequence[Mapping[str, float]]
    ) -> Finding | None:
        usual_ms = median(hour["mean_ms"] for hour in hours)
        spread_ms = MAD_TO_SIGMA * median(abs(hour["mean_ms"] - usual_ms) for hour in hours)
        share = spent.by_id[statement.queryid]["total_ms"] / spent.total_ms if spent.total_ms else 0.0
        limit_ms = max(self.times_median * usual_ms, usual_ms + self.deviations * spread_ms)
        if now["mean_ms"] <= limit_ms or share < self.time_share:
            return None
        changes = {name: (median(hour[name] for hour in hours), now[name]) for name in ("calls_per_hour", "rows")}
        said = "; ".join(f"{_WORDS[name]} {_compare(*pair)}" for name, pair in changes.items())
        return Finding(
            object=f"query {statement.queryid}",
            severity=Severity.WARN,
            recommendation=(
                f"Query {statement.queryid} went from {usual_ms:.1f} to {now['mean_ms']:.1f} ms (usual at this hour: "
                f"below {limit_ms:.1f} ms), {share:.1%} of database time; {said}. "
                "Compare its plan with the one before: statistics, data size, a lost index."
            ),
            evidence={
                "query": statement.shown,
                "usual_mean_ms": usual_ms,
                "mean_ms": now["mean_ms"],
                "limit_ms": limit_ms,
                "time_share": share,
                "days": len(hours),
                **{f"usual_{name}": before for name, (before, _) in changes.items()},
                **{name: after for name, (_, after) in changes.items()},
            },
        )


_WORDS: Final = {"calls_per_hour": "calls", "rows": "rows per call"}


def _hour(counters: Mapping[str, float], hours: float) -> dict[str, float]:
    calls = counters["calls"]
    return {
        "mean_ms": counters["total_ms"] / calls,
        "calls_per_hour": calls / hours,
        "rows": counters["rows"] / calls,
    }


def _compare(before: float, after: float) -> str:
    if before and abs(after / before - 1) <= 0.2:
        return "unchanged"
    return f"{before:.4g} → {after:.4g}"
