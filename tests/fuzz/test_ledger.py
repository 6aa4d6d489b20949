"""Batches that a liar sealed, through the ledger: whatever PostgreSQL makes of them, each ends in one place.

Promise: every entry is acknowledged, and is applied, set aside or parked, once; honest neighbours are applied; what a
liar says of himself ends no query of the exporter, no audit and no retirement.
"""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Final
from uuid import UUID

import pytest
import redis
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from contract import batch as wire
from database.audit import audit
from database.queries import load
from tests.consuming import Consumer
from tests.fundamentals.test_one_effect import NOW_S
from tests.fuzz.budget import examples
from tests.fuzz.test_batches import BOMBS, changed_bodies, encoded, honest, ints, sealed
from tests.servers import Servers

pytestmark = pytest.mark.timeout(400)

RUNS: Final = ["one", "two", "", "a\0b", "\ud7ff", 'x"; DROP SCHEMA streamgauge CASCADE; --', "y" * 300]
MOST_RUNS: Final = 2
HONEST_EVENTS: Final = 14
IN_SCHEMA: Final = """
SELECT (SELECT coalesce(sum((SELECT sum(upper(r) - lower(r)) FROM unnest(applied) r)), 0) FROM "{0}".producers)
       + (SELECT count(*) FROM "{0}".quarantine) + (SELECT count(*) FROM "{0}".parked)
"""
SCHEMAS: Final = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'streamgauge%'"


class Fed:
    """A consumer that is fed batches; every batch has a producer of its own."""

    def __init__(self, dsn: str, redis_url: str) -> None:
        self._runner = asyncio.Runner()
        self._numbers = itertools.count(1)
        self._consumer = self._runner.run(self._open(dsn, redis_url))

    async def _open(self, dsn: str, redis_url: str) -> Consumer:
        return Consumer(dsn, redis_url, streamgauge_load_runs=MOST_RUNS)

    def seal(self, fields: dict[str, Any], events: int = HONEST_EVENTS, seq: int = 1) -> bytes:
        """Seal a body that was flushed now, unless it says another window."""
        now = {"span_start_ms": NOW_S * 1000, "flushed_ms": NOW_S * 1000 + 9000}
        if fields["window_start_s"] == honest()["window_start_s"]:
            now["window_start_s"] = NOW_S
        content = encoded(fields | now)
        flags = wire.COMPRESSED if len(content) > 1 << 16 else 0
        whole = zstandard.ZstdCompressor().compress(content) if flags else content
        return sealed(whole, flags, events, seq, next(self._numbers).to_bytes(16))

    def feed(self, batches: Sequence[bytes]) -> None:
        """Send, consume, and look for each of them, and for two honest ones around them."""
        self._runner.run(self._feed([self.seal(honest()), *batches, self.seal(honest())]))

    async def _feed(self, batches: Sequence[bytes]) -> None:
        c = self._consumer
        around = [UUID(bytes=batch[8:24]) for batch in (batches[0], batches[-1])]
        before = await self._accounted()
        await c.send(*batches)
        assert await c.consume() == len(batches)
        assert await c.pending() == 0
        assert await self._accounted() == before + len(batches)
        query = "SELECT sum(committed_events) FROM producers WHERE producer_id = ANY($1)"
        assert await c.one(query, around) == 2 * HONEST_EVENTS, "the neighbours"

    async def _accounted(self) -> int:
        """Return how many batches are applied, set aside or parked, real ones and those of runs."""
        schemas = [row["nspname"] for row in await self._consumer.rows(SCHEMAS)]
        assert len(schemas) <= 1 + MOST_RUNS
        return sum([await self._consumer.one(IN_SCHEMA.format(schema)) for schema in schemas])

    def look(self) -> None:
        """Ask what the exporter, the audit and the upkeep ask."""
        self._runner.run(self._look())

    async def _look(self) -> None:
        c = self._consumer
        assert await c.rows(load("exporter_services"), 60.0)
        await audit(await c.pool(), c.link)
        await c.one("SELECT retire_producers(-1)")
        assert await c.one("SELECT count(*) FROM producers") == 0
        assert await c.rows(load("exporter_services"), 60.0)

    def close(self) -> None:
        """Close every connection."""
        self._runner.run(self._consumer.aclose())
        self._runner.close()


@pytest.fixture
def fed(servers: Servers, dsn: str) -> Iterator[Fed]:
    url = servers.redis().url
    with redis.Redis.from_url(url, protocol=2, socket_timeout=10) as client:
        client.flushall()
    made = Fed(dsn, url)
    yield made
    made.close()


lies = st.tuples(changed_bodies(), st.just(HONEST_EVENTS) | ints, st.just(1) | ints, st.none() | st.sampled_from(RUNS))


@examples(8)
@given(st.lists(lies, min_size=25, max_size=40))
def test_what_a_liar_sends_ends_in_one_place(fed: Fed, told: list[tuple[dict[str, Any], int, int, str | None]]) -> None:
    fed.feed([fed.seal({**fields, "run_id": run}, events, seq) for fields, events, seq, run in told])
    fed.look()


def test_the_worst_that_is_known_ends_in_one_place(fed: Fed) -> None:
    """In real traffic and in runs; with numbers as large as they may be, and one more."""
    worst = [{"directory": make()} for make in BOMBS.values()]
    worst += [{"accepted": n} for n in (wire.MAX_COUNTED, wire.MAX_COUNTED + 1, (1 << 62) - 1)]
    worst += [{"accepted": wire.MAX_COUNTED, "dropped": {"nonfinite": wire.MAX_COUNTED}}]
    worst += [{"window_start_s": window_s} for window_s in (0, 10, NOW_S - 90_000, NOW_S + 90_000, 1 << 40)]
    worst += [{"service": text} for text in ("", "a\0b", "z" * 5000)]
    worst += [{"window_first_seq": seq} for seq in (0, 2, (1 << 62) - 1, 1 << 63)]
    worst += [{"clock_offset_us": -(1 << 63), "clock_uncertainty_us": (1 << 63) - 1}]
    fed.feed([fed.seal({**honest(), **lie, "run_id": run}) for lie in worst for run in (None, "one", *RUNS)])
    fed.look()
