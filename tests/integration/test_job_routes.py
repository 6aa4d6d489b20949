"""The schedule on the web: what it shows, and who may ask for a run."""

from collections.abc import AsyncIterator

import pytest

from database import jobs
from database.connect import Pool, acquire, open_pool
from database.jobs import Planned
from database.settings import PostgresSettings
from tests.exporting import exporter, scrape
from tests.integration.test_schedule import keep_nowhere

TOKEN = {"Authorization": "Bearer s3cret"}
ALIVE = "INSERT INTO aggregators (consumer, facts) VALUES ('one', '{}')"


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    """A database whose schedule has two jobs; `upkeep` ran once."""
    opened = await open_pool(PostgresSettings.model_validate({"postgres_dsn": dsn}))
    await jobs.register(opened, [Planned("upkeep", "keeps up", 60, False), Planned("audit", "proves", 3600, True)])
    async with acquire(opened) as connection:
        claim = await jobs.claim_slot(connection, "upkeep", 60, "one", grace_s=60, coalesce=True, keep=keep_nowhere)
    assert claim is not None
    assert await jobs.finish(opened, claim, "one", "done", "all of it", {"rows": 3}, keep_nowhere)
    yield opened
    await opened.close()


async def test_jobs_show_their_last_and_next_run(dsn: str, redis_url: str, pool: Pool) -> None:
    async with exporter(dsn, redis_url) as client:
        audit, upkeep = (await client.get("/api/monitoring/jobs")).raise_for_status().json()["jobs"]
    assert (audit["job"], audit["last"], audit["last_success_at"], audit["is_overdue"]) == ("audit", None, None, False)
    assert audit["next_run"].endswith(":00:00Z")
    last = upkeep["last"]
    assert (last["outcome"], last["detail"], last["consumer"], last["attempt"]) == ("done", "all of it", "one", 1)
    assert last["duration_s"] >= 0
    assert upkeep["last_success_at"] == last["finished_at"]


async def test_history_has_every_attempt(dsn: str, redis_url: str, pool: Pool) -> None:
    async with exporter(dsn, redis_url) as client:
        answer = (await client.get("/api/monitoring/jobs/upkeep/history?limit=5")).raise_for_status().json()
        (run,) = answer["runs"]
        assert (run["outcome"], run["facts"], [a["ended"] for a in run["attempts"]]) == ("done", {"rows": 3}, ["done"])
        never = await client.get("/api/monitoring/jobs/audit/history")
        assert (never.status_code, never.json()["runs"]) == (200, [])
        assert (await client.get("/api/monitoring/jobs/other/history")).status_code == 404
        assert (await client.get("/api/monitoring/jobs/upkeep/history?limit=0")).status_code == 422
        assert (await client.get("/api/monitoring/jobs/A%00/history")).status_code == 422


async def test_nobody_asks_for_a_run_without_a_configured_token(dsn: str, redis_url: str, pool: Pool) -> None:
    await pool.execute(ALIVE)
    async with exporter(dsn, redis_url) as client:
        answer = await client.post("/api/monitoring/jobs/upkeep/run", headers=TOKEN)
    assert answer.status_code == 403
    assert "STREAMGAUGE_EXPORTER_TOKEN" in answer.json()["error"]
    assert await pool.fetchval("SELECT count(*) FROM runs") == 1


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer other"}, {"Authorization": "Bearer "}, {"Authorization": "Basic OnMzY3JldA=="}],
    ids=["none", "wrong", "empty", "basic"],
)
async def test_a_run_needs_the_bearer_token(dsn: str, redis_url: str, pool: Pool, headers: dict[str, str]) -> None:
    await pool.execute(ALIVE)
    async with exporter(dsn, redis_url, STREAMGAUGE_EXPORTER_TOKEN="s3cret") as client:
        assert (await client.post("/api/monitoring/jobs/upkeep/run", headers=headers)).status_code == 401
    assert await pool.fetchval("SELECT count(*) FROM runs") == 1


async def test_a_run_that_is_asked_for_is_written_down(dsn: str, redis_url: str, pool: Pool) -> None:
    async with exporter(dsn, redis_url, STREAMGAUGE_EXPORTER_TOKEN="s3cret") as client:
        nobody = await client.post("/api/monitoring/jobs/upkeep/run", headers=TOKEN)
        assert (nobody.status_code, nobody.json()["error"]) == (503, "no aggregator is running: nothing would be done")
        await pool.execute(ALIVE)
        answer = await client.post("/api/monitoring/jobs/upkeep/run", headers=TOKEN)
        assert (await client.post("/api/monitoring/jobs/other/run", headers=TOKEN)).status_code == 404
    assert answer.status_code == 202
    (run, _) = await jobs.history(pool, "upkeep")
    assert answer.json() == {"job": "upkeep", "scheduled_for": run["scheduled_for"].isoformat().replace("+00:00", "Z")}
    assert (run["trigger"], run["consumer"], run["outcome"]) == ("api", None, None)


async def test_metrics_tell_of_the_schedule(dsn: str, redis_url: str, pool: Pool) -> None:
    async with exporter(dsn, redis_url) as client:
        shown = await scrape(client)
    assert shown['streamgauge_job_runs_total{outcome="done",scheduled_job="upkeep"}'] == 1
    assert shown['streamgauge_job_runs_total{outcome="done",scheduled_job="audit"}'] == 0
    assert shown['streamgauge_job_overdue{scheduled_job="upkeep"}'] == 0
    for row in await jobs.list_jobs(pool):
        told_s = shown[f'streamgauge_job_next_run_timestamp_seconds{{scheduled_job="{row["job"]}"}}']
        # The slot may come between the two answers.
        assert told_s in (row["next_run"].timestamp(), row["next_run"].timestamp() - row["every_s"])
    assert shown['streamgauge_job_crashes_total{scheduled_job="upkeep"}'] == 0
    assert 'streamgauge_job_last_duration_seconds{scheduled_job="audit"}' not in shown
    assert 'streamgauge_job_last_success_timestamp_seconds{scheduled_job="audit"}' not in shown


async def test_metrics_tell_that_a_job_is_overdue(dsn: str, redis_url: str, pool: Pool) -> None:
    """After three intervals without a good end; the other job is not."""
    await pool.execute("UPDATE jobs SET first_seen_at = now() - 4 * make_interval(secs => every_s) WHERE job = 'audit'")
    async with exporter(dsn, redis_url) as client:
        shown = await scrape(client)
    assert shown['streamgauge_job_overdue{scheduled_job="audit"}'] == 1
    assert shown['streamgauge_job_overdue{scheduled_job="upkeep"}'] == 0


async def test_a_database_that_is_away_is_said(dsn: str, redis_url: str) -> None:
    async with exporter("postgresql://nobody@127.0.0.1:1/none", redis_url) as client:
        for path in ("jobs", "jobs/upkeep/history"):
            answer = await client.get(f"/api/monitoring/{path}")
            assert (answer.status_code, "does not answer" in answer.json()["error"]) == (503, True)
