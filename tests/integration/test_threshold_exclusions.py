"""What must not teach a threshold: rows in PostgreSQL, one run of the job, limits as if those rows were not there.

Half of an hour of every working day is wild: enough to move both the median and the MAD of its bucket.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from database import partitions, thresholds
from database.connect import Pool, acquire
from database.rows import Rows, join, write
from optimizers import recalibration
from optimizers.recalibration import note_deploys
from tests.exporting import writer
from tests.integration.test_thresholds import DAYS, KEY, METRIC, minutes, number_of, pool, run

_ = pool
HOUR = 3
HALF_S = 1800
DAY_S = 86_400


class Limits(NamedTuple):
    """Of the bucket with the wild half hours."""

    warn: float
    critical: float
    dropped: int


@pytest.fixture
def now() -> datetime:
    """One moment for all that a test stores and judges: it may run over midnight."""
    return datetime.now(UTC)


def wild_spans(now: datetime) -> list[tuple[int, int]]:
    """The half hours around 3:30 UTC of the working days that lie in the history."""
    midnight = int(now.timestamp()) // DAY_S * DAY_S
    days = [at for at in range(midnight - (DAYS - 1) * DAY_S, midnight, DAY_S) if (at // DAY_S + 3) % 7 < 5]
    return [(at + HOUR * 3600 + 900, at + HOUR * 3600 + 900 + HALF_S) for at in days]


async def store(dsn: str, pool: Pool, now: datetime, *, events: int = 30, is_left_out: bool = False) -> None:
    """Replace the history: usual minutes, and wild ones (20x) in the half hours, or none there."""
    now_s = int(now.timestamp())
    async with acquire(pool) as connection:
        series = await connection.fetchval("SELECT series_id FROM series WHERE key = $1", KEY)
    if series is None:
        async with writer(dsn) as w:
            series = await w.series(await w.metric("http_request_duration_seconds", 3), KEY)
    usual = minutes(series, now_s, DAYS)
    spans = wild_spans(now)
    out = np.array([any(low <= at < high for low, high in spans) for at in usual.window_s.tolist()])
    rows: Rows = usual.take(~out)
    if not is_left_out:
        loud = minutes(series, now_s, DAYS, level=2.0, events=events)
        rows = join(rows, loud.take(out))
    async with acquire(pool) as connection:
        await connection.execute("DELETE FROM rollup_1m")
        await partitions.ensure(connection, np.unique(rows.window_s // 3600 * 3600).tolist())
        await write(connection, "rollup_1m", rows)


async def learnt(pool: Pool, dsn: str, now: datetime) -> Limits:
    """Run the job; the limits of the bucket, and what it dropped."""
    result = await run(pool, dsn, now)
    assert not result.facts["frozen"], result.facts
    async with acquire(pool) as connection:
        query = "SELECT warn, critical FROM threshold_values WHERE threshold_id = $1 AND bucket = $2"
        value = await connection.fetchrow(query, await number_of(pool), HOUR)
        changes = await thresholds.changes(connection, await number_of(pool), 48)
    assert value is not None
    return Limits(value["warn"], value["critical"], changes[0]["dropped"])


@pytest.fixture
async def expected(dsn: str, pool: Pool, now: datetime) -> Limits:
    """The limits without the half hours; nothing of it is left."""
    await store(dsn, pool, now, is_left_out=True)
    found = await learnt(pool, dsn, now)
    assert found.dropped == 0
    async with acquire(pool) as connection:
        await connection.execute("TRUNCATE thresholds, threshold_values, threshold_changes CASCADE")
    return found


async def test_wild_half_hours_that_nobody_excluded_are_not_learnt_from_silently(
    dsn: str, pool: Pool, now: datetime, expected: Limits
) -> None:
    """The control of the others: the same rows do disturb."""
    await store(dsn, pool, now)
    result = await run(pool, dsn, now)
    assert list(result.facts["frozen"]) == [f"{METRIC} /listings high"], (result.facts, expected)


async def test_what_a_person_excluded_does_not_teach(dsn: str, pool: Pool, now: datetime, expected: Limits) -> None:
    await store(dsn, pool, now)
    spans = wild_spans(now)
    async with acquire(pool) as connection:
        for low, high in spans:
            times = (thresholds.moment(low), thresholds.moment(high))
            await thresholds.exclude(connection, METRIC, *times, "load test", "me")
    assert await learnt(pool, dsn, now) == expected._replace(dropped=6 * len(spans))


async def deploy_each_time(dsn: str, now: datetime, spans: list[tuple[int, int]]) -> None:
    """In the middle of each span all of `shop` is begun anew; the job runs daily, and a week later they retire."""
    async with writer(dsn) as w:
        for low, _ in spans:
            at = thresholds.moment(low + HALF_S // 2)
            age_s = (now - at - timedelta(hours=20)).total_seconds()
            for _ in range(2):
                await w.producer("shop", age_s=age_s, first_seen=at)
            await note_deploys(w.connection, (at + timedelta(hours=21)).timestamp())
            await note_deploys(w.connection, (at + timedelta(hours=22)).timestamp())
            await w.connection.execute("DELETE FROM producers WHERE first_seen < $1", at - timedelta(days=6))


async def test_a_quarter_of_an_hour_around_a_deploy_does_not_teach_after_its_producers_retired(
    dsn: str, pool: Pool, now: datetime, expected: Limits
) -> None:
    """Kept once each, however often the job runs."""
    await store(dsn, pool, now)
    spans = wild_spans(now)
    await deploy_each_time(dsn, now, spans)
    assert await learnt(pool, dsn, now) == expected._replace(dropped=6 * len(spans))
    async with acquire(pool) as connection:
        kept = await connection.fetch("SELECT service, reason FROM threshold_exclusions")
    assert [tuple(row) for row in kept] == [("shop", "deploy")] * len(spans)


async def test_deploys_of_another_service_than_the_metrics_own_do_not_matter(
    dsn: str, pool: Pool, now: datetime, expected: Limits, tmp_path: Path
) -> None:
    """The same history and the same deploys, once the definition says whose the metric is."""
    await store(dsn, pool, now)
    await deploy_each_time(dsn, now, wild_spans(now))
    shipped = (Path(recalibration.__file__).parent / "thresholds" / "default.toml").read_text()
    first = 'name = "http_request_p95_seconds"'
    for service, is_frozen in (("api", True), ("shop", False)):
        path = tmp_path / f"{service}.toml"
        path.write_text(shipped.replace(first, f'{first}\nservice = "{service}"'))
        result = await run(pool, dsn, now, STREAMGAUGE_THRESHOLDS_FILE=str(path))
        assert bool(result.facts["frozen"]) is is_frozen, (service, result.facts, expected)


async def test_windows_with_too_few_events_are_gaps_and_do_not_teach(
    dsn: str, pool: Pool, now: datetime, expected: Limits
) -> None:
    """Not dropped: they are no samples."""
    await store(dsn, pool, now, events=19)
    assert await learnt(pool, dsn, now) == expected


async def test_incidents_over_learnt_limits_do_not_teach(dsn: str, pool: Pool, now: datetime) -> None:
    """The learnt limits tell them; a day later they have not moved, though a day allows a tenth."""
    await store(dsn, pool, now, is_left_out=True)
    before = await learnt(pool, dsn, now)
    await store(dsn, pool, now)
    async with acquire(pool) as connection:
        await connection.execute("UPDATE threshold_values SET set_at = set_at - interval '1 day', warn = warn * 1.001")
    after = await learnt(pool, dsn, now)
    assert after.dropped == 6 * len(wild_spans(now))
    assert (after.warn, after.critical) == (pytest.approx(before.warn, rel=1e-6), pytest.approx(before.critical))
