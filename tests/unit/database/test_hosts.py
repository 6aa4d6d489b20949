"""Which servers an address names."""

import pytest

from database.hosts import places
from database.settings import PostgresSettings

AS_IT_STANDS: dict[str, object] = {}


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("postgresql://u:p@one:1/db", [AS_IT_STANDS]),
        ("postgresql://u@/db?host=/run/postgres", [AS_IT_STANDS]),
        ("postgresql://u:a%40b@one:1,two:2/db", [{"host": "one", "port": 1}, {"host": "two", "port": 2}]),
        ("postgresql://u@one,[::1]:7/db", [{"host": "one", "port": 5432}, {"host": "::1", "port": 7}]),
        ("postgresql://u@/db?host=one,two&port=9", [{"host": "one", "port": 9}, {"host": "two", "port": 9}]),
        ("postgresql://u@/db?host=/a,/b&port=1,2", [{"host": "/a", "port": 1}, {"host": "/b", "port": 2}]),
    ],
)
def test_an_address_names_these_servers(dsn: str, expected: list[dict[str, object]]) -> None:
    assert places(PostgresSettings.model_validate({"postgres_dsn": dsn})) == expected


def test_a_list_of_hosts_shares_one_port() -> None:
    settings = PostgresSettings.model_validate({"postgres_host": "one, two", "postgres_port": 7})
    assert places(settings) == [{"host": "one", "port": 7}, {"host": "two", "port": 7}]
