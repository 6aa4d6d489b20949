"""The account that fault tests go by can fail: a total that is wrong in any way is found."""

from collections.abc import Iterator

import pytest

from tests.faults.bench import Bench
from tests.loading import ask
from tests.servers import Servers

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

FIRST = "series_id = (SELECT min(series_id) FROM totals WHERE sum > 0 AND le IS NOT NULL)"
WRONG = {
    "a sum": f"UPDATE totals SET sum = sum + 0.5 WHERE {FIRST}",
    "a smaller sum": f"UPDATE totals SET sum = sum / 2 WHERE {FIRST}",
    "a count": f"UPDATE totals SET n = n + 1 WHERE {FIRST}",
    "a smaller count": f"UPDATE totals SET n = n - 1 WHERE {FIRST}",
    "a bucket": f"UPDATE totals SET le[1] = le[1] + 1 WHERE {FIRST}",
    "a sample in another bucket": f"UPDATE totals SET le[1] = le[1] + 1, le[2] = le[2] - 1 WHERE {FIRST}",
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> Iterator[Bench]:
    """A pipeline that has committed a few thousand events."""
    dsn = servers.postgres().dsn(servers.new_database())
    with Bench(tmp_path_factory.mktemp("oracle"), dsn, servers.redis().url) as made:
        made.client().flushall()
        made.aggregator()
        made.emitters.start(3000, rate=3000)
        made.emitters.finish()
        made.check()
        yield made


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_total_is_found(bench: Bench, what: str) -> None:
    ask(bench.dsn, "CREATE TABLE kept AS SELECT * FROM totals")
    assert not bench.emitters.differences()
    ask(bench.dsn, WRONG[what])
    with pytest.raises(AssertionError):
        bench.emitters.check()
    ask(bench.dsn, "WITH gone AS (DELETE FROM totals) SELECT 1")
    ask(bench.dsn, "WITH back AS (INSERT INTO totals SELECT * FROM kept) SELECT 1")
    ask(bench.dsn, "DROP TABLE kept")
    bench.emitters.check()


def test_a_bug_that_a_log_tells_of_is_found(bench: Bench) -> None:
    """So is a process that ended, by the nemesis and others that end a check with it."""
    bench.are_sound()
    with bench.pipeline.log("aggregator-1").open("a") as log:
        log.write("Traceback (most recent call last):")
    with pytest.raises(AssertionError, match="aggregator-1"):
        bench.are_sound()
