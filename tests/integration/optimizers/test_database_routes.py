"""What the exporter shows of DatabaseOptimizer."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from database import jobs, optimization
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
        for hours_ago in (2, 1, 0):
            settings = read_settings(OptimizerSettings, {"POSTGRES_DSN": dsn})
            now = datetime.now(UTC) - timedelta(hours=hours_ago)
            await DatabaseOptimizer(pool, settings, [InvalidIndex]).run(now)
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


async def test_changes_and_the_next_run_are_shown(dsn: str, redis_url: str) -> None:
    """What was done, from what to what, how to undo it; also what failed; and when the schedule comes again."""
    pool = await open_pool(read_settings(OptimizerSettings, {"POSTGRES_DSN": dsn}), size=1)
    finding: dict[str, str | None] = {"target": "monitoring", "check_id": "I6", "fingerprint": "f1", "tier": "opt_in"}
    finding["rollback"] = "CREATE INDEX"
    try:
        async with pool.acquire() as connection:
            done = await optimization.begin_action(connection, finding, "DROP INDEX i", {"size_bytes": 8192})
            await optimization.end_action(connection, done, {"size_bytes": 0}, None)
            await optimization.begin_action(connection, finding | {"rollback": None}, "ANALYZE t", {})
        await jobs.register(pool, [jobs.Planned("run_optimization", "checks", 3600.0, False)])
        before = datetime.now(UTC)
        async with exporter(dsn, redis_url) as client:
            said = (await client.get(STATUS)).json()
            few = (await client.get(STATUS, params={"actions": 1})).json()["applied_actions"]
    finally:
        await pool.close()
    newest, first = said["applied_actions"]
    assert few == [newest]
    assert (newest["sql"], newest["finished"], newest["after"], newest["rollback"]) == ("ANALYZE t", None, None, None)
    same = {"target": "monitoring", "check": "I6", "fingerprint": "f1", "tier": "opt_in", "rollback": "CREATE INDEX"}
    same |= {"sql": "DROP INDEX i", "before": {"size_bytes": 8192}, "after": {"size_bytes": 0}, "error": None}
    assert {name: first[name] for name in same} == same
    assert first["finished"] >= first["at"]
    next_run = datetime.fromisoformat(said["next_run"])
    assert before < next_run <= before + timedelta(hours=1, seconds=5)
    assert (next_run.minute, next_run.second) == (0, 0)


@pytest.mark.parametrize(
    ("errors", "insufficient", "status"),
    [
        ((None, None, "timeout", "unreachable"), 0, "error"),
        ((None, "unsupported"), 1, "ok"),
        (("unsupported", "unsupported"), 0, "error"),
        (("unsupported",), 1, "error"),
        ((), 2, "insufficient_data"),
    ],
)
async def test_short_status_is_ok_only_where_every_check_could_look(
    dsn: str, redis_url: str, errors: Sequence[str | None], insufficient: int, status: str
) -> None:
    """One that lacks an extension says so for ever, and is counted; one that failed is news."""
    pool = await open_pool(read_settings(OptimizerSettings, {"POSTGRES_DSN": dsn}), size=1)
    now = datetime.now(UTC)
    try:
        async with pool.acquire() as connection:
            for number, kind in enumerate(errors):
                said = Answered("monitoring", f"T{number}", "", now, 0.1, error_kind=kind)
                await optimization.store_answer(connection, said, 2, 3)
            for number in range(insufficient):
                young = Answered("monitoring", f"U{number}", "", now, 0.1, insufficient="too young")
                await optimization.store_answer(connection, young, 2, 3)
        async with exporter(dsn, redis_url) as client:
            short = (await client.get("/metrics/database")).json()
    finally:
        await pool.close()
    assert short["status"] == status
    failed = sum(kind is not None for kind in errors)
    counts = {"ok": len(errors) - failed, "error": failed, "insufficient_data": insufficient}
    assert short["checks"] == {name: count for name, count in counts.items() if count}


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
