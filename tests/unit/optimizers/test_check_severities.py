"""How bad checks call what they see: their default thresholds, on rows made up for each side of them."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from database.queries import load
from optimizers.check import Answer, Check, Interval, Severity
from optimizers.checks.b2_table_bloat import TableBloat
from optimizers.checks.b3_index_bloat import IndexBloat
from optimizers.checks.i4_unused_index import UnusedIndex
from optimizers.checks.i5_duplicate_index import DuplicateIndex
from optimizers.checks.k5_session_ends import SessionEnds
from optimizers.checks.r1_replica_lag import ReplicaLag
from optimizers.checks.r2_slots import Slots
from optimizers.checks.v5_wraparound import Wraparound
from optimizers.checks.v6_xmin_horizon import XminHorizon
from optimizers.checks.w1_forced_checkpoints import ForcedCheckpoints
from optimizers.wording import GB, MB

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WARN, CRITICAL = Severity.WARN, Severity.CRITICAL
Rows = Sequence[Mapping[str, Any]]


class Made:
    """A look at rows that a test made up, by the name of the query that would have read them."""

    version, extensions, now, unseen = 18, frozenset[str](), NOW, ()
    stats_age_s = 60 * 86_400.0

    def __init__(self, rows: Mapping[str, Any], delta: Mapping[str, float] | None = None) -> None:
        self.connection = self
        self._rows = {load(name): value for name, value in rows.items()}
        self._delta = delta
        self.known_for = timedelta(days=60)

    async def fetch(self, query: str, *_: object) -> Any:
        return self._rows.get(query, [])

    async def fetchrow(self, query: str, *_: object) -> Any:
        found = self._rows.get(query, [])
        return found[0] if found else None

    async def fetchval(self, query: str, *_: object) -> Any:
        return self._rows.get(query, True)

    async def everywhere(self, query: str, *_: object) -> Any:
        return self._rows.get(query, {"primary": []})

    async def since(self, *_: object, **__: object) -> Interval | None:
        return None if self._delta is None else Interval(3600.0, {"database": self._delta, "server": self._delta})

    async def first_seen(self, objects: Iterable[str]) -> Mapping[str, datetime]:
        return dict.fromkeys(objects, NOW - self.known_for)


def answer(check: Check, look: Made) -> Answer:
    made: Any = look
    return asyncio.run(check.look(made))


def severities(check: Check, look: Made) -> dict[str, Severity]:
    """Return what is found, by object; nothing may be insufficient."""
    found = answer(check, look)
    assert found.insufficient is None
    return {finding.object: finding.severity for finding in found.findings}


def bloated(size_bytes: float, share: float) -> dict[str, Any]:
    told = {"name": "s.t", "root": "s.t", "table_name": "s.t", "live_rows": 1, "fillfactor": 100}
    return told | {"size_bytes": size_bytes, "estimated_bytes": size_bytes * (1 - share)}


@pytest.mark.parametrize(
    ("size_bytes", "share", "severity"),
    [
        (101 * MB, 0.31, WARN),
        (101 * MB, 0.29, None),
        (99 * MB, 0.9, None),
        (500 * MB, 0.6, WARN),
        (2 * GB, 0.45, WARN),
        (2 * GB, 0.51, CRITICAL),
    ],
)
def test_b2_judges_share_and_size_together(size_bytes: float, share: float, severity: Severity | None) -> None:
    found = severities(TableBloat(), Made({"check_b2_table_bloat": [bloated(size_bytes, share)]}))
    assert found.get("s.t") is severity


@pytest.mark.parametrize(
    ("size_bytes", "share", "severity"),
    [
        (10 * MB, 0.49, None),
        (10 * MB, 0.51, WARN),
        (10 * MB, 0.71, CRITICAL),
        (400 * MB, 0.29, None),
        (300 * MB, 0.34, WARN),
        (3 * GB, 0.34, CRITICAL),
    ],
)
def test_b3_judges_the_share_or_many_bytes_of_a_smaller_one(
    size_bytes: float, share: float, severity: Severity | None
) -> None:
    found = severities(IndexBloat(), Made({"check_b3_index_bloat": [bloated(size_bytes, share)]}))
    assert found.get("s.t") is severity


@pytest.mark.parametrize(
    ("size_bytes", "days", "severity"),
    [
        (100 * MB, 30, CRITICAL),
        (100 * MB, 29, WARN),
        (99 * MB, 60, WARN),
        (10 * MB, 14, WARN),
        (9 * MB, 60, None),
        (100 * MB, 13, None),
    ],
)
def test_i4_is_critical_for_a_large_index_after_a_month(
    size_bytes: float, days: int, severity: Severity | None
) -> None:
    row = {"name": "s.i", "index_id": 1, "table_name": "s.t", "definition": "CREATE", "is_partitioned": False}
    row |= {"size_bytes": size_bytes, "writes": 1, "scans": 0, "last_scan": None, "standbys": 0, "stats_age_s": 1e9}
    look = Made({"index_use": {"primary": [row]}})
    look.known_for = timedelta(days=days)
    found = {finding.object: finding.severity for finding in answer(UnusedIndex(), look).findings}
    assert found.get("s.i") is severity


@pytest.mark.parametrize(("size_bytes", "severity"), [(100 * MB, WARN), (100 * MB + 1, CRITICAL)])
def test_i5_prefix_is_critical_when_it_is_large(size_bytes: float, severity: Severity) -> None:
    row = {"name": "s.i", "is_exact": False, "size_bytes": size_bytes, "table_name": "s.t", "covered_by": "s.j"}
    row |= {"definition": "CREATE", "covered_by_definition": "CREATE", "is_partitioned": False}
    assert severities(DuplicateIndex(), Made({"check_i5_duplicate_index": [row]})) == {"s.i": severity}


def aged(kind: str, xids: float, multixacts: float) -> dict[str, Any]:
    told = {"kind": kind, "name": f"one {kind}", "xid_age": xids, "multixact_age": multixacts}
    return told | {"size_bytes": 8192.0 if kind == "table" else None, "freeze_max_age": 2e8}


@pytest.mark.parametrize(
    ("row", "severity", "said"),
    [
        (aged("table", 4e8, 0), WARN, "400 000 000 transactions old"),
        (aged("table", 0, 4e8), WARN, "400 000 000 multixacts old"),
        (aged("table", 0, 1e9), CRITICAL, "multixacts"),
        (aged("table", 3.9e8, 3.9e8), None, ""),
        (aged("database", 4.9e8, 0), None, ""),
        (aged("database", 0, 5e8), WARN, "multixacts"),
        (aged("database", 1.49e9, 0), CRITICAL, "Run VACUUM"),
        (aged("database", 1.5e9, 0), CRITICAL, "Act today. Run VACUUM"),
    ],
)
def test_v5_judges_both_ages_and_hurries_near_the_end(
    row: dict[str, Any], severity: Severity | None, said: str
) -> None:
    found = answer(Wraparound(), Made({"check_v5_wraparound": [row]})).findings
    assert [finding.severity for finding in found] == ([severity] if severity else [])
    assert all(said in finding.recommendation for finding in found)


def holder(kind: str, age_xids: int, age_s: float | None) -> dict[str, Any]:
    return {"kind": kind, "name": "x", "pid": 7, "age_xids": age_xids, "age_s": age_s, "state": "active"}


@pytest.mark.parametrize(
    ("row", "severity"),
    [
        (holder("session", 1, 899.0), None),
        (holder("session", 1, 900.0), WARN),
        (holder("session", 1, 3600.0), CRITICAL),
        (holder("session", 1_000_001, 1.0), WARN),
        (holder("standby", 1_000_000, None), None),
        (holder("standby", 1_000_001, None), WARN),
    ],
)
def test_v6_judges_time_and_transactions(row: dict[str, Any], severity: Severity | None) -> None:
    found = answer(XminHorizon(), Made({"check_v6_xmin_horizon": [row]})).findings
    assert [finding.severity for finding in found] == ([severity] if severity else [])
    if row["kind"] == "standby" and found:
        assert found[0].sql is None
        assert "hot_standby_feedback = off" in found[0].recommendation


@pytest.mark.parametrize(
    ("ends", "severity"),
    [
        ({"abandoned": 10}, WARN),
        ({"fatal": 49}, WARN),
        ({"fatal": 50}, CRITICAL),
        ({"abandoned": 20, "fatal": 20, "killed": 20}, CRITICAL),
        ({"abandoned": 9}, None),
    ],
)
def test_k5_counts_every_bad_end_as_a_share_of_the_sessions(ends: dict[str, float], severity: Severity | None) -> None:
    delta = {"sessions": 1000.0, "abandoned": 0.0, "fatal": 0.0, "killed": 0.0} | ends
    found = severities(SessionEnds(), Made({"check_k5_session_ends": [delta]}, delta))
    assert found.get("sessions") is severity


STANDBY = {"is_standby": True, "sees_all": True, "receiver": "streaming", "replay_age_s": 0.0, "behind_bytes": 0.0}


def sender(replay_lag_s: float | None, behind_bytes: float = 0.0) -> dict[str, Any]:
    told = {"name": "r", "state": "streaming", "sync_state": "async"}
    return told | {"replay_lag_s": replay_lag_s, "behind_bytes": behind_bytes}


@pytest.mark.parametrize(
    ("row", "severity"),
    [
        (sender(9.9), None),
        (sender(10.0), WARN),
        (sender(60.0), CRITICAL),
        (sender(None, 100 * MB), WARN),
        (sender(None, GB), CRITICAL),
    ],
)
def test_r1_judges_what_the_primary_knows_of_a_standby(row: dict[str, Any], severity: Severity | None) -> None:
    nodes = {"primary": [STANDBY | {"is_standby": False}]}
    found = severities(ReplicaLag(), Made({"check_r1_standby": nodes, "check_r1_standbys": [row]}))
    assert found.get("standby r") is severity


@pytest.mark.parametrize(("age_s", "severity"), [(9.0, None), (10.0, WARN), (59.0, WARN), (60.0, CRITICAL)])
def test_r1_judges_what_a_standby_replayed(age_s: float, severity: Severity | None) -> None:
    nodes = {"primary": [STANDBY | {"is_standby": False}], "replica 1": [STANDBY | {"replay_age_s": age_s}]}
    found = severities(ReplicaLag(), Made({"check_r1_standby": nodes}))
    assert found.get("standby replica 1") is severity


@pytest.mark.parametrize(
    ("change", "severity", "said"),
    [
        ({}, None, ""),
        ({"wal_status": "extended"}, None, ""),
        ({"wal_status": "unreserved"}, CRITICAL, "its WAL may be removed at the next checkpoint"),
        ({"wal_status": "lost", "kept_bytes": None}, CRITICAL, "its consumer has to be made anew"),
        ({"kept_bytes": GB}, WARN, "1 GB of WAL"),
        ({"active": False, "inactive_s": 299.0}, None, ""),
        ({"active": False, "inactive_s": 300.0}, WARN, "inactive for 5 min"),
    ],
)
def test_r2_judges_what_a_slot_keeps_and_whether_it_is_there(
    change: dict[str, Any], severity: Severity | None, said: str
) -> None:
    row = {"name": "r1", "slot_type": "physical", "active": True, "wal_status": "reserved", "kept_bytes": 0.0}
    row |= {"inactive_s": None, "keep_limit_bytes": None} | change
    found = answer(Slots(), Made({"check_r2_slots": [row]})).findings
    assert [finding.severity for finding in found] == ([severity] if severity else [])
    assert all(said in finding.recommendation for finding in found)


@pytest.mark.parametrize(
    ("requested", "timed", "severity"), [(4, 3, WARN), (3, 3, None), (3, 2, WARN), (2, 0, None), (0, 12, None)]
)
def test_w1_wants_more_forced_checkpoints_than_timed_ones(
    requested: int, timed: int, severity: Severity | None
) -> None:
    row = {"timed": timed, "requested": requested, "wal_bytes": 1e9, "max_wal_bytes": GB, "timeout_s": 300.0}
    found = severities(ForcedCheckpoints(), Made({"check_w1_checkpointer": [row]}, row))
    assert found.get("max_wal_size") is severity
