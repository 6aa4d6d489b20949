"""Q3: the table of pg_stat_statements is too small for the statements there are.

Reads pg_stat_statements_info and the number of entries. Entries that are thrown out take their counters with them, so
that Q1 and Q2 see less. Never automatic: the setting needs a restart.
"""

from dataclasses import dataclass
from typing import ClassVar

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity
from optimizers.statements import require_extension


@dataclass(frozen=True)
class StatementTable:
    """Thresholds of Q3."""

    id: ClassVar[str] = "Q3"
    title: ClassVar[str] = "statement table pressure"
    timeout_s: ClassVar[float] = 5.0

    evictions: int = 0
    """In about an hour; more are too many."""
    full_share: float = 0.95

    async def look(self, look: Look) -> Answer:
        """Compare entries with room, and evictions with an hour ago."""
        require_extension(look)
        row = await look.connection.fetchrow(load("check_q3_statement_table"))
        assert row is not None
        interval = await look.since("evictions", {"all": {"evictions": float(row["dealloc"])}}, row["epoch"] or "")
        evicted = None if interval is None else interval.deltas.get("all", {}).get("evictions")
        entries, most = row["entries"], row["most"]
        too_full, too_many = entries > self.full_share * most, evicted is not None and evicted > self.evictions
        why_unknown = "no hour of evictions yet" if evicted is None else None
        if not too_full and not too_many:
            return Answer(insufficient=why_unknown)
        said = "" if evicted is None else f", {evicted:.0f} times entries were thrown out in the last hour"
        finding = Finding(
            object="pg_stat_statements",
            severity=Severity.CRITICAL if too_full else Severity.WARN,
            recommendation=(
                f"pg_stat_statements holds {entries} of {most} statements{said}: what is thrown out is not counted. "
                "Look for SQL without parameters (each text is an entry of its own), or raise pg_stat_statements.max."
            ),
            evidence={"entries": entries, "max": most, "evictions": evicted},
            sql=f"ALTER SYSTEM SET pg_stat_statements.max = {most * 2}; -- then restart",
            rollback=f"ALTER SYSTEM SET pg_stat_statements.max = {most}; -- then restart",
        )
        return Answer([finding], insufficient=why_unknown)
