"""I1, I3, I4, I5 and I7 find what ails indexes, and leave healthy ones of every kind alone."""

import asyncpg
import pytest

from optimizers.check import Severity, Tier
from optimizers.checks.i1_missing_index import MissingIndex
from optimizers.checks.i3_foreign_key_index import ForeignKeyIndex
from optimizers.checks.i4_unused_index import UnusedIndex
from optimizers.checks.i5_duplicate_index import DuplicateIndex
from optimizers.checks.i7_low_use_index import LowUseIndex
from tests.integration.optimizers.ill import Ill, opened

BIG = "CREATE TABLE t AS SELECT g AS a, g % 100 AS b, repeat('x', 600) AS c FROM generate_series(1, 20000) AS g"
SCAN = "SELECT count(*) FROM t WHERE c = 'y'"
LOOK_UP = "SELECT a FROM t WHERE a = 7"


# I1


async def test_large_table_that_is_read_whole_is_found_with_who_reads_it(ill: Ill) -> None:
    """Scans an hour, rows each, and the statements that name it."""
    await ill.sql("CREATE EXTENSION pg_stat_statements", BIG, "ANALYZE t")
    found = await ill.after_an_hour(MissingIndex(), *[SCAN] * 12)
    evidence = found["public.t"].evidence
    assert found["public.t"].severity is Severity.WARN
    assert evidence["seq_scans_per_hour"] == pytest.approx(12)
    assert evidence["rows_per_scan"] == pytest.approx(20_000)
    queries = [query["query"] for query in evidence["queries"]]
    assert "SELECT count(*) FROM t WHERE c = $1" in queries
    assert not [query for query in queries if query.startswith(("CREATE", "INSERT"))], "they read nothing of it"


async def test_scans_beside_none_of_an_index_are_critical_in_a_larger_table(ill: Ill) -> None:
    """The stricter pair of thresholds."""
    await ill.sql(BIG, "ANALYZE t")
    check = MissingIndex(critical_rows=15_000)
    assert (await ill.after_an_hour(check, *[SCAN] * 12))["public.t"].severity is Severity.CRITICAL


async def test_scans_of_partitions_are_one_finding_of_their_parent(ill: Ill) -> None:
    """A scan of the parent is not a scan per partition."""
    await ill.sql(
        "CREATE TABLE t (a int, c text) PARTITION BY RANGE (a)",
        "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (10000)",
        "CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (10000) TO (90000)",
        "INSERT INTO t SELECT g, repeat('x', 600) FROM generate_series(1, 20000) AS g",
        "ANALYZE t",
    )
    found = await ill.after_an_hour(MissingIndex(), *[SCAN] * 12)
    assert list(found) == ["public.t"]
    assert found["public.t"].evidence["seq_scans_per_hour"] == pytest.approx(12)


@pytest.mark.parametrize(
    ("make", "run"),
    [
        ("CREATE TABLE t AS SELECT g AS a, 'x' AS c FROM generate_series(1, 500) AS g", [SCAN] * 50),
        (BIG, [SCAN] * 3),
        (BIG, [*[SCAN] * 12, *["SELECT a FROM t WHERE a = 7"] * 300]),
        (BIG, [f"{LOOK_UP} LIMIT 1"] * 50),
    ],
    ids=["small table", "a nightly export", "mostly by index", "first rows only"],
)
async def test_right_scans_are_silent(ill: Ill, make: str, run: list[str]) -> None:
    """A scan is not an illness."""
    await ill.sql(make, "CREATE INDEX ON t (a)", "ANALYZE t")
    assert not await ill.after_an_hour(MissingIndex(), *run)


async def test_scans_before_the_first_look_do_not_count(ill: Ill) -> None:
    """An hour, not a lifetime."""
    await ill.sql(BIG, "ANALYZE t", *[SCAN] * 20)
    assert not await ill.after_an_hour(MissingIndex())


async def test_scans_before_a_look_at_a_locked_table_do_not_count_later(ill: Ill) -> None:
    """Its size cannot be asked under the lock, its counters can: an hour later it is no new table."""
    await ill.sql(BIG, "ANALYZE t", *[SCAN] * 20)
    holder = await asyncpg.connect(ill.dsn)
    try:
        await holder.execute("BEGIN; LOCK TABLE t")
        await ill.look(MissingIndex())
    finally:
        await holder.close()
    ill.pass_time(hours=1)
    assert not await ill.findings(MissingIndex())
    assert list(await ill.after_an_hour(MissingIndex(), *[SCAN] * 12)) == ["public.t"]


# I3

CHILD = "INSERT INTO child SELECT g, g % 100 + 1 FROM generate_series(1, 10000) AS g"
PARENT = [
    "CREATE TABLE parent (id int PRIMARY KEY)",
    "INSERT INTO parent SELECT generate_series(1, 200)",
    "CREATE TABLE child (id int, parent_id int REFERENCES parent)",
    CHILD,
    "ANALYZE",
]
GONE = "DELETE FROM parent WHERE id = 150"


async def test_foreign_key_without_index_is_found_and_the_statement_helps(ill: Ill) -> None:
    """What it proposes makes it silent, and its rollback brings it back."""
    await ill.sql(*PARENT, GONE)
    found = (await ill.findings(ForeignKeyIndex()))["public.child (parent_id)"]
    assert found.tier is Tier.OPT_IN
    assert found.sql is not None
    assert found.rollback is not None
    await ill.sql(found.sql)
    assert not await ill.findings(ForeignKeyIndex())
    await ill.sql(found.rollback)
    assert len(await ill.findings(ForeignKeyIndex())) == 1


async def test_foreign_key_with_an_index_is_silent(ill: Ill) -> None:
    """Any that begins with its columns."""
    await ill.sql(*PARENT, GONE)
    for index in (
        "(parent_id)",
        "(parent_id, id)",
        "(parent_id) WHERE parent_id IS NOT NULL",
        "(parent_id DESC) INCLUDE (id)",
    ):
        await ill.sql(f"CREATE INDEX helps ON child {index}")
        assert not await ill.findings(ForeignKeyIndex()), index
        await ill.sql("DROP INDEX helps")


async def test_index_that_does_not_help_a_foreign_key_is_not_taken_for_one(ill: Ill) -> None:
    """Column in second place, partial, expression."""
    await ill.sql(*PARENT, GONE)
    for index in ("(id, parent_id)", "(parent_id) WHERE id > 5", "((parent_id + 0))"):
        await ill.sql(f"CREATE INDEX idles ON child {index}")
        assert len(await ill.findings(ForeignKeyIndex())) == 1, index
        await ill.sql("DROP INDEX idles")


async def test_foreign_key_of_a_still_parent_or_a_small_child_is_silent(ill: Ill) -> None:
    """Nobody pays."""
    await ill.sql(*PARENT)
    assert not await ill.findings(ForeignKeyIndex())
    await ill.sql(GONE)
    assert not await ill.findings(ForeignKeyIndex(rows=20_000))


async def test_two_columns_in_any_order_serve_a_foreign_key(ill: Ill) -> None:
    """Both equalities are known."""
    await ill.sql(
        "CREATE TABLE parent (a int, b int, PRIMARY KEY (a, b))",
        "INSERT INTO parent SELECT g, g FROM generate_series(1, 200) AS g",
        "CREATE TABLE child (x int, y int, FOREIGN KEY (x, y) REFERENCES parent)",
        "INSERT INTO child SELECT g % 100 + 1, g % 100 + 1 FROM generate_series(1, 10000) AS g",
        "DELETE FROM parent WHERE a = 150",
    )
    assert list(await ill.findings(ForeignKeyIndex())) == ["public.child (x, y)"]
    await ill.sql("CREATE INDEX ON child (y, x)")
    assert not await ill.findings(ForeignKeyIndex())


async def test_foreign_key_of_a_partitioned_child_is_one_finding(ill: Ill) -> None:
    """Of the parent table; its index cannot be made CONCURRENTLY."""
    await ill.sql(
        *PARENT[:2],
        "CREATE TABLE child (id int, parent_id int REFERENCES parent) PARTITION BY RANGE (id)",
        "CREATE TABLE child_1 PARTITION OF child FOR VALUES FROM (0) TO (5000)",
        "CREATE TABLE child_2 PARTITION OF child FOR VALUES FROM (5000) TO (90000)",
        CHILD,
        GONE,
    )
    found = await ill.findings(ForeignKeyIndex())
    assert list(found) == ["public.child (parent_id)"]
    assert found["public.child (parent_id)"].tier is Tier.NEVER
    await ill.sql(str(found["public.child (parent_id)"].sql))
    assert not await ill.findings(ForeignKeyIndex())


# I4 and I7

FOREIGN_KEY = (
    "CREATE INDEX ON t (b); CREATE TABLE p (b int PRIMARY KEY);ALTER TABLE t ADD FOREIGN KEY (b) REFERENCES p NOT VALID"
)
SMALL = UnusedIndex(warn_bytes=8192, critical_bytes=10**9)


async def ripe(ill: Ill, check: UnusedIndex | LowUseIndex) -> list[str]:
    """Return what is found once the indexes have been known for long enough."""
    assert not (await ill.look(check)).findings
    ill.pass_time(days=15)
    return sorted(await ill.findings(check))


async def test_unused_index_is_found_after_two_weeks(ill: Ill) -> None:
    """Not a day before; the statement to undo it is there."""
    await ill.sql(BIG, "CREATE INDEX t_b ON t (b)", "CREATE INDEX t_a ON t (a)", "ANALYZE t", LOOK_UP)
    answer = await ill.look(SMALL)
    assert answer.insufficient == "1 unused so far, known for 0.0 of 14 days"
    ill.pass_time(days=13)
    assert not (await ill.look(SMALL)).findings
    ill.pass_time(days=2)
    found = await ill.findings(SMALL)
    assert list(found) == ["public.t_b"]
    assert found["public.t_b"].rollback == "CREATE INDEX t_b ON public.t USING btree (b)"
    assert found["public.t_b"].tier is Tier.NEVER
    assert found["public.t_b"].evidence["scans"] == {"primary": 0}


async def test_young_statistics_tell_nothing_of_use(ill: Ill) -> None:
    """They were reset a week ago."""
    await ill.sql(BIG, "CREATE INDEX t_b ON t (b)")
    await ill.look(SMALL)
    ill.pass_time(days=30)
    ill.stats_age_s = 7 * 86_400
    answer = await ill.look(SMALL)
    assert answer.insufficient == "1 unused so far, known for 7.0 of 14 days"
    assert not answer.findings


async def test_index_made_yesterday_is_young(ill: Ill) -> None:
    """However old the statistics and its neighbours are."""
    await ill.sql(BIG, "CREATE INDEX t_b ON t (b)")
    await ill.look(SMALL)
    ill.pass_time(days=20)
    await ill.sql("CREATE INDEX t_a ON t (a)")
    assert list(await ill.findings(SMALL)) == ["public.t_b"]


@pytest.mark.parametrize(
    "make",
    [
        "ALTER TABLE t ADD PRIMARY KEY (a)",
        "CREATE UNIQUE INDEX t_a ON t (a)",
        "ALTER TABLE t ADD EXCLUDE USING btree (a WITH =)",
        FOREIGN_KEY,
    ],
    ids=["primary key", "unique", "exclusion", "foreign key"],
)
async def test_index_that_is_needed_without_scans_is_kept(ill: Ill, make: str) -> None:
    """It enforces something, or a delete elsewhere needs it."""
    await ill.sql(BIG, make)
    assert await ripe(ill, SMALL) == []


async def test_small_unused_index_is_silent(ill: Ill) -> None:
    """It is not worth anybody's time."""
    await ill.sql(BIG, "CREATE INDEX t_b ON t (b)")
    assert await ripe(ill, UnusedIndex()) == []


async def test_index_of_partitions_is_judged_as_one(ill: Ill) -> None:
    """A scan in one partition keeps all; the parent's index is what can be dropped."""
    await ill.sql(
        "CREATE TABLE t (a int, b int) PARTITION BY RANGE (a)",
        "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (10000)",
        "CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (10000) TO (90000)",
        "CREATE INDEX t_a ON t (a)",
        "CREATE INDEX t_b ON t (b)",
        "INSERT INTO t SELECT g, g FROM generate_series(1, 20000) AS g",
        "ANALYZE t",
        "SELECT b FROM t WHERE a = 15000",
    )
    await ill.look(SMALL)
    ill.pass_time(days=15)
    found = await ill.findings(SMALL)
    assert list(found) == ["public.t_b"]
    assert found["public.t_b"].sql == "DROP INDEX public.t_b"


async def test_use_on_a_replica_keeps_an_index(ill: Ill) -> None:
    """Scans are summed, and the servers asked are named. A copy of the database stands in for the replica."""
    await ill.sql(BIG, "CREATE INDEX t_a ON t (a)", "CREATE INDEX t_b ON t (b)", "ANALYZE t")
    await ill.connection.close()
    copy = f"{ill.name}_copy"
    admin = await asyncpg.connect(ill.dsn.replace(f"/{ill.name}?", "/postgres?"))
    try:
        await admin.execute(f"CREATE DATABASE {copy} TEMPLATE {ill.name}")
        async with opened(ill.dsn.replace(f"/{ill.name}?", f"/{copy}?"), ill.store_dsn) as replica:
            await replica.sql(LOOK_UP)
            check = UnusedIndex(warn_bytes=8192, warn_days=0.0)
            found = await ill.findings(check, replicas=[replica.dsn])
        assert sorted(await ill.findings(check)) == ["public.t_a", "public.t_b"]
    finally:
        await admin.execute(f"DROP DATABASE IF EXISTS {copy} WITH (FORCE)")
        await admin.close()
    assert list(found) == ["public.t_b"]
    assert found["public.t_b"].evidence["scans"] == {"primary": 0, "replica 1": 0}
    assert "0 scans on primary, replica 1 in" in found["public.t_b"].recommendation


async def test_written_often_and_read_seldom_is_found(ill: Ill) -> None:
    """A few scans against many writes; one in daily use is silent."""
    await ill.sql(
        "CREATE TABLE t (a int, b int, c text)",
        "CREATE INDEX t_a ON t (a)",
        "CREATE INDEX t_b ON t (b)",
        BIG.partition(" AS ")[2].join(("INSERT INTO t ", "")),
        "ANALYZE t",
        *[LOOK_UP] * 30,
        "SELECT a FROM t WHERE b = 7 AND a < 0",
    )
    check = LowUseIndex(scans=20)
    assert await ripe(ill, check) == ["public.t_b"]


async def test_use_that_is_known_by_its_time_is_in_the_evidence(ill: Ill) -> None:
    """PostgreSQL 16 and newer know when an index was scanned last."""
    await ill.sql(BIG, "CREATE INDEX t_a ON t (a)", "CREATE INDEX t_b ON t (b)", "ANALYZE t", LOOK_UP)
    await ill.look(LowUseIndex(writes=-1, unused_bytes=1))
    await ill.look(SMALL)
    ill.pass_time(days=15)
    found = await ill.findings(LowUseIndex(writes=-1, unused_bytes=1))
    assert (found["public.t_a"].evidence["last_scan"] is not None) == (ill.version >= 16)
    assert (await ill.findings(SMALL))["public.t_b"].evidence["last_scan"] is None


async def test_index_that_is_hardly_written_is_not_costly(ill: Ill) -> None:
    """Reading seldom is no fault."""
    await ill.sql("CREATE TABLE t (a int)", "CREATE INDEX t_a ON t (a)", "INSERT INTO t SELECT generate_series(1, 500)")
    assert await ripe(ill, LowUseIndex()) == []


async def test_updates_that_no_index_follows_are_not_writes(ill: Ill) -> None:
    """HOT updates touch no index."""
    await ill.sql(
        "CREATE TABLE t (a int, b int) WITH (fillfactor = 10)",
        "CREATE INDEX t_a ON t (a)",
        "INSERT INTO t SELECT g, 0 FROM generate_series(1, 50) AS g",
        *["UPDATE t SET b = b + 1"] * 10,
    )
    assert await ripe(ill, LowUseIndex(writes=400)) == []


# I5


async def test_superfluous_index_is_found(ill: Ill) -> None:
    """Exact twins may be dropped on request, prefixes by a person."""
    exact, prefix = Tier.OPT_IN, Tier.NEVER
    cases: list[tuple[list[str], dict[str, Tier]]] = [
        (["(a)", "(a)"], {"i2": exact}),
        (["(a, b)", "(a)"], {"i2": prefix}),
        (["(a)", "(a, b)", "(a, b, c)"], {"i1": prefix, "i2": prefix}),
        (["(lower(c))", "(lower(c))"], {"i2": exact}),
        (["(lower(c), a)", "(lower(c))"], {"i2": prefix}),
        (["(a) WHERE b > 3", "(a) WHERE b > 3"], {"i2": exact}),
        (["(a) INCLUDE (b)", "(a)"], {"i2": prefix}),
        (["(a) INCLUDE (b)", "(a) INCLUDE (b)"], {"i2": exact}),
        (["USING brin (a)", "USING brin (a)"], {"i2": exact}),
    ]
    for number, (indexes, _) in enumerate(cases):
        await ill.sql(f"CREATE SCHEMA s{number}", f"CREATE TABLE s{number}.t (a int, b int, c text)")
        await ill.sql(*[f"CREATE INDEX i{n} ON s{number}.t {index}" for n, index in enumerate(indexes, 1)])
    found = await ill.findings(DuplicateIndex())
    tiers = {name: finding.tier for name, finding in found.items()}
    assert tiers == {f"s{n}.{name}": tier for n, (_, wanted) in enumerate(cases) for name, tier in wanted.items()}
    for finding in found.values():
        assert finding.severity is (Severity.CRITICAL if finding.tier is exact else Severity.WARN)


async def test_indexes_that_do_not_cover_each_other_are_kept(ill: Ill) -> None:
    """Order, expression, predicate, method, class, collation, columns, uniqueness."""
    pairs = [
        ("INDEX ON t (a)", "INDEX ON t (a DESC)"),
        ("INDEX ON t (a)", "INDEX ON t (a NULLS FIRST)"),
        ("INDEX ON t (c)", "INDEX ON t (lower(c))"),
        ("INDEX ON t (lower(c))", "INDEX ON t (upper(c))"),
        ("INDEX ON t (a)", "INDEX ON t (a) WHERE b > 3"),
        ("INDEX ON t (a) WHERE b > 4", "INDEX ON t (a) WHERE b > 3"),
        ("INDEX ON t (a)", "INDEX ON t USING brin (a)"),
        ("INDEX ON t USING brin (a, b)", "INDEX ON t USING brin (a)"),
        ("INDEX ON t USING brin (a) WITH (pages_per_range = 8)", "INDEX ON t USING brin (a)"),
        ("INDEX ON t (c)", "INDEX ON t (c text_pattern_ops)"),
        ("INDEX ON t (c)", 'INDEX ON t (c COLLATE "POSIX")'),
        ("INDEX ON t (a, b)", "INDEX ON t (b, a)"),
        ("INDEX ON t (a, b)", "INDEX ON t (a) INCLUDE (c)"),
        ("INDEX ON t (a, b)", "UNIQUE INDEX ON t (a)"),
        ("UNIQUE INDEX ON t (a)", "UNIQUE INDEX ON t (a)"),
    ]
    for number, pair in enumerate(pairs):
        await ill.sql(f"CREATE TABLE t{number} (a int, b int, c text)")
        await ill.sql(*[f"CREATE {index.replace('ON t ', f'ON t{number} ')}" for index in pair])
    assert not await ill.findings(DuplicateIndex())


async def test_what_enforces_stays_and_its_plain_twin_goes(ill: Ill) -> None:
    """Whichever is older."""
    await ill.sql("CREATE TABLE t (a int NOT NULL)", "CREATE INDEX plain ON t (a)", "ALTER TABLE t ADD PRIMARY KEY (a)")
    await ill.sql("CREATE TABLE u (a int NOT NULL)", "CREATE INDEX u_plain ON u (a)")
    await ill.sql("CREATE UNIQUE INDEX ident ON u (a)", "ALTER TABLE u REPLICA IDENTITY USING INDEX ident")
    found = await ill.findings(DuplicateIndex())
    assert set(found) == {"public.plain", "public.u_plain"}
    assert found["public.plain"].evidence["covered_by"] == "public.t_pkey"


async def test_duplicates_of_partitions_are_found_at_the_parent(ill: Ill) -> None:
    """A partition's share of an index cannot be dropped alone."""
    await ill.sql(
        "CREATE TABLE t (a int) PARTITION BY RANGE (a)",
        "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (10)",
        "CREATE INDEX i1 ON t (a)",
        "CREATE INDEX i2 ON t (a)",
    )
    found = await ill.findings(DuplicateIndex())
    assert list(found) == ["public.i2"]
    assert found["public.i2"].tier is Tier.NEVER
    assert found["public.i2"].sql == "DROP INDEX public.i2"
