"""Trim on a real stream: whether a standby has a commit is judged by when it was made, never by when its entry came."""

import pytest

from aggregator import trim
from aggregator.trim import Trimmer
from contract.streams import stream_key
from tests.batches import make_batch
from tests.consuming import SHARD, Consumer, consumer
from tests.fundamentals.test_one_effect import NOW_S

MUCH = 1 << 30


class Standby:
    """Has so many of the bytes of WAL that were written."""

    written = flushed = 100

    def load(self, _: str) -> str:
        """Return the query that tells of it."""
        return f"""SELECT {self.written} AS written, {self.flushed} AS flushed,
            (SELECT system_identifier FROM pg_control_system()) AS system_identifier,
            ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int AS timeline"""


async def trimmed(c: Consumer, trimmer: Trimmer) -> int:
    """Trim; returns how many entries are left."""
    await trimmer.look(await c.pool())
    await trimmer.trim(SHARD)
    return await c.link.xlen(stream_key(SHARD))


@pytest.mark.parametrize(("replay_window_s", "max_bytes"), [(0.0, MUCH), (3600.0, 1)], ids=["old", "over the cap"])
async def test_what_a_standby_lacks_is_not_trimmed(
    dsn: str, redis_url: str, monkeypatch: pytest.MonkeyPatch, replay_window_s: float, max_bytes: int
) -> None:
    standby = Standby()
    monkeypatch.setattr(trim, "load", standby.load)
    async with consumer(dsn, redis_url) as c:
        trimmer = Trimmer(c.link, replay_window_s=replay_window_s, max_bytes=max_bytes, interval_s=10.0)
        await c.reader.ensure_group()
        batches = [make_batch(bytes(16), seq, counters={b"a_total": (1, 1.0)}, window_s=NOW_S) for seq in (1, 2)]
        await c.send(*batches)
        assert await trimmed(c, trimmer) == 2
        await c.consume()
        # The entries are older than what the standby has; their commit is not.
        standby.written = 200
        for _ in range(3):
            assert await trimmed(c, trimmer) == 2
        standby.flushed = 200
        assert await trimmed(c, trimmer) == 1
