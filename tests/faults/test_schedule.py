"""The schedule as it is shipped: two aggregators, short intervals, nobody calls the command line; one is killed."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from aggregator.schedule_settings import ScheduleSettings
from optimizers.jobs import JOBS
from streamgauge.processes import wait_until
from tests.loading import fetch
from tests.pipeline import Pipeline
from tests.served import Served

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

DEADLINE_S = 60.0
CRASHES = "streamgauge_job_crashes_total"
TAKEN_OVER = "SELECT coalesce(sum(n), 0)::int FROM job_tallies WHERE outcome = 'crashed'"
NAMES = {"upkeep", "audit", *(job.name for job in JOBS)}
EVERY_S = {"upkeep": "1"}
"""The others do more; on a busy machine one interval of theirs should hold one run."""
FAST = {
    **{
        field.upper(): EVERY_S.get(field.removeprefix("streamgauge_").removesuffix("_interval_s"), "2")
        for field in ScheduleSettings.model_fields
        if field.endswith("_interval_s")
    },
    "STREAMGAUGE_SCHEDULE_JITTER_S": "0.1",
    "STREAMGAUGE_SCHEDULE_BEAT_S": "0.2",
    "STREAMGAUGE_SCHEDULE_STALE_S": "3",
    "STREAMGAUGE_LEASE_S": "1.5",
}


@pytest.fixture
def pipeline(tmp_path: Path, dsn: str, redis_url: str) -> Iterator[Pipeline]:
    """Two aggregators; `doomed` dies in the middle of the first audit that it begins."""
    with Pipeline(tmp_path, dsn, redis_url, **FAST) as opened:
        opened.aggregator("aggregator-sound")
        yield opened


def jobs(pipeline: Pipeline, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run `streamgauge jobs …`; returns its exit code, its JSON and what it complained of."""
    command = [sys.executable, "-m", "streamgauge", "jobs", *arguments]
    done = subprocess.run(command, env=pipeline.env, capture_output=True, text=True, timeout=DEADLINE_S)
    return done.returncode, json.loads(done.stdout) if done.stdout.startswith("{") else {}, done.stdout + done.stderr


def history(pipeline: Pipeline) -> list[dict[str, Any]]:
    return jobs(pipeline, "history", "--limit", "1000", "--json")[1]["runs"]


def began(pipeline: Pipeline) -> Counter[tuple[str, str, int]]:
    """Return how often each attempt began, from what the aggregators logged."""
    lines = [line for path in pipeline.folder.glob("aggregator-*.log") for line in path.read_text().splitlines()]
    events = [json.loads(line) for line in lines if '"run_began"' in line]
    return Counter((event["job"], event["slot"].replace(" ", "T"), event["attempt"]) for event in events)


def run_until_a_crash_is_over(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Run every job twice, by several aggregators, and once more what the one was at that died; returns the history."""
    doomed = pipeline.aggregator("aggregator-doomed", STREAMGAUGE_CRASH_AT="in_job:audit")
    assert wait_until(lambda: doomed.poll() is not None, DEADLINE_S)
    pipeline.aggregator("aggregator-heir")
    rows: list[dict[str, Any]] = []

    def all_ran_twice_by_several_and_the_crash_is_over() -> bool:
        rows[:] = history(pipeline)
        ended = [row for row in rows if row["outcome"] is not None]
        ran = Counter(row["job"] for row in ended)
        by_several = len({row["consumer"] for row in ended}) >= 2
        return by_several and all(ran[name] >= 2 for name in NAMES) and crashes_are_over(rows)

    assert wait_until(all_ran_twice_by_several_and_the_crash_is_over, DEADLINE_S), rows
    return rows


def test_every_job_is_run_by_its_schedule_and_a_killed_run_again_by_the_other(pipeline: Pipeline) -> None:
    pipeline.exporter()
    with Served(pipeline.port) as served:
        rows = run_until_a_crash_is_over(pipeline)
        served.told(CRASHES, scheduled_job="audit")
    served.check(5)
    assert {row["trigger"] for row in rows} == {"schedule"}
    assert {row["outcome"] for row in rows} - {None} <= {"done", "insufficient_data"}, rows
    # The audit that died, and whatever else that aggregator was at.
    killed = [row for row in rows if row["attempts"] and row["attempts"][0]["ended"] == "crashed"]
    assert [row["job"] for row in killed].count("audit") == 1
    assert len({row["attempts"][0]["consumer"] for row in killed}) == 1
    for row in killed:
        assert [attempt["ended"] for attempt in row["attempts"]] == ["crashed", row["outcome"]]
        assert len({attempt["consumer"] for attempt in row["attempts"]}) == 2
    attempts = began(pipeline)
    assert set(attempts.values()) == {1}
    assert {(row["job"], row["scheduled_for"], row["attempt"]) for row in rows if row["attempt"]} <= set(attempts)
    assert len([row for row in rows if row["outcome"] is None]) <= len(NAMES)


def crashes_are_over(rows: list[dict[str, Any]]) -> bool:
    """Whether there were any, and each was made good."""
    crashed = [row for row in rows if any(attempt["ended"] == "crashed" for attempt in row["attempts"])]
    return bool(crashed) and all(row["outcome"] is not None for row in crashed)


def finished(pipeline: Pipeline, name: str) -> int:
    """Return how many runs an aggregator says it has ended."""
    return pipeline.log(f"aggregator-{name}").read_text().count('"run_ended"')


def end_sessions(dsn: str) -> int:
    """Close every session of the schedules, those that hold a job's lock among them."""
    query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    return fetch(dsn, f"{query} WHERE application_name = 'streamgauge-schedule' AND datname = current_database()")


def test_a_stopped_leader_and_lost_sessions_repeat_no_attempt(pipeline: Pipeline, dsn: str) -> None:
    """The others take its slots over; when it goes on it finds that its runs are no longer its own."""
    pipeline.aggregator("aggregator-other")
    assert wait_until(lambda: finished(pipeline, "sound") > 1, DEADLINE_S)
    assert end_sessions(dsn) > 0
    pipeline.exporter()
    with Served(pipeline.port) as served:
        stop_a_leader(pipeline, dsn)
        served.told(CRASHES)
    served.check(5)
    assert set(began(pipeline).values()) == {1}, "no attempt began twice"
    rows = history(pipeline)
    assert len({(row["job"], row["scheduled_for"]) for row in rows}) == len(rows)
    assert all([a["ended"] for a in row["attempts"]].count("done") <= 1 for row in rows), rows


def stop_a_leader(pipeline: Pipeline, dsn: str) -> None:
    assert wait_until(lambda: stopped_in_a_run(pipeline), DEADLINE_S)
    before, taken_over = finished(pipeline, "other"), fetch(dsn, TAKEN_OVER)
    assert wait_until(lambda: fetch(dsn, TAKEN_OVER) > taken_over, DEADLINE_S), "its run is taken over"
    assert wait_until(lambda: finished(pipeline, "other") > before + 3, DEADLINE_S), "the other one goes on"
    psutil.Process(pipeline.processes["aggregator-sound"].pid).resume()
    after = finished(pipeline, "sound")
    assert wait_until(lambda: finished(pipeline, "sound") > after + 1, DEADLINE_S), "and so does this one, again"


def stopped_in_a_run(pipeline: Pipeline) -> bool:
    """SIGSTOP the sound aggregator while it holds a run; False, and it goes on, if it held none."""
    process = psutil.Process(pipeline.processes["aggregator-sound"].pid)
    process.suspend()
    lines = pipeline.log("aggregator-sound").read_text()
    if lines.count('"run_began"') > lines.count('"run_ended"'):
        return True
    process.resume()
    return False


def test_the_command_line_asks_for_a_run_and_waits_for_it(pipeline: Pipeline) -> None:
    code, run, said = jobs(pipeline, "run", "audit", "--wait", "--json")
    assert (code, run["outcome"], run["trigger"]) == (0, "done", "cli"), said
    code, _, said = jobs(pipeline, "list")
    assert (code, "every 1 s" in said, "audit" in said) == (0, True, True)
    code, _, said = jobs(pipeline, "run", "nothing")
    assert (code, "there is no job nothing; there are audit" in said) == (2, True)
    pipeline.stop("aggregator-sound")
    code, _, said = jobs(pipeline, "run", "audit")
    assert (code, "no aggregator is running" in said) == (1, True)
