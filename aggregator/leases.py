"""Leases: which shards this aggregator reads. Soft: for speed only, two readers of one shard do no harm.

In: heartbeats of all aggregators in Redis. Out: the set of shards to read.
Promise: with A live aggregators each holds at most ceil(shards / A) leases; a dead one's are free after their
lifetime, also when the clock of Redis was set meanwhile.
"""

from math import ceil

from aggregator.lua import BEAT, RELEASE, RENEW
from contract.streams import AGGREGATORS_KEY, lease_key
from database.redis_link import Link


class Leases:
    """The leases of one consumer."""

    def __init__(self, link: Link, consumer: str, shards: int, lifetime_s: float) -> None:
        self.held: set[int] = set()
        self._link = link
        self._consumer = consumer
        self._shards = shards
        self._lifetime_ms = int(lifetime_s * 1000)

    async def renew(self) -> set[int]:
        """Beat, renew what is held, take what is free up to our share; returns the shards held now."""
        share = ceil(self._shards / max(1, await self._beat()))
        for shard in sorted(self.held):
            if len(self.held) > share or not await self._take(shard):
                await self.release(shard)
        for shard in range(self._shards):
            if len(self.held) < share and shard not in self.held and await self._take(shard):
                self.held.add(shard)
        return set(self.held)

    async def release(self, shard: int) -> None:
        """Give a shard up, if it is ours."""
        self.held.discard(shard)
        await self._link.eval(RELEASE, 1, lease_key(shard), self._consumer)

    async def sign_off(self) -> None:
        """Give everything up and stop counting as live."""
        for shard in sorted(self.held):
            await self.release(shard)
        await self._link.zrem(AGGREGATORS_KEY, self._consumer)

    async def _take(self, shard: int) -> bool:
        return bool(await self._link.eval(RENEW, 1, lease_key(shard), self._consumer, str(self._lifetime_ms)))

    async def _beat(self) -> int:
        seconds, micros = await self._link.time()
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        given = (self._consumer, str(now_ms), str(self._lifetime_ms))
        return int(await self._link.eval(BEAT, 1, AGGREGATORS_KEY, *given))
