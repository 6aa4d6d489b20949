"""What the page says of a context: escaped, honest about what is not known, and complete without scripts."""

import re
import time
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest

from database.thresholds import severity
from exporter import monitor
from exporter.components.component import Component, Severity, Status
from exporter.monitor import Reading, Report
from exporter.page import flow, render
from exporter.page.advice import Recommendation, threshold
from exporter.page.overview import notices
from exporter.page.pictures import Picked
from exporter.page.state import judge, levels

NOW = datetime.now(UTC)


def report(**statuses: tuple[Status, str]) -> Report:
    found = {"database": (Status.OK, ""), "redis": (Status.OK, ""), "aggregators": (Status.OK, "")} | statuses
    severities = {"database": Severity.CRITICAL, "note": Severity.INFO}
    readings = [
        Reading(Component(name, status, why), name, severities.get(name, Severity.WARNING), 1.0, NOW)
        for name, (status, why) in found.items()
    ]
    return Report(monitor.judge(readings), NOW, 1.0, readings)


def context(look: Report | None = None, **others: Any) -> dict[str, Any]:
    """Return the context of an exporter that could read nothing but its monitor."""
    look = look or report()
    return {
        "report": look,
        "state": judge(look),
        "stages": flow.stages(None, levels(look), None, {}),
        "view": None,
        "accounts": [],
        "producers": None,
        "rates": None,
        "histograms": None,
        "optimizer": None,
        "jobs": None,
        "recommendations": None,
        "thresholds": None,
        "behind": {"at_s": [], "waits_s": [], "in_flight": []},
        "age_s": None,
        "now_s": time.time(),
        **others,
    }


def text(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def test_what_could_not_be_read_is_unknown_and_never_zero() -> None:
    made = render.parts(context())
    assert "unknown: the database does not answer" in text(made["producers"])
    assert "unknown: the database does not answer" in text(made["schedule"])
    assert not re.search(r"\b0\b", text(made["flow"]))
    jobs: list[Any] = []
    for name in ("recommendations", "thresholds"):
        assert text(made[name]).count("unknown") == 1
        assert "unknown" in text(render.parts(context(jobs=jobs))[name]), "the schedule alone was read"
    html = render.page({**context(), "picked": Picked("", "15m", "", None, "the database does not answer")}, made)
    assert html.startswith("<!doctype html>")


def test_names_from_outside_are_escaped() -> None:
    look = report(aggregators=(Status.DOWN, "<img src=x>"))
    made = render.parts(context(look))
    picked = Picked('a{b="<script>"}', "15m", "", None, "<script>")
    html = render.page({**context(look), "picked": picked}, made)
    assert "<img" not in html
    assert "<script>" not in html
    assert html.count("<script ") == 2


def test_a_state_names_what_is_wrong_the_worst_first_and_what_to_do() -> None:
    look = report(redis=(Status.DEGRADED, "slow"), database=(Status.DOWN, "away"), note=(Status.UNKNOWN, "by the way"))
    state = judge(look)
    assert (state.level, state.sign, state.headline) == ("down", "✕", "Down")
    assert [reason.what for reason in state.reasons] == ["database", "redis"]
    assert "POSTGRES_" in state.reasons[0].advice
    assert [notice.what for notice in state.notices] == ["note"]


class Reached(NamedTuple):
    metric: str = "p95_seconds"
    level: str = "down"


def test_a_reached_threshold_is_told_once() -> None:
    well, ill = report(thresholds=(Status.OK, "")), report(thresholds=(Status.DEGRADED, "p95_seconds is 2, above 1"))
    reached = [Reached()]
    assert [one.what for one in notices(context(well, thresholds=reached))] == ["thresholds"]
    assert notices(context(ill, thresholds=reached)) == []


def test_a_finding_that_was_acted_on_is_marked_and_is_no_notice() -> None:
    finding: dict[str, Any] = {
        "fingerprint": "f",
        "check": "B1",
        "object": "public.t",
        "severity": "warn",
        "evidence": {},
    }
    finding |= {"recommendation": "VACUUM it.", "sql": "VACUUM public.t", "rollback": None, "tier": "automatic"}
    finding |= {"state": "open", "first_seen": NOW, "acted_at": None}
    run = {"started": NOW, "status": "done", "skipped_reason": None, "duration_ms": 1.0, "database_time_share": 0.0031}
    found: dict[str, Any] = {"last_run": run, "checks": [], "findings": [finding]}
    assert [one.what for one in notices(context(optimizer=found))] == ["findings"]
    assert "VACUUM it. Done" not in text(render.parts(context(optimizer=found))["findings"])
    finding["acted_at"] = NOW
    assert notices(context(optimizer=found)) == []
    assert "VACUUM it. Done" in text(render.parts(context(optimizer=found))["findings"])


def test_a_check_that_lacks_an_extension_is_counted_as_such() -> None:
    look = {"title": "t", "target": "m", "findings": 0, "duration_ms": 1.0, "detail": None}
    checks = [
        look | {"id": "Q1", "status": "ok", "error": None},
        look | {"id": "I2", "status": "error", "error": "unsupported"},
        look | {"id": "I3", "status": "error", "error": "timeout"},
    ]
    run = {"started": NOW, "status": "done", "skipped_reason": None, "duration_ms": 1.0, "database_time_share": 0.0031}
    found: dict[str, Any] = {"last_run": run, "checks": checks, "findings": []}
    said = text(render.parts(context(optimizer=found))["findings"])
    assert "took 1 ms, 0.31 % of database time. 3 checks: 1 error, 1 ok, 1 unsupported." in said


def test_a_job_that_never_ran_is_not_called_well() -> None:
    now = datetime.now(UTC)
    assert "not run yet" in text(render.parts(context(jobs=[]))["thresholds"])
    job = {
        "job": "recalibrate_thresholds",
        "title": "Recalibration",
        "every_s": 86400.0,
        "is_overdue": False,
        "next_run": NOW,
        "last": {
            "scheduled_for": now,
            "started_at": now,
            "finished_at": now,
            "outcome": "insufficient_data",
            "detail": "2 of 7 days",
            "duration_s": 0.5,
        },
    }
    assert "insufficient data just now: 2 of 7 days" in text(render.parts(context(jobs=[job]))["thresholds"])
    assert "insufficient data" in text(render.parts(context(jobs=[job]))["schedule"])


@pytest.mark.parametrize(
    ("actual", "is_low_side", "level"),
    [(0.1, False, "ok"), (0.3, False, "degraded"), (0.6, False, "down"), (None, False, "unknown"), (0.1, True, "down")],
)
def test_a_threshold_stands_beside_what_is_measured(actual: float | None, is_low_side: bool, level: str) -> None:
    warn, critical = (0.5, 0.25) if is_low_side else (0.25, 0.5)
    side = "low" if is_low_side else "high"
    row = threshold(
        {
            "id": 1,
            "metric": "latency_seconds",
            "route": "/x",
            "side": side,
            "bucket": 0,
            "warn": warn,
            "critical": critical,
            "actual": actual,
            "severity": severity(actual, warn, critical, side),
            "method": "seasonal",
            "n": 1200,
            "is_pinned": False,
            "frozen": None,
            "calibrated_at": None,
            "set_at": NOW,
        }
    )
    assert row.level == level
    said = text(render.parts(context(jobs=[], thresholds=[row]))["thresholds"])
    assert "250 ms" in said and "seasonal" in said and "1,200 samples" in said
    assert ("unknown" in said) is (actual is None)


def test_a_recommendation_carries_evidence_effect_and_confidence() -> None:
    row = Recommendation("pool", "api", "Make it 17.", {"hold_ms": 5.0}, "no waiting", "high", "proposed", 0.0)
    said = text(render.parts(context(jobs=[], recommendations=[row]))["recommendations"])
    for part in ("Make it 17.", "5 ms", "no waiting", "high"):
        assert part in said


def test_rates_and_what_is_unknown_are_told_as_such_in_evidence() -> None:
    measured = {"cpu_seconds_per_s": 3.0, "busy_percent": 150.0, "requests_per_s": None}
    row = Recommendation("workers", "shop", "now 2; advised: 5", measured, "", "medium", "proposed", 0.0)
    said = text(render.parts(context(jobs=[], recommendations=[row]))["recommendations"])
    for part in ("cpu seconds 3/s", "busy 150 %", "requests unknown"):
        assert part in said


def test_files_are_addressed_by_their_content() -> None:
    for name in render.STATIC:
        assert render.asset(name).startswith(f"page/{name}?v=")
    assert b"MIT License" in render.static("uPlot.LICENSE")
