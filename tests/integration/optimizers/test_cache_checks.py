"""C1 tells blocks that cost time from a share that only looks low."""

from dataclasses import replace

import pytest

from optimizers.check import Severity
from optimizers.checks.c1_cache_hits import CacheHits
from tests.integration.optimizers.ill import Ill

only_18 = pytest.mark.parametrize("ill_dsn", ["18"], indirect=True, ids=["postgres18"])

TABLE = (
    "CREATE TABLE t (a int, b text) WITH (autovacuum_enabled = off, fillfactor = 10)",
    "INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 8000) g",
)
SCAN = "SELECT count(*) FROM t"
BUSY = CacheHits(min_blocks=100, min_reads_per_s=0, min_read_ms=-1)
"""However few and quick."""


async def test_c1_cached_reads_are_silent(ill: Ill) -> None:
    """Everything is found in shared_buffers."""
    await ill.sql(*TABLE, SCAN)
    assert not await ill.after_an_hour(BUSY, SCAN, SCAN, SCAN)


@pytest.mark.parametrize("ill_dsn", ["18"], indirect=True, ids=["postgres18"])
async def test_c1_reads_that_cost_are_graded_and_their_tables_named(ill: Ill) -> None:
    """Blocks evicted before each scan have to be read again."""
    evict = "SELECT count(pg_buffercache_evict(bufferid)) FROM pg_buffercache"
    evict += " WHERE relfilenode = pg_relation_filenode('t')"
    name = await ill.connection.fetchval("SELECT current_database()")
    await ill.sql("CREATE EXTENSION pg_buffercache", *TABLE, "CHECKPOINT")
    await ill.sql(f"ALTER DATABASE {name} SET track_io_timing = off")
    untimed = (await ill.after_an_hour(BUSY, evict, SCAN, evict, SCAN))["shared_buffers"]
    assert untimed.evidence["hit_share"] < 0.9
    assert next(iter(untimed.evidence["blocks_read_by_table"])) == "public.t"
    assert untimed.evidence["reads_per_s"] >= untimed.evidence["blocks_read_by_table"]["public.t"] / 3600
    assert untimed.severity is Severity.INFO, "what a read costs is not known"
    assert "track_io_timing is off" in untimed.recommendation
    await ill.sql(f"ALTER DATABASE {name} SET track_io_timing = on")
    timed = (await ill.after_an_hour(BUSY, evict, SCAN, evict, SCAN))["shared_buffers"]
    assert timed.evidence["read_ms"] >= 0
    assert timed.severity is Severity.CRITICAL


@pytest.mark.parametrize(
    ("share", "reads_per_s", "read_ms", "severity"),
    [
        (0.995, 500, 5, None),
        (0.99, 500, 5, None),
        (0.97, 500, 5, Severity.INFO),
        (0.94, 500, 5, Severity.WARN),
        (0.89, 500, 5, Severity.CRITICAL),
        (0.5, 99, 5, Severity.INFO),
        (0.5, 500, 0.9, Severity.INFO),
        (0.5, 500, None, Severity.INFO),
    ],
)
def test_c1_low_share_alone_is_information(
    share: float, reads_per_s: float, read_ms: float | None, severity: Severity | None
) -> None:
    """Warnings need many reads a second, and slow ones."""
    assert CacheHits().severity(share, reads_per_s, read_ms) is severity


@only_18
async def test_c1_too_little_to_say(ill: Ill) -> None:
    """Neither a first look nor an hour without work is an answer."""
    first = await ill.look(CacheHits())
    assert first.insufficient is not None and "an hour ago" in first.insufficient
    ill.pass_time(hours=1)
    quiet = await ill.look(replace(CacheHits(), min_blocks=1e9))
    assert quiet.insufficient is not None and "blocks were asked for" in quiet.insufficient
