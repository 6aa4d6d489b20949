"""DatabaseOptimizer: one runner, checks apart from each other, findings through their states, cost measured."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from database import partitions
from database.connect import Connection, Pool, acquire, open_pool
from database.optimization_status import read_status
from database.partitions import PARTS, ROLLUPS
from database.settings import read_settings
from optimizers.check import Answer, Check, Finding, Look, Severity, Tier, Unsupported
from optimizers.checks.i4_unused_index import UnusedIndex
from optimizers.checks.i6_invalid_index import InvalidIndex
from optimizers.checks.p1_partitions_ahead import PartitionsAhead
from optimizers.checks.p3_retention import Retention
from optimizers.checks.r1_replica_lag import ReplicaLag
from optimizers.database_optimizer import INTERVAL_S, DatabaseOptimizer
from optimizers.job import Outcome
from optimizers.meter import MAX_CONNECTIONS, Meter, budget_s
from optimizers.settings import OptimizerSettings
from optimizers.target_look import Nodes
from optimizers.targets import Address, connected

NOW = datetime.now(UTC)


@dataclass(frozen=True)
class Scripted:
    """Finds what the test says."""

    id: ClassVar[str] = "T1"
    title: ClassVar[str] = "scripted"
    timeout_s: ClassVar[float] = 0.3
    said: ClassVar[Answer | BaseException] = Answer()

    async def look(self, look: Look) -> Answer:
        """Answer or fail."""
        if isinstance(self.said, BaseException):
            raise self.said
        return self.said


@dataclass(frozen=True)
class Slow(Scripted):
    """Takes longer than it may."""

    id: ClassVar[str] = "T2"

    async def look(self, look: Look) -> Answer:
        """Sleep in the server."""
        await look.connection.execute("SELECT pg_sleep(20)")
        return Answer()


@dataclass(frozen=True)
class Writing(Scripted):
    """Tries to change the target."""

    id: ClassVar[str] = "T3"

    async def look(self, look: Look) -> Answer:
        """Write."""
        await look.connection.execute("CREATE TABLE written (a int)")
        return Answer()


@dataclass(frozen=True)
class Counting(Scripted):
    """Says which connections of the optimizer there are."""

    id: ClassVar[str] = "T4"

    async def look(self, look: Look) -> Answer:
        """Look at pg_stat_activity."""
        rows = await look.connection.fetch(
            "SELECT pid, current_setting('transaction_read_only') AS ro, current_setting('lock_timeout') AS wait "
            "FROM pg_stat_activity WHERE application_name = 'db_optimizer'"
        )
        return Answer([Finding(f"{len(rows)} {rows[0]['ro']} {rows[0]['wait']}", Severity.INFO, "")])


@dataclass
class Rig:
    """An optimizer of the monitoring database, and its tables."""

    pool: Pool
    dsn: str

    async def run(self, *kinds: type[Check], now: datetime = NOW, every_s: float = INTERVAL_S, **settings: Any) -> Any:
        """Run once."""
        read = read_settings(OptimizerSettings, {"POSTGRES_DSN": self.dsn} | settings)
        return await DatabaseOptimizer(self.pool, read, kinds).run(now, every_s=every_s)

    async def rows(self, query: str) -> list[asyncpg.Record]:
        """Ask the store."""
        return await self.pool.fetch(query)

    async def states(self) -> dict[str, str]:
        """Return the state of each finding by its object."""
        return {row["object"]: row["state"] for row in await self.rows("SELECT object, state FROM findings")}

    async def results(self) -> dict[str, tuple[str, str | None]]:
        """Return status and kind of error by check."""
        rows = await self.rows("SELECT check_id, status, error_kind FROM check_results")
        return {row["check_id"]: (row["status"], row["error_kind"]) for row in rows}


@pytest.fixture
async def rig(dsn: str) -> AsyncGenerator[Rig, None]:
    """A fresh store."""
    async with _pool(dsn) as pool:
        yield Rig(pool, dsn)


@asynccontextmanager
async def _pool(dsn: str) -> AsyncGenerator[Pool, None]:
    pool = await open_pool(read_settings(OptimizerSettings, {"POSTGRES_DSN": dsn}), size=3)
    try:
        yield pool
    finally:
        await pool.close()


def say(monkeypatch: pytest.MonkeyPatch, said: Answer | BaseException | Sequence[str]) -> None:
    """Script the check: an answer, an error, or the objects of findings."""
    if not isinstance(said, (Answer, BaseException)):
        said = Answer([Finding(name, Severity.WARN, f"look at {name}") for name in said])
    monkeypatch.setattr(Scripted, "said", said)


async def test_finding_is_open_after_two_runs_and_resolved_after_three_without(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run is a coincidence; one absence too."""
    seen: list[str | None] = []
    for there in (True, True, False, True, False, False, False, True):
        say(monkeypatch, ["x"] if there else [])
        await rig.run(Scripted)
        seen.append((await rig.states()).get("x"))
    assert seen == ["pending", "open", "open", "open", "open", "open", "resolved", "pending"]


async def test_pending_finding_that_is_gone_leaves_no_trace(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs in a row, not two runs."""
    for said in (["x"], [], ["x"]):
        say(monkeypatch, said)
        await rig.run(Scripted)
    assert await rig.states() == {"x": "pending"}


async def test_check_that_cannot_look_changes_no_finding(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finding is not resolved because nobody could look."""
    for said in (["x"], ["x"], *[Unsupported("no")] * 3, *[Answer(insufficient="too young")] * 3):
        say(monkeypatch, said)
        await rig.run(Scripted)
    assert await rig.states() == {"x": "open"}
    assert await rig.results() == {"T1": ("warn", None)}


async def test_findings_are_capped_worst_first_and_the_rest_is_not_absent(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """25 rows a check; the count says how many there are."""
    found = [Finding(f"w{n}", Severity.WARN, "") for n in range(30)] + [Finding("c", Severity.CRITICAL, "")]
    say(monkeypatch, Answer(found))
    await rig.run(Scripted)
    states = await rig.states()
    assert len(states) == 25
    assert "c" in states
    assert [row["findings"] for row in await rig.rows("SELECT findings FROM check_results")] == [31]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (asyncpg.InsufficientPrivilegeError("no"), "permission"),
        (asyncpg.LockNotAvailableError("locked"), "timeout"),
        (Unsupported("needs HypoPG"), "unsupported"),
        (asyncpg.UndefinedFunctionError("none"), "unsupported"),
        (ZeroDivisionError("bug"), "fault"),
    ],
)
async def test_failure_of_a_check_is_an_entry_and_the_others_answer(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, error: BaseException, kind: str
) -> None:
    """Isolation."""
    say(monkeypatch, error)
    result = await rig.run(Scripted, InvalidIndex)
    assert result.outcome is Outcome.DONE
    assert await rig.results() == {"T1": ("error", kind), "I6": ("ok", None)}


async def test_slow_check_is_stopped_and_the_next_one_looks(rig: Rig) -> None:
    """Its own time-out, and its transaction does not stay behind."""
    result = await rig.run(Slow, InvalidIndex)
    assert await rig.results() == {"T2": ("error", "timeout"), "I6": ("ok", None)}
    assert result.facts["statement_s"] < 5


async def test_check_cannot_change_the_target(rig: Rig) -> None:
    """Read-only, whatever the role may do."""
    await rig.run(Writing)
    assert (await rig.results())["T3"][0] == "error"
    assert not await rig.rows("SELECT FROM pg_class WHERE relname = 'written'")


async def test_connections_are_named_few_and_counted(rig: Rig) -> None:
    """One to the store, one to the target; both say who they are."""
    result = await rig.run(Counting)
    assert await rig.states() == {"2 on 1s": "pending"}
    assert result.facts["connections"] == 2 <= MAX_CONNECTIONS
    names = {row["application_name"] for row in await rig.rows("SELECT application_name FROM pg_stat_activity")}
    assert "db_optimizer" not in names


async def test_only_one_of_two_runs_at_once(rig: Rig) -> None:
    """The loser says so, and its run is on record."""
    results = await asyncio.gather(rig.run(Slow), rig.run(Slow))
    assert {result.outcome for result in results} == {Outcome.INSUFFICIENT_DATA, Outcome.SKIPPED}
    rows = await rig.rows("SELECT status, skipped_reason FROM optimizer_runs ORDER BY status")
    assert [tuple(row) for row in rows] == [("done", None), ("skipped", "another run is under way")]


async def test_share_of_database_time_is_measured_and_bounds_a_run(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose share is used up leaves the other checks to the next run, which begins with them."""
    monkeypatch.setattr("optimizers.meter.LEAST_BUDGET_S", 0.0)
    first = await rig.run(Slow, InvalidIndex, every_s=20.0)
    assert first.facts["left_for_next_run"] == 1
    assert await rig.results() == {"T2": ("error", "timeout")}
    await rig.run(Slow, InvalidIndex, now=NOW + timedelta(hours=1))
    assert (await rig.results())["I6"] == ("ok", None)
    rows = await rig.rows("SELECT statement_s, interval_s FROM optimizer_runs ORDER BY run_id")
    assert rows[0]["statement_s"] > 0.25
    assert rows[0]["interval_s"] is None
    assert rows[1]["interval_s"] > 0


async def test_vacuum_takes_no_more_than_is_left_of_the_share(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cancelled, and that is on record; a longer interval lets it end."""
    monkeypatch.setattr("optimizers.meter.LEAST_BUDGET_S", 0.0)
    name = await rig.pool.fetchval("SELECT current_database()")
    await rig.pool.execute("CREATE TABLE public.t AS SELECT generate_series(1, 100000) AS a; DELETE FROM public.t")
    await rig.pool.execute(f"ALTER DATABASE {name} SET vacuum_cost_delay = 20")
    await rig.pool.execute(f"ALTER DATABASE {name} SET vacuum_cost_limit = 20")
    say(monkeypatch, Answer([Finding("public.t", Severity.WARN, "", sql="VACUUM public.t", tier=Tier.AUTOMATIC)]))
    result = await rig.run(Scripted, every_s=50.0)
    assert (result.facts["changes"], result.facts["statement_s"] < 3) == (0, True)
    await rig.pool.execute(f"ALTER DATABASE {name} RESET ALL")
    assert (await rig.run(Scripted, every_s=50_000.0)).facts["changes"] == 1
    errors = [row["error"] for row in await rig.rows("SELECT error FROM applied_actions ORDER BY action_id")]
    assert errors == ["QueryCanceledError: canceling statement due to statement timeout", None]


@pytest.mark.parametrize(("interval_s", "share_s"), [(3600.0, 36.0), (600.0, 6.0), (86_400.0, 864.0), (2.0, 1.0)])
def test_budget_is_a_hundredth_of_the_interval_that_is_configured(interval_s: float, share_s: float) -> None:
    """And a second at least."""
    assert budget_s(interval_s) == share_s


async def test_target_that_does_not_answer_is_said_and_the_others_are_looked_at(rig: Rig) -> None:
    """No address in the answer."""
    dead = "shop=postgresql://someone:hunter2@127.0.0.1:1/shop"
    result = await rig.run(InvalidIndex, STREAMGAUGE_OPTIMIZER_TARGETS=dead)
    assert result.outcome is Outcome.DONE
    rows = await rig.rows("SELECT target, status, error_kind, detail FROM check_results ORDER BY target")
    assert [(row["target"], row["status"], row["error_kind"]) for row in rows] == [
        ("monitoring", "ok", None),
        ("shop", "error", "unreachable"),
    ]
    assert "hunter2" not in str(rows)
    facts = await rig.rows("SELECT facts FROM optimizer_targets WHERE target = 'shop'")
    assert "error" in json.loads(facts[0]["facts"])


async def test_target_that_is_no_longer_configured_is_forgotten(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its findings are resolved, its answers go."""
    say(monkeypatch, ["x"])
    for _ in range(2):
        await rig.run(Scripted, STREAMGAUGE_OPTIMIZER_TARGETS=f"shop={rig.dsn}")
    await rig.run(Scripted)
    rows = await rig.rows("SELECT target, state FROM findings ORDER BY target")
    assert [tuple(row) for row in rows] == [("monitoring", "open"), ("shop", "resolved")]
    assert {row["target"] for row in await rig.rows("SELECT target FROM check_results")} == {"monitoring"}


async def test_run_that_lost_its_process_is_marked_failed(rig: Rig) -> None:
    """It does not stay `running` for ever."""
    await rig.pool.execute("INSERT INTO optimizer_runs (status) VALUES ('running')")
    await rig.run(InvalidIndex)
    rows = await rig.rows("SELECT status FROM optimizer_runs ORDER BY run_id")
    assert [row["status"] for row in rows] == ["failed", "done"]


async def test_run_that_is_cut_off_leaves_nothing_behind(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schedule's own deadline: the run is on record as failed, its lock, statement and session are gone."""
    monkeypatch.setattr(Slow, "timeout_s", 20.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await rig.run(Slow)
    assert [row["status"] for row in await rig.rows("SELECT status FROM optimizer_runs")] == ["failed"]
    assert (await rig.run(InvalidIndex)).outcome is Outcome.DONE
    assert not await rig.rows(
        "SELECT FROM pg_stat_activity WHERE application_name = 'db_optimizer' AND state = 'active'"
    )


async def test_automatic_tier_analyzes_and_records_before_and_after(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, with the numbers."""
    await rig.pool.execute("CREATE TABLE public.t AS SELECT generate_series(1, 100) AS a")
    finding = Finding("public.t", Severity.WARN, "", sql="ANALYZE public.t", tier=Tier.AUTOMATIC)
    say(monkeypatch, Answer([finding]))
    assert (await rig.run(Scripted)).facts["changes"] == 1
    rows = await rig.rows("SELECT sql, before, after, rollback, error, tier FROM applied_actions")
    assert [(row["sql"], row["rollback"], row["error"], row["tier"]) for row in rows] == [
        ("ANALYZE public.t", None, None, "automatic")
    ]
    assert "analyzed_at" not in json.loads(rows[0]["before"])
    assert "analyzed_at" in json.loads(rows[0]["after"])


async def test_finding_that_was_acted_on_says_so_until_it_is_seen_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is kept for some runs after its cure."""
    await rig.pool.execute("CREATE TABLE public.t AS SELECT generate_series(1, 100) AS a")
    wanted = {"public.t": "ANALYZE public.t", "u": None}
    say(monkeypatch, Answer([Finding(o, Severity.WARN, "", sql=sql, tier=Tier.AUTOMATIC) for o, sql in wanted.items()]))
    before = datetime.now(UTC)
    assert (await rig.run(Scripted, now=before)).facts["changes"] == 1
    acted = {row["object"]: row["acted_at"] for row in (await read_status(rig.pool))["findings"]}
    assert acted["public.t"] > before
    assert acted["u"] is None
    await rig.run(Scripted, now=before + timedelta(hours=1), STREAMGAUGE_OPTIMIZER_AUTOMATIC="false")
    assert {row["acted_at"] for row in (await read_status(rig.pool))["findings"]} == {None}


async def test_missing_partitions_are_made_by_the_run_that_finds_them(rig: Rig) -> None:
    """By the upkeep's own hands: a store without any can take commits after one run."""
    assert (await rig.run(PartitionsAhead, now=datetime.now(UTC))).facts["findings"] == 4
    rows = await rig.rows("SELECT sql, error FROM applied_actions")
    assert [tuple(row) for row in rows] == [("-- upkeep: partitions", None)] * 4
    for kind in (PARTS, *ROLLUPS.values()):
        async with acquire(rig.pool) as connection:
            assert len(await partitions.existing(connection, kind)) == kind.ahead + 1
    assert (await rig.run(PartitionsAhead, now=datetime.now(UTC))).facts["findings"] == 0


async def test_retention_names_what_it_drops_before_and_drops_some_at_a_time(rig: Rig) -> None:
    """Their sums go to the base of the totals, as the upkeep has it."""
    old_s = [int(NOW.timestamp()) // 21_600 * 21_600 - 5 * 86_400 + n * 21_600 for n in range(3)]
    names = [partitions.partition(ROLLUPS["10s"], at_s).name for at_s in old_s]
    async with acquire(rig.pool) as connection:
        await partitions.ensure(connection, old_s)
        for at_s in old_s:
            await connection.execute("INSERT INTO rollup_10s VALUES (to_timestamp($1), 7, 0, 2, 1.5)", at_s)

    async def drops() -> str:
        await rig.run(Retention, STREAMGAUGE_RETENTION_PARTITIONS="2")
        rows = await rig.rows("SELECT sql, error FROM applied_actions ORDER BY action_id DESC LIMIT 1")
        assert rows[0]["error"] is None
        return rows[0]["sql"]

    assert await drops() == f"-- upkeep: retention, drops {names[0]}, {names[1]}"
    assert [row["n"] for row in await rig.rows("SELECT n FROM rollup_10s")] == [2]
    assert await drops() == f"-- upkeep: retention, drops {names[2]}"
    archived = await rig.rows("SELECT level, series_id, n, sum FROM archived")
    assert [tuple(row) for row in archived] == [("10s", 7, 6, 4.5)]


@pytest.mark.parametrize(
    ("options", "target"), [({"STREAMGAUGE_OPTIMIZER_AUTOMATIC": "false"}, "monitoring"), ({}, "shop")]
)
async def test_automatic_tier_keeps_its_hands_off(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], target: str
) -> None:
    """Where it is turned off, and in every database but ours."""
    if target == "shop":
        options = {"STREAMGAUGE_OPTIMIZER_TARGETS": f"shop={rig.dsn}"}
        monkeypatch.setattr(Scripted, "look", _only_elsewhere)
    say(monkeypatch, Answer([Finding("public.t", Severity.WARN, "", sql="ANALYZE public.t", tier=Tier.AUTOMATIC)]))
    await rig.pool.execute("CREATE TABLE public.t (a int)")
    assert (await rig.run(Scripted, **options)).facts["changes"] == 0
    assert not await rig.rows("SELECT FROM applied_actions")
    assert len(await rig.rows(f"SELECT FROM findings WHERE target = '{target}'")) == 1


async def _only_elsewhere(self: Scripted, look: Look) -> Answer:
    assert isinstance(self.said, Answer)
    return Answer() if look.is_monitoring else self.said


async def test_automatic_tier_refuses_other_statements(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that asks for more than ANALYZE or VACUUM is not obeyed."""
    await rig.pool.execute("CREATE TABLE public.t (a int)")
    sql = "ANALYZE public.t; DROP TABLE public.t"
    say(monkeypatch, Answer([Finding("public.t", Severity.WARN, "", sql=sql, tier=Tier.AUTOMATIC)]))
    assert (await rig.run(Scripted)).facts["changes"] == 0
    assert await rig.rows("SELECT FROM pg_class WHERE relname = 't'")


async def test_replica_that_does_not_answer_is_named(rig: Rig) -> None:
    """Nobody is told that an index is unused while one server was not asked."""
    dead = "monitoring=postgresql://someone:hunter2@127.0.0.1:1/x"
    await rig.pool.execute("CREATE TABLE public.t (a int); CREATE INDEX ON public.t (a)")
    await rig.run(UnusedIndex, STREAMGAUGE_OPTIMIZER_REPLICAS=dead)
    rows = await rig.rows("SELECT status, detail FROM check_results")
    assert [tuple(row) for row in rows] == [
        ("insufficient_data", "replica 1 did not answer: it may use what others do not")
    ]
    facts = json.loads((await rig.rows("SELECT facts FROM optimizer_targets"))[0]["facts"])
    assert (facts["nodes_seen"], facts["nodes_unseen"]) == (["primary"], ["replica 1"])


async def test_replica_that_is_lost_in_a_run_is_not_asked_again(rig: Rig) -> None:
    """Its absence is said, and no check waits for it twice."""
    asked: list[str] = []

    @asynccontextmanager
    async def replica() -> AsyncGenerator[Connection, None]:
        asked.append("replica 1")
        if len(asked) > 1:
            raise ConnectionRefusedError
        yield primary

    primary = await asyncpg.connect(rig.dsn)
    nodes = Nodes(primary, {"replica 1": replica})
    try:
        assert list(await nodes.everywhere("SELECT 1")) == ["primary", "replica 1"]
        assert list(await nodes.everywhere("SELECT 1")) == ["primary"]
        assert list(await nodes.everywhere("SELECT 1")) == ["primary"]
        assert (nodes.unseen, len(asked)) == (["replica 1"], 2)
    finally:
        await primary.close()


async def test_replicas_in_any_number_are_asked_within_the_five_places(rig: Rig) -> None:
    """More replicas than places for connections: none waits for a place that the same run holds."""
    many = " ".join([f"monitoring={rig.dsn}"] * (MAX_CONNECTIONS + 1))
    async with asyncio.timeout(30):
        result = await rig.run(UnusedIndex, ReplicaLag, STREAMGAUGE_OPTIMIZER_REPLICAS=many)
    assert result.facts["connections"] <= MAX_CONNECTIONS
    facts = json.loads((await rig.rows("SELECT facts FROM optimizer_targets"))[0]["facts"])
    assert (len(facts["nodes_seen"]), facts["nodes_unseen"]) == (MAX_CONNECTIONS + 2, [])


async def test_replica_that_refuses_a_table_is_a_matter_of_privilege_and_not_silent(rig: Rig) -> None:
    """What the primary's role may read and the replica's may not: the check says so, and no server is `unseen`."""
    role = f"reader_{uuid4().hex[:8]}"
    await rig.pool.execute(f"CREATE ROLE {role} LOGIN IN ROLE pg_monitor; GRANT USAGE ON SCHEMA streamgauge TO {role}")
    address = urlsplit(rig.dsn)
    other = address._replace(netloc=f"{role}@{address.netloc.rpartition('@')[2]}").geturl()
    try:
        await rig.run(ReplicaLag, STREAMGAUGE_OPTIMIZER_REPLICAS=f"monitoring={other}")
        rows = await rig.rows("SELECT error_kind, detail FROM check_results")
        assert [row["error_kind"] for row in rows] == ["permission"]
        assert "permission denied for table heartbeats" in rows[0]["detail"]
        facts = json.loads((await rig.rows("SELECT facts FROM optimizer_targets"))[0]["facts"])
        assert (facts["nodes_seen"], facts["nodes_unseen"]) == (["primary", "replica 1"], [])
    finally:
        await rig.pool.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_connection_that_looks_is_read_only_also_outside_a_check(rig: Rig) -> None:
    """And one that changes has longer, but not for ever."""
    address = Address({"dsn": rig.dsn})
    shown = "SELECT current_setting('default_transaction_read_only'), current_setting('statement_timeout')"
    for changes, wanted in ((False, ("on", "30s")), (True, ("off", "30min"))):
        async with connected(address, Meter(1.0), 5.0, changes=changes) as connection:
            assert tuple(await connection.fetchrow(shown) or ()) == wanted
