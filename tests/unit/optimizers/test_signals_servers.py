"""What servers say of their load: writer batch, pool, backlog and Redis each ill, healthy and unknown."""

import pytest

from optimizers.service_signals import commits_of
from optimizers.signals.backlog import Flow, drain_s, judge_backlog
from optimizers.signals.pool import Connections, judge_pool, pool_needed
from optimizers.signals.redis_server import Server, judge_redis
from optimizers.signals.writer_batch import Commits, judge_writer, next_size

GB = 1 << 30


@pytest.mark.parametrize(("p95_s", "limit", "next_"), [(0.3, 400, 200), (0.1, 400, 440), (0.1, 3, 4), (0.3, 1, 1)])
def test_batches_halve_when_slow_and_grow_by_a_tenth_when_fast(p95_s: float, limit: int, next_: int) -> None:
    assert next_size(p95_s, limit) == next_
    assert next_size(0.1, 10_000) == 10_000


def test_slow_commits_are_told_to_be_smaller() -> None:
    said = judge_writer({"a": Commits([0.5] * 30, [400] * 30, [], 400)})
    (advice,) = said.advice
    assert (said.status, advice.target) == ("warn", "STREAMGAUGE_COMMIT_MAX_BATCHES")
    assert (advice.current, advice.proposed) == ("400", "200")


def test_slow_commits_below_the_limit_are_halved_from_what_they_are() -> None:
    (advice,) = judge_writer({"a": Commits([0.5] * 30, [40] * 30, [], 400)}).advice
    assert advice.proposed == "20"


def test_full_fast_commits_may_grow_and_others_are_left_alone() -> None:
    said = judge_writer({"a": Commits([0.05] * 30, [400] * 30, [], 400)})
    assert (said.status, said.advice[0].proposed) == ("ok", "440")
    assert judge_writer({"a": Commits([0.05] * 30, [10] * 30, [], 400)}).advice == ()


def test_few_commits_are_not_judged() -> None:
    assert judge_writer({"a": Commits([9.0] * 19, [1] * 19, [], 400)}).status == "insufficient_data"
    assert judge_writer({}).status == "insufficient_data"


def test_slow_commits_of_one_batch_are_told_but_not_to_be_smaller() -> None:
    for limit in (400, 1):
        said = judge_writer({"a": Commits([0.5] * 30, [1] * 30, [], limit)})
        assert (said.status, said.advice) == ("warn", ())
        assert "a single batch is slow" in said.detail
    # The slow ones are what counts, not the large and fast ones beside them.
    mixed = judge_writer({"a": Commits([0.5] * 10 + [0.05] * 20, [1] * 10 + [400] * 20, [], 400)})
    assert (mixed.status, mixed.advice) == ("warn", ())


@pytest.mark.parametrize(
    ("batches", "rows_each", "proposed"), [(5, 7, None), (60, 9, "56"), (55, 9, None), (200, 9, "100"), (4, 900, "2")]
)
def test_slow_commits_of_few_rows_are_not_told_to_be_smaller(
    batches: int, rows_each: int, proposed: str | None
) -> None:
    """Nothing is won below 500 rows: what takes long is not their writing."""
    said = judge_writer({"a": Commits([0.5] * 30, [batches] * 30, [batches * rows_each] * 30, 400)})
    assert [advice.proposed for advice in said.advice] == ([proposed] if proposed else [])
    assert said.status == "warn"
    assert ("500 rows or fewer are slow, so that their size is not the cause" in said.detail) is (proposed is None)


def test_rows_of_a_batch_are_told_where_they_are_known() -> None:
    said = judge_writer({"a": Commits([0.5] * 30, [400] * 30, [8000] * 30, 400)})
    assert "400 of 400 batches of 20 rows each" in said.detail
    assert said.advice[0].evidence["rows_per_batch"] == 20
    facts = {"commit_s": [0.5] * 30, "commit_batches": [4] * 30, "commit_age_s": [1.0] * 30, "commit_max_batches": 4}
    assert commits_of({"old": facts})["old"].rows == [0] * 30
    assert "rows" not in judge_writer(commits_of({"old": facts})).detail


def test_the_size_that_is_set_is_not_advised() -> None:
    assert judge_writer({"a": Commits([0.05] * 30, [10_000] * 30, [], 10_000)}).advice == ()


def test_commits_before_a_quiet_night_are_not_judged() -> None:
    facts = {"commit_s": [0.5] * 50, "commit_batches": [400] * 50, "commit_max_batches": 400}
    old = {"a": {**facts, "commit_age_s": [601.0] * 40 + [1.0] * 10}}
    said = judge_writer(commits_of(old))
    assert (said.status, said.advice) == ("insufficient_data", ())
    assert said.detail.endswith("10 commits measured in the last 10 minutes, 20 needed")
    assert judge_writer(commits_of({"a": {**facts, "commit_age_s": [599.0] * 50}})).status == "warn"


def test_a_heartbeat_that_lacks_facts_is_left_out() -> None:
    assert commits_of({"a": {}, "b": {"commit_s": [1.0]}, "c": {"commit_s": [1.0], "commit_batches": [1]}}) == {}


@pytest.mark.parametrize(("busy", "limit", "needed"), [(10.0, 87, 17), (0.0, 87, 1), (400.0, 87, 87)])
def test_a_pool_has_room_for_twice_the_root(busy: float, limit: int, needed: int) -> None:
    assert pool_needed(busy, limit) == needed


def test_too_few_and_too_many_connections_are_told() -> None:
    few = judge_pool("d", Connections(10.0, 12, 100, 3, 300.0))
    assert (few.status, few.advice[0].proposed) == ("warn", "17 over all processes")
    shared = judge_pool("d", Connections(10.0, 12, 100, 3, 300.0, clients=5))
    assert shared.advice[0].proposed == "17 over all processes, 4 for each of 5"
    many = judge_pool("d", Connections(1.0, 95, 100, 3, 300.0))
    assert (many.status, many.advice[0].expected_effect) == ("warn", "connections left for people and backups")
    assert judge_pool("d", Connections(10.0, 20, 100, 3, 300.0)).status == "ok"
    assert judge_pool("d", "no run before").status == "insufficient_data"


def test_a_backlog_drains_in_time_or_not_at_all() -> None:
    assert drain_s(0, 1.0, 0.0) == 0.0
    assert drain_s(100, 10.0, 20.0) == 10.0
    assert drain_s(1, 10.0, 10.0) == float("inf")


def test_a_backlog_that_grows_is_told_how_many_aggregators_would_do() -> None:
    said = judge_backlog(Flow(6000, 100.0, 60.0, 2))
    (advice,) = said.advice
    assert (said.status, advice.current, advice.proposed) == ("warn", "2 aggregators", "5 aggregators")
    assert advice.evidence["drain_s"] is None
    assert judge_backlog(Flow(60, 100.0, 102.0, 1)).status == "ok"


@pytest.mark.parametrize(("lag", "status"), [(1, "ok"), (37, "ok"), (38, "warn")])
def test_entries_of_the_last_seconds_are_no_backlog_though_more_came_than_went(lag: int, status: str) -> None:
    said = judge_backlog(Flow(lag, 7.54, 7.42, 1))
    assert (said.status, bool(said.advice)) == (status, status == "warn")


def test_a_backlog_nobody_knows_is_not_judged_and_one_that_nothing_drains_is() -> None:
    unknown = judge_backlog("Redis does not know how many entries wait")
    assert (unknown.status, unknown.advice) == ("insufficient_data", ())
    assert "does not know" in unknown.detail
    stopped = judge_backlog(Flow(5, 1.0, 0.0, 1))
    assert (stopped.status, stopped.advice) == ("warn", ())


QUICK = {"xadd": {"p50": 0.01, "p99": 0.9}, "xack": {"p50": 0.01, "p99": 10.0}}
HEALTHY = Server(GB // 2, GB, "noeviction", 0, 0, 0.0, 0, lookups=(9, 1), percentiles_ms=QUICK)


def test_a_healthy_redis_is_left_alone() -> None:
    said = judge_redis(HEALTHY)
    assert (said.status, said.advice) == ("ok", ())


@pytest.mark.parametrize(
    ("server", "target"),
    [
        (HEALTHY._replace(used_bytes=int(GB * 0.81)), "redis memory"),
        (HEALTHY._replace(evicted=1, policy="allkeys-lru"), "redis eviction"),
        (HEALTHY._replace(delayed_fsyncs=1), "redis disk"),
        (HEALTHY._replace(worst_ms=101.0), "redis stalls"),
        (HEALTHY._replace(buffer_bytes=65 << 20), "redis clients"),
        (HEALTHY._replace(percentiles_ms=QUICK | {"xadd": {"p99": 10.1}}), "redis latency"),
    ],
)
def test_each_ill_of_redis_is_found_alone(server: Server, target: str) -> None:
    said = judge_redis(server)
    assert (said.status, [one.target for one in said.advice]) == ("warn", [target])


def test_what_redis_does_not_tell_is_said_to_be_unknown() -> None:
    said = judge_redis(Server(GB, 0, "noeviction", None, None, None, None))
    assert said.status == "ok"
    assert "without a limit" in said.detail
    assert said.detail.count("not known") == 5
    assert "times of commands, Redis before version 7 does not tell" in said.detail
    # Advice on the rest stays as it is: nothing is `gone` because it is not known now.
    assert said.judged == ("redis memory",)


def test_look_ups_and_times_of_commands_are_told() -> None:
    said = judge_redis(HEALTHY)
    assert "; 9 keys found and 1 not, since the run before" in said.detail
    assert "; xadd p50 0.01 ms, p99 0.9 ms; xack p50 0.01 ms, p99 10 ms" in said.detail
    slow = judge_redis(HEALTHY._replace(percentiles_ms={"xack": {"p99": 25.0}}))
    assert (slow.advice[0].evidence, slow.advice[0].current) == ({"xack_p99_ms": 25.0}, "p99 of 25 ms")
    assert "redis latency" in (judge_redis(HEALTHY._replace(percentiles_ms={})).judged or ())


def test_without_an_append_only_file_delayed_writes_are_unknown() -> None:
    said = judge_redis(HEALTHY._replace(delayed_fsyncs=None, tells_fsyncs=False))
    assert "does not tell without an append-only file" in said.detail
    assert "redis disk" not in (said.judged or ())
