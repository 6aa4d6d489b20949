"""K5: sessions that did not end as they should: client gone, fatal error, killed.

Reads pg_stat_database, as deltas of about an hour. A few bad ends are silent: somebody's terminal was closed.
"""

from dataclasses import dataclass
from typing import ClassVar

from database.queries import load
from optimizers.check import Answer, Finding, Look
from optimizers.wording import count, grade, percent


@dataclass(frozen=True)
class SessionEnds:
    """Thresholds of K5: bad ends as a share of the sessions that were opened."""

    id: ClassVar[str] = "K5"
    title: ClassVar[str] = "session ends"
    timeout_s: ClassVar[float] = 5.0

    bad_share_warn: float = 0.01
    bad_share_critical: float = 0.05
    min_bad_ends: float = 10.0

    async def look(self, look: Look) -> Answer:
        """Compare with about an hour ago."""
        row = await look.connection.fetchrow(load("check_k5_session_ends"))
        assert row is not None
        passed = await look.since("database", {"database": dict(row)})
        if passed is None or "database" not in passed.deltas:
            return Answer(insufficient="no counters of an hour ago to compare with")
        delta = passed.deltas["database"]
        bad = {key: delta[key] for key in ("abandoned", "fatal", "killed")}
        in_all = sum(bad.values())
        # Sessions of a pool are older than the hour: more may end than began.
        share = in_all / max(delta["sessions"], in_all, 1)
        severity = grade(share, self.bad_share_warn, self.bad_share_critical)
        if severity is None or in_all < self.min_bad_ends:
            return Answer()
        finding = Finding(
            object="sessions",
            severity=severity,
            recommendation=f"{count(in_all)} sessions ended badly in {passed.seconds / 60:.0f} min, {percent(share)} "
            f"of {count(delta['sessions'])} opened: {count(bad['abandoned'])} abandoned by their client, "
            f"{count(bad['fatal'])} by a fatal error, {count(bad['killed'])} killed. Look for the reason in the log: "
            "time-outs of a proxy, clients out of memory, idle_session_timeout, an operator.",
            evidence={"sessions": delta["sessions"], **bad, "bad_share": round(share, 4), "interval_s": passed.seconds},
        )
        return Answer([finding])
