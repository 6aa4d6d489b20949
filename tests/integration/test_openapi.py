"""The API keeps what /openapi.json promises: schemathesis asks it on real servers, and while they are away."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final, cast

import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.python import asgi
from schemathesis.specs.openapi import checks as openapi

from database import jobs
from database.connect import open_pool
from database.jobs import Planned
from database.settings import PostgresSettings, read_settings
from exporter.app import make_app
from exporter.settings import ExporterSettings

CONTRACT: Final[Any] = openapi
"""Untyped: its checks are generic in a way that strict types cannot follow."""
CHECKS: Final[list[Any]] = [
    CONTRACT.status_code_conformance,
    CONTRACT.content_type_conformance,
    CONTRACT.response_headers_conformance,
    CONTRACT.response_schema_conformance,
    CONTRACT.negative_data_rejection,
]
NOT_EVERY_QUESTION_HAS_AN_ANSWER: Final = {"/api/rollups", "/api/heat", "/api/monitoring/jobs/{job}/history"}
"""A well-formed metric or job that nobody knows is refused, with 404 or the like."""
EXAMPLES: Final = 8


@contextmanager
def application(dsn: str, redis_url: str, **more: str) -> Generator[tuple[FastAPI, Any], None, None]:
    """Run an exporter in this process; yields it and a client of it."""
    quick = {"STREAMGAUGE_PROBE_DEADLINE_S": "0.5", "STREAMGAUGE_SCRAPE_DEADLINE_S": "1"}
    app = make_app(read_settings(ExporterSettings, {"POSTGRES_DSN": dsn, "REDIS_URL": redis_url} | quick | more))
    with asgi.get_client(cast("Any", app)) as client:
        yield app, client
    asgi.shutdown_lifespans()


HONEST: Final = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=cast("Any", list(HealthCheck)),
)


def ask_all(app: FastAPI, client: Any, *, away: bool = False) -> set[tuple[str, int]]:
    """Ask every operation well and badly; returns the paths with the statuses they answered."""
    schema: Any = schemathesis.openapi.from_asgi("/openapi.json", app)
    seen: set[tuple[str, int]] = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        strict = not away and operation.path not in NOT_EVERY_QUESTION_HAS_AN_ANSWER
        ask(
            operation,
            GenerationMode.POSITIVE,
            client,
            [*CHECKS, CONTRACT.positive_data_acceptance] if strict else CHECKS,
            seen,
        )
        if list(operation.iter_parameters()):
            ask(operation, GenerationMode.NEGATIVE, client, CHECKS, seen)
    return seen


def ask(
    operation: Any,
    mode: GenerationMode,
    client: Any,
    checks: list[Any],
    seen: set[tuple[str, int]],
    headers: dict[str, str] | None = None,
) -> None:
    """Ask one operation some generated questions; with a token, about the job that exists."""

    @HONEST
    @given(case=operation.as_strategy(generation_mode=mode))
    def one(case: Any) -> None:
        if headers and "job" in case.path_parameters:
            case.path_parameters["job"] = "upkeep"
        answer = case.call(session=client, headers=headers)
        case.validate_response(answer, checks=checks)
        assert answer.status_code < 500 or answer.status_code == 503, answer.text
        seen.add((operation.path, answer.status_code))

    one()


def test_every_answer_is_as_described(dsn: str, redis_url: str) -> None:
    with application(dsn, redis_url) as (app, client):
        seen = ask_all(app, client)
    assert {path for path, status in seen if status == 200} >= {
        "/metrics",
        "/metrics/health",
        "/health/detailed",
        "/metrics/database",
        "/api/producers",
        "/api/monitoring/jobs",
        "/api/monitoring/database-optimization/status",
    }
    assert {status for _, status in seen} <= {200, 400, 403, 404, 422}


def test_what_is_answered_while_all_is_away_is_as_described() -> None:
    with application("postgresql://u@127.0.0.1:1/x", "redis://127.0.0.1:1/0") as (app, client):
        seen = ask_all(app, client, away=True)
    assert {path for path, status in seen if status == 200} == {"/healthz", "/metrics/self"}
    assert {status for _, status in seen} <= {200, 400, 403, 422, 503}


def test_the_description_needs_the_token_too(dsn: str, redis_url: str) -> None:
    with application(dsn, redis_url, STREAMGAUGE_EXPORTER_TOKEN="t0ken") as (_, client):
        assert client.get("/openapi.json").status_code == 401
        assert client.get("/openapi.json", headers={"Authorization": "Bearer t0ken"}).status_code == 200


async def _plan_upkeep(dsn: str) -> None:
    pool = await open_pool(PostgresSettings.model_validate({"postgres_dsn": dsn}))
    try:
        await jobs.register(pool, [Planned("upkeep", "keeps up", 60, False)])
        await pool.execute("INSERT INTO aggregators (consumer, facts) VALUES ('one', '{}')")
    finally:
        await pool.close()


def test_what_is_asked_with_the_token_is_accepted_as_described(dsn: str, redis_url: str) -> None:
    asyncio.run(_plan_upkeep(dsn))
    token = {"Authorization": "Bearer t0ken"}
    seen: set[tuple[str, int]] = set()
    with application(dsn, redis_url, STREAMGAUGE_EXPORTER_TOKEN="t0ken") as (app, client):
        schema: Any = schemathesis.openapi.from_asgi("/openapi.json", app, headers=token)
        for found in schema.include(method="POST").get_all_operations():
            ask(found.ok(), GenerationMode.POSITIVE, client, CHECKS, seen, token)
    assert ("/api/monitoring/jobs/{job}/run", 202) in seen
    assert not {status for _, status in seen} & {401, 403, 503}, seen
