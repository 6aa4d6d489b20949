"""Databases built to be ill, on the embedded PostgreSQL 18 and on Debian's PostgreSQL 15 with HypoPG."""

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator

import pytest

from tests.debian_postgres import DebianPostgres, is_installed
from tests.integration.optimizers.ill import Ill, empty, opened
from tests.postgres_pair import home
from tests.servers import Servers


@pytest.fixture(scope="session")
def postgres_15() -> Iterator[DebianPostgres]:
    """A private PostgreSQL 15; without the package CI fails and a developer's run skips."""
    if not is_installed():
        why = "PostgreSQL 15 is not installed: apt-get install postgresql-15 postgresql-15-hypopg"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    with home() as folder:
        server = DebianPostgres(folder)
        server.open()
        yield server
        server.close()


@pytest.fixture(scope="session")
def made() -> set[str]:
    """The servers that have their ill database already: to empty one costs a tenth of making one."""
    return set()


@pytest.fixture(params=["18", "15"], ids=["postgres18", "postgres15"])
def ill_dsn(request: pytest.FixtureRequest, servers: Servers, made: set[str]) -> str:
    """Address of an empty database on each version, whose statistics have just begun."""
    server = servers.postgres() if request.param == "18" else request.getfixturevalue("postgres_15")
    if request.param not in made:
        server.create_database("ill")
        made.add(request.param)
    found: str = server.dsn("ill")
    asyncio.run(empty(found))
    return found


@pytest.fixture(scope="session")
def store_dsn(servers: Servers) -> Iterator[str]:
    """A monitoring database for all of them: each ill database is a target of its own there."""
    name = servers.new_database()
    yield servers.postgres().dsn(name)
    servers.drop_database(name)


@pytest.fixture
async def ill(ill_dsn: str, store_dsn: str) -> AsyncGenerator[Ill, None]:
    """A database to make ill, and where its history is kept."""
    async with opened(ill_dsn, store_dsn) as found:
        yield found
