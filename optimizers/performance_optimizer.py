"""PerformanceOptimizer: every signal judged on what is stored, its answer and its advice kept.

In: the pool of the monitoring database and settings. Out: rows of `signals` and `recommendations`; a Result.
Promise: it only recommends, it changes nothing; a signal that fails is an answer of its own and never fails the run.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Final, NamedTuple

from redis.exceptions import RedisError

from contract.errors import error_text
from database.connect import AWAY, acquire
from database.performance import forget_recommendations, store_signal
from database.redis_link import open_link
from optimizers.job import Job, Outcome, Result, Run
from optimizers.producer_signals import read_services
from optimizers.release_history import read_releases
from optimizers.route_history import RECENT_S, read_routes
from optimizers.service_signals import (
    commits_of,
    read_aggregators,
    read_connections,
    read_flow,
    read_server,
    read_streams,
)
from optimizers.signals import backlog, latency, loop_lag, pool, redis_server, release, staffing, writer_batch
from optimizers.signals.said import Said

log = logging.getLogger(__name__)

INTERVAL_S: Final = 300.0
NAME: Final = "collect_metrics"
REDIS_S: Final = 2.0
"""Longest wait for one reply of Redis."""

Judged = tuple[Said, ...]


class Source(NamedTuple):
    """What is read at once and the signals judged by it."""

    signals: tuple[str, ...]
    read: Callable[[Run], Awaitable[Judged]]


async def read_latency(run: Run) -> Judged:
    """Judge the latency of each route."""
    async with acquire(run.pool) as connection:
        routes = await read_routes(connection, run.scheduled_for)
    return latency.judge_regression(routes), latency.judge_drift(routes)


async def read_release(run: Run) -> Judged:
    """Judge each route's newest release."""
    async with acquire(run.pool) as connection:
        return (release.judge_releases(await read_releases(connection, run.scheduled_for)),)


async def read_processes(run: Run) -> Judged:
    """Judge what the processes of each service say of themselves."""
    async with acquire(run.pool) as connection:
        services = await read_services(connection, run.scheduled_for)
    return staffing.judge_workers(services.loads), loop_lag.judge_loops(services.lags)


async def read_writer(run: Run) -> Judged:
    """Judge the size of commits."""
    async with acquire(run.pool) as connection:
        return (writer_batch.judge_writer(commits_of(await read_aggregators(connection))),)


async def read_pool(run: Run) -> Judged:
    """Judge the connections to the monitoring database."""
    async with acquire(run.pool) as connection:
        database, seen = await read_connections(connection)
    return (pool.judge_pool(database, seen),)


async def read_redis(run: Run) -> Judged:
    """Judge the streams' Redis, and what waits in it."""
    link = open_link(run.settings, at_most_s=REDIS_S)
    try:
        info = await link.info()
        streams = await read_streams(link)
        async with acquire(run.pool) as connection:
            server = await read_server(connection, link, info)
            flow = await read_flow(connection, streams, str(info["run_id"]), await read_aggregators(connection))
    finally:
        await link.aclose()
    return backlog.judge_backlog(flow), redis_server.judge_redis(server)


SOURCES: Final[tuple[Source, ...]] = (
    Source((latency.REGRESSION, latency.DRIFT), read_latency),
    Source((release.RELEASE,), read_release),
    Source((staffing.WORKERS, loop_lag.LOOP), read_processes),
    Source((writer_batch.WRITER,), read_writer),
    Source((pool.POOL,), read_pool),
    Source((backlog.BACKLOG, redis_server.REDIS), read_redis),
)


class PerformanceOptimizer:
    """The signals and the rules of a run."""

    def __init__(self, sources: tuple[Source, ...] = SOURCES) -> None:
        """Take the sources to judge."""
        self._sources = sources

    async def collect_metrics(self, run: Run) -> Result:
        """Judge every signal once and keep what it said."""
        said: list[Said] = []
        for source in self._sources:
            said += await self._judge(source, run)
        async with acquire(run.pool) as connection:
            for one in said:
                advice = [asdict(each) for each in one.advice]
                await store_signal(connection, one.signal, one.status, one.detail, advice, one.judged)
            await forget_recommendations(connection)
        return _result(said)

    async def _judge(self, source: Source, run: Run) -> Judged:
        try:
            return await source.read(run)
        except (*AWAY, RedisError) as error:
            # Storing the answer raises, and the run fails, when it is the monitoring database that is away.
            log.warning("signal_unread", extra={"signals": source.signals, "error": error_text(error)})
            return _unread(source, error)
        except Exception as error:
            # A bug in one source must not cost the other signals their answers.
            log.exception("signal_failed", extra={"signals": source.signals})
            return _unread(source, error)


def _unread(source: Source, error: Exception) -> Judged:
    text = f"could not be read: {type(error).__name__}"
    return tuple(Said(signal, "error", text) for signal in source.signals)


def _result(said: list[Said]) -> Result:
    statuses = Counter(one.status for one in said)
    detail = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    facts = {"signals": dict(statuses), "recommendations": sum(len(one.advice) for one in said)}
    if statuses["error"] == len(said):
        return Result(Outcome.FAILED, detail, facts)
    judged = statuses["ok"] + statuses["warn"]
    return Result(Outcome.DONE if judged else Outcome.INSUFFICIENT_DATA, detail, facts)


async def collect_metrics(run: Run) -> Result:
    """Judge every signal once."""
    return await PerformanceOptimizer().collect_metrics(run)


JOB: Final = Job(NAME, "Judge performance signals", INTERVAL_S, collect_metrics, judges_s=RECENT_S)
