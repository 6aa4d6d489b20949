"""What components say of what was measured: pure judgements, no server."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from exporter.components import (
    aggregators,
    cluster_nodes,
    postgres,
    producers,
    redis_nodes,
    schedule,
    shards,
    thresholds,
    watermark,
)
from exporter.components.component import Component, Severity, Status, describe
from exporter.components.shards import COUNT_AT_MOST, Waiting
from exporter.monitor import Reading, judge
from exporter.snapshot import Unavailable

NOW = datetime(2026, 1, 2, tzinfo=UTC)
CALM = Waiting(length=500, pending=0, lag=0, first=(1000, 0), delivered=(9000, 0), counted=0, oldest=None)


def reading(status: Status, severity: Severity = Severity.WARNING) -> Reading:
    return Reading(Component("x", status), "x", severity, 1.0, NOW)


@pytest.mark.parametrize(
    ("readings", "status"),
    [
        ([reading(Status.OK)], Status.OK),
        ([reading(Status.OK), reading(Status.UNKNOWN)], Status.DEGRADED),
        ([reading(Status.DOWN)], Status.DEGRADED),
        ([reading(Status.DEGRADED, Severity.CRITICAL)], Status.DEGRADED),
        ([reading(Status.DOWN, Severity.CRITICAL), reading(Status.OK)], Status.DOWN),
        ([reading(Status.DOWN, Severity.INFO), reading(Status.OK)], Status.OK),
    ],
)
def test_only_what_is_critical_takes_all_down(readings: list[Reading], status: Status) -> None:
    assert judge(readings) is status


def test_length_alone_is_no_backlog() -> None:
    found = shards.judge(0, CALM, 10_000, 30)
    assert (found.status, found.facts["length"], found.facts["lag"]) == (Status.OK, 500, 0)


@pytest.mark.parametrize(
    ("change", "status", "lag"),
    [
        ({"counted": 3, "lag": None, "oldest": (9_500, 0)}, Status.OK, 3),
        ({"counted": 3, "lag": 900, "oldest": (9_500, 0)}, Status.OK, 3),  # Redis says what its counters hide
        ({"counted": COUNT_AT_MOST, "lag": 900, "oldest": (9_500, 0)}, Status.OK, 900),
        ({"counted": COUNT_AT_MOST, "lag": None, "oldest": (9_500, 0)}, Status.UNKNOWN, None),
        ({"counted": 3, "oldest": (9_500, 0), "is_consumed": False}, Status.DEGRADED, 3),
        ({"counted": 3, "oldest": (-40_000, 0)}, Status.DEGRADED, 3),
        ({"counted": 3, "first": (9_001, 0), "oldest": (9_500, 0)}, Status.DEGRADED, 3),
        ({"counted": 0, "first": (9_001, 0)}, Status.OK, 0),
        ({"counted": 3, "first": (9_001, 0), "delivered": (0, 0), "oldest": (9_500, 0)}, Status.OK, 3),
        ({"counted": 3, "length": 3, "added": 3, "delivered": (0, 0), "oldest": (9_500, 0)}, Status.OK, 3),
        ({"counted": 100, "length": 100, "added": 1000, "delivered": (0, 0)}, Status.DEGRADED, 100),
    ],
)
def test_lag_is_counted_or_told_or_unknown(change: dict[str, Any], status: Status, lag: int | None) -> None:
    found = shards.judge(0, CALM._replace(**change), 10, 30)
    assert (found.status, found.facts["lag"], found.facts["is_lag_known"]) == (status, lag, lag is not None)


def row(seconds: float | None, *, standby: bool = True) -> dict[str, Any]:
    beat = None if seconds is None else NOW - timedelta(seconds=seconds)
    told = {"is_standby": standby, "version": "15", "receiver": "streaming"}
    return told | {"beat_at": beat, "beat_age_s": seconds}


@pytest.mark.parametrize(
    ("replica", "primary", "status", "lag_s"),
    [
        (row(1), row(0), Status.OK, 1.0),
        (row(20), row(0), Status.DEGRADED, 20.0),
        (row(100), row(100), Status.UNKNOWN, None),  # nobody touches the row: equal says nothing
        (row(None), row(None), Status.UNKNOWN, None),
        (row(None), row(0), Status.UNKNOWN, None),
        (row(0), row(0), Status.OK, 0.0),
        (row(100), row(40), Status.DEGRADED, 60.0),
        (row(0, standby=False), row(0), Status.DOWN, 0.0),
        (row(1) | {"receiver": "running"}, row(0), Status.OK, 1.0),
        (row(1) | {"receiver": None}, row(0), Status.DEGRADED, 1.0),
    ],
)
def test_a_replica_is_judged_by_the_heartbeats_of_both(
    replica: dict[str, Any], primary: dict[str, Any], status: Status, lag_s: float | None
) -> None:
    found = postgres.judge_replica("r", replica, primary, 15)
    assert (found.status, found.facts["lag_s"]) == (status, lag_s)


def slot(name: str = "replica1", *, active: bool = True, **fields: Any) -> dict[str, Any]:
    return {"name": name, "active": active, "wal_status": "reserved", "kept_bytes": 100.0} | fields


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], ""),
        ([slot(), slot("replica2", kept_bytes=None)], ""),
        ([slot(), slot("replica2", active=False)], "nobody uses replica2"),
        ([slot(wal_status="unreserved", kept_bytes=900.0)], "the WAL of replica1 is unreserved"),
        ([slot(wal_status="lost", active=False)], "the WAL of replica1 is lost"),
    ],
)
def test_slots_are_used_and_their_wal_is_there(rows: list[dict[str, Any]], reason: str) -> None:
    found = postgres.judge_slots(rows)
    assert (found.status, found.reason) == (Status.DEGRADED if reason else Status.OK, reason)
    assert found.facts["kept_bytes"] == (None if not rows else 900.0 if "unreserved" in reason else 100.0)


@pytest.mark.parametrize(
    ("live", "age_s", "aggregator_age_s", "status"),
    [
        (3, 16.0, 1.0, Status.OK),
        (3, 61.0, 1.0, Status.DEGRADED),
        (3, 61.0, 500.0, Status.DEGRADED),
        (0, None, 1.0, Status.OK),
        (0, None, 500.0, Status.UNKNOWN),
        (0, None, None, Status.UNKNOWN),
    ],
)
def test_a_watermark_stands_still_only_while_somebody_lives(
    live: int, age_s: float | None, aggregator_age_s: float | None, status: Status
) -> None:
    row = {"live": live, "age_s": age_s, "watermark_s": 1, "aggregator_age_s": aggregator_age_s}
    assert watermark.judge(row).status is status


def test_a_master_names_its_replicas() -> None:
    info = {
        "role": "master",
        "connected_slaves": 2,
        "slave0": {"ip": "10.0.0.2", "port": 6379, "state": "online", "lag": 1},
    }
    info |= {"slave1": {"ip": "10.0.0.3", "port": 6379, "state": "wait_bgsave", "lag": 0}, "slave_read_only": 1}
    master, one, two = redis_nodes.judge_node(info)
    assert (master.status, master.facts["replicas"]) == (Status.OK, 2)
    assert (one.name, one.status) == ("redis replica 10.0.0.2:6379", Status.OK)
    assert (two.name, two.status) == ("redis replica 10.0.0.3:6379", Status.DEGRADED)


NODES: dict[str, dict[str, Any]] = {
    "10.0.0.1:6379": {"flags": "myself,master", "slots": [["0", "8191"]]},
    "10.0.0.2:6379": {"flags": "master,fail?", "slots": [["8192", "16382"], ["16383"]]},
    "10.0.0.3:6379": {"flags": "slave", "slots": []},
    ":0": {"flags": "master,noaddr", "slots": []},
}


def test_a_cluster_is_as_well_as_its_slots_are_served() -> None:
    members = cluster_nodes.read_members(NODES, ("10.0.0.1", 6379))
    assert [one.slots for one in members] == [8192, 8192, 0]
    assert cluster_nodes.judge_whole(members).status is Status.OK
    failed = cluster_nodes.read_members(
        NODES | {"10.0.0.2:6379": {"flags": "master,fail", "slots": [["8192", "16383"]]}}, ("10.0.0.1", 6379)
    )
    assert cluster_nodes.judge_whole(failed).reason == "8192 of 16384 slots are served by nobody"


def test_each_node_of_a_cluster_is_judged_by_what_it_is_for() -> None:
    members = cluster_nodes.read_members(NODES, ("10.0.0.1", 6379))
    up = {"role": "master", "connected_slaves": 1}, None, {"role": "slave", "master_link_status": "up"}
    assert [one.status for one in cluster_nodes.judge_nodes(members, up)] == [Status.OK, Status.DOWN, Status.OK]
    ill = {"role": "master", "connected_slaves": 0}, up[0], {"role": "slave", "master_link_status": "down"}
    assert [one.reason for one in cluster_nodes.judge_nodes(members, ill)] == [
        "no replica would take over its slots",
        "",
        "does not receive what its master has",
    ]


@pytest.mark.parametrize(
    ("info", "status"), [({"role": "slave", "master_link_status": "up"}, Status.DOWN), ({}, Status.UNKNOWN)]
)
def test_a_node_that_takes_no_writes_is_down(info: dict[str, Any], status: Status) -> None:
    (found,) = redis_nodes.judge_node(info)
    assert found.status is status


@pytest.mark.parametrize(
    ("ages", "status"), [([], Status.DOWN), ([99.0], Status.DOWN), ([1.0, 99.0], Status.DEGRADED), ([1.0], Status.OK)]
)
def test_aggregators_need_a_current_heartbeat(ages: list[float], status: Status) -> None:
    (found,) = aggregators.judge([(f"a{age}", age, {}) for age in ages])
    assert found.status is status


def test_an_aggregator_tells_what_it_holds_and_not_each_of_its_commits() -> None:
    commits = {"commit_s": [0.1] * 60, "commit_batches": [1] * 60, "commit_age_s": [1.0] * 60}
    (found,) = aggregators.judge([("a", 1.0, {"shards": [0], **commits})])
    assert found.facts["members"] == [{"consumer": "a", "heartbeat_age_s": 1.0, "shards": [0]}]


def test_old_losses_are_told_but_are_no_reason() -> None:
    calm = {"live": 1, "ended": 0, "unclean": 1, "newly_unclean": 0, "open_gaps": 0, "open_events": 0}
    calm |= {"lost_events": 5, "newly_lost_events": 0, "newest_age_s": 1.0, "ever_committed_events": 9}
    found = producers.judge(calm)
    assert (found.status, found.facts["lost_events"]) == (Status.OK, 5)
    assert producers.judge(calm | {"newly_unclean": 1}).status is Status.DEGRADED


def job(**change: Any) -> dict[str, Any]:
    return {"job": "upkeep", "is_overdue": False, "last": {"outcome": "done"}} | change


@pytest.mark.parametrize(
    ("jobs", "status"),
    [
        ([], Status.UNKNOWN),
        ([job(), job(last=None), job(last={"outcome": None})], Status.OK),
        ([job(last={"outcome": "insufficient_data"})], Status.OK),
        ([job(is_overdue=True)], Status.DEGRADED),
        ([job(last={"outcome": "failed"})], Status.DEGRADED),
    ],
)
def test_a_schedule_is_ill_when_a_job_is_overdue_or_failed(jobs: list[dict[str, Any]], status: Status) -> None:
    assert schedule.judge(jobs).status is status


def limit(actual: float | None, severity: str | None, **change: Any) -> dict[str, Any]:
    known = {"metric": "latency_p95", "route": "/a", "side": "high", "warn": 1.0, "critical": 2.0}
    return {**known, "actual": actual, "severity": severity, **change}


def test_what_is_over_its_threshold_is_named_the_worst_first() -> None:
    calm = thresholds.judge([limit(0.5, None), limit(None, None)])
    assert (calm.status, calm.facts["unknown"]) == (Status.OK, 1)
    found = thresholds.judge([limit(1.5, "warn"), limit(2.5, "critical", route="/b"), limit(0.5, None)])
    assert found.status is Status.DEGRADED
    assert found.reason == "latency_p95 /b is 2.5, above critical 2; latency_p95 /a is 1.5, above warn 1"
    assert thresholds.judge([limit(2, "warn")] * 7).reason.endswith("; and 2 more")
    assert thresholds.judge([]).status is Status.OK


def test_an_error_is_told_by_its_kind_only() -> None:
    assert describe(OSError("connect to postgresql://u:hunter2@h failed")) == "does not answer: OSError"
    assert describe(Unavailable("totals are being restored")) == "totals are being restored"
