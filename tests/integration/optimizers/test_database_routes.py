"""What the exporter shows of DatabaseOptimizer."""

from datetime import UTC, datetime, timedelta

from database import optimization
from database.connect import open_pool
from database.optimization import Answered
from database.settings import read_settings
from optimizers.checks.i6_invalid_index import InvalidIndex
from optimizers.database_optimizer import DatabaseOptimizer
from optimizers.settings import OptimizerSettings
from tests.exporting import exporter, scrape

STATUS = "/api/monitoring/database-optimization/status"


async def test_before_the_first_run_nothing_is_claimed(dsn: str, redis_url: str) -> None:
    """Null and insufficient data, never ok."""
    async with exporter(dsn, redis_url) as client:
        said = (await client.get(STATUS)).json()
        assert (said["last_run"], said["checks"], said["findings"], said["stats_age_days"]) == (None, [], [], None)
        assert (await client.get("/metrics/database")).json()["status"] == "insufficient_data"
        assert not [key for key in await scrape(client) if key.startswith("streamgauge_findings")]


async def test_run_and_its_findings_are_shown(dsn: str, redis_url: str) -> None:
    """In whole, in short and as metrics, with the same numbers."""
    pool = await open_pool(read_settings(OptimizerSettings, {"POSTGRES_DSN": dsn}), size=2)
    try:
        await pool.execute("CREATE TABLE public.t (a int); CREATE INDEX broken ON public.t (a)")
        await pool.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'public.broken'::regclass")
        for _ in range(2):
            settings = read_settings(OptimizerSettings, {"POSTGRES_DSN": dsn})
            await DatabaseOptimizer(pool, settings, [InvalidIndex]).run()
        async with exporter(dsn, redis_url) as client:
            said = (await client.get(STATUS)).json()
            short = (await client.get("/metrics/database")).json()
            shown = await scrape(client)
    finally:
        await pool.close()
    assert said["last_run"]["status"] == "done"
    assert said["last_run"]["duration_ms"] > 0
    assert said["last_run"]["database_time_share"] > 0
    assert [(check["id"], check["status"], check["findings"]) for check in said["checks"]] == [("I6", "warn", 1)]
    assert [(found["object"], found["state"], found["runs_seen"]) for found in said["findings"]] == [
        ("public.broken", "open", 2)
    ]
    assert said["targets"][0]["has_hypopg"] is False
    assert said["nodes_seen"] == ["monitoring/primary"]
    assert said["stats_age_days"] >= 0
    assert (short["status"], short["findings"]["warn"], len(short["open"])) == ("warn", 1, 1)
    assert shown['streamgauge_findings{check="I6",severity="warn"}'] == 1
    assert shown['streamgauge_findings{check="I6",severity="critical"}'] == 0
    assert shown['streamgauge_check_status{check="I6",status="warn"}'] == 1
    assert shown['streamgauge_check_duration_seconds{check="I6"}'] > 0
    assert shown["streamgauge_optimizer_connections"] == 2
    assert shown["streamgauge_optimizer_database_time_share"] > 0


async def test_check_that_could_not_answer_has_no_zero(dsn: str, redis_url: str) -> None:
    """Unknown is no number."""
    pool = await open_pool(read_settings(OptimizerSettings, {"POSTGRES_DSN": dsn}), size=1)
    now = datetime.now(UTC) - timedelta(minutes=1)
    try:
        async with pool.acquire() as connection:
            failed = Answered("monitoring", "Q1", "slow", now, 0.1, error_kind="unsupported", detail="no extension")
            await optimization.store_answer(connection, failed, 2, 3)
        async with exporter(dsn, redis_url) as client:
            shown = await scrape(client)
            said = (await client.get(STATUS)).json()["checks"]
    finally:
        await pool.close()
    assert not [key for key in shown if key.startswith("streamgauge_findings")]
    assert shown['streamgauge_check_status{check="Q1",status="error"}'] == 1
    assert (said[0]["error"], said[0]["detail"]) == ("unsupported", "no extension")
