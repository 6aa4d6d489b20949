"""R1: how far standbys are behind.

Reads pg_stat_replication on the primary and, on each configured replica, a heartbeat row where there is one: it alone
is right on a dead link and on an idle primary. Without it a standby counts as not behind when it replayed all it
received and its receiver streams; one that receives nothing is critical. Without standbys silent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity
from optimizers.checks.v6_xmin_horizon import NO_PRIVILEGE
from optimizers.wording import GB, MB, grade, size, span, worst


@dataclass(frozen=True)
class ReplicaLag:
    """Thresholds of R1."""

    id: ClassVar[str] = "R1"
    title: ClassVar[str] = "replica lag"
    timeout_s: ClassVar[float] = 5.0

    lag_s_warn: float = 10.0
    lag_s_critical: float = 60.0
    behind_bytes_warn: float = 100 * MB
    behind_bytes_critical: float = GB

    async def look(self, look: Look) -> Answer:
        """Look at the primary's standbys and at every configured replica."""
        nodes = await look.everywhere(load("check_r1_standby"))
        beats = await _heartbeats(look)
        standbys = {name: rows[0] for name, rows in nodes.items() if rows[0]["is_standby"]}
        streaming = await look.connection.fetch(load("check_r1_standbys"))
        found = [self._of_sender(row) for row in streaming]
        found += [self._of_standby(name, row, beats.get(name)) for name, row in standbys.items()]
        is_blind = not all(rows[0]["sees_all"] for rows in nodes.values())
        unseen = f"no answer from {', '.join(look.unseen)}" if look.unseen else None
        return Answer([finding for finding in found if finding], NO_PRIVILEGE if is_blind else unseen)

    def _of_sender(self, row: Any) -> Finding | None:
        severity = worst(
            grade(row["replay_lag_s"] or 0, self.lag_s_warn, self.lag_s_critical),
            grade(row["behind_bytes"], self.behind_bytes_warn, self.behind_bytes_critical),
        )
        if severity is None:
            return None
        late = f"{span(row['replay_lag_s'])} and " if row["replay_lag_s"] is not None else ""
        return Finding(
            object=f"standby {row['name']}",
            severity=severity,
            recommendation=f"Standby {row['name']} ({row['state']}, {row['sync_state']}) has {late}"
            f"{size(row['behind_bytes'])} of WAL still to replay. See its disk, long queries that hold up its replay "
            "(max_standby_streaming_delay), and the link.",
            evidence={key: row[key] for key in ("state", "sync_state", "replay_lag_s", "behind_bytes")},
        )

    def _of_standby(self, node: str, row: Any, heartbeat_age_s: float | None) -> Finding | None:
        age_s: float = row["replay_age_s"] or 0 if heartbeat_age_s is None else heartbeat_age_s
        is_cut = row["receiver"] != "streaming" and row["sees_all"] and heartbeat_age_s is None
        severity = worst(grade(age_s, self.lag_s_warn, self.lag_s_critical), Severity.CRITICAL if is_cut else None)
        if severity is None:
            return None
        source = "the heartbeat it has" if heartbeat_age_s is not None else "what it replayed last"
        link = f"its receiver is {row['receiver'] or 'not running'}"
        return Finding(
            object=f"standby {node}",
            severity=severity,
            recommendation=f"Standby {node} is {span(age_s)} behind by {source}; {link}. See the link to its primary, "
            "and long queries that hold up its replay (max_standby_streaming_delay).",
            evidence={
                "heartbeat_age_s": heartbeat_age_s,
                "replay_age_s": row["replay_age_s"],
                "behind_bytes": row["behind_bytes"],
                "receiver": row["receiver"],
            },
        )


async def _heartbeats(look: Look) -> Mapping[str, float | None]:
    """Return the age of the newest heartbeat on each node; empty where nobody writes any."""
    where = await look.connection.fetchrow(load("check_r1_heartbeats"))
    if where is None:
        return {}
    query = load("check_r1_heartbeat_age").format(table=where["table_name"], column=where["column_name"])
    rows: Mapping[str, Sequence[Any]] = await look.everywhere(query)
    return {name: found[0]["heartbeat_age_s"] for name, found in rows.items()}
