"""Settled: waits until everything that stood in the streams at a moment is committed, and windows are complete.

In: the link to Redis, the number of shards; what producers are known to lack. Out: what is still missing, in words.
Promise: entries that arrive later are not waited for, so that a busy pipeline settles too; nor is what nobody can send
any more, but it is told.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from redis.exceptions import RedisError, ResponseError

from contract.streams import GROUP, stream_key
from database.connect import Pool, acquire
from database.progress import Partial, partial_minutes, read_progress
from database.redis_link import Link

LOOK_EVERY_S: Final = 0.1
NAMED: Final = 5
"""Producers in one sentence."""


async def until_settled(link: Link, shards: int, wait_s: float) -> str | None:
    """Return None once all that the streams hold now is committed, else why that is not known after `wait_s`."""
    heads: dict[int, bytes] = {}
    try:
        async with asyncio.timeout(wait_s):
            heads = await _heads(link, shards)
            while heads := await _unsettled(link, heads):  # noqa: ASYNC110 - Redis has no event for an XACK
                await asyncio.sleep(LOOK_EVERY_S)
    except TimeoutError:
        late = ", ".join(map(str, heads)) or "all"
        return f"not everything was committed after {wait_s:g} s (shard {late})"
    except (RedisError, OSError) as error:
        return f"unknown whether everything was committed: Redis does not answer ({type(error).__name__})"
    return None


async def until_complete(pool: Pool, from_s: int, to_s: int, wait_s: float) -> Partial:
    """Return what is partial in `[from_s, to_s)`; while a live producer may complete it, `wait_s` later."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + wait_s
    while True:
        async with acquire(pool) as connection:
            found = partial_minutes(await read_progress(connection, from_s, to_s), from_s, to_s)
        if not found.may_come or loop.time() >= until_s:
            return found
        await asyncio.sleep(LOOK_EVERY_S)


def describe(partial: Partial) -> str:
    """Return what is partial as a sentence has it."""
    more = f" and {len(partial.who) - NAMED} more" if len(partial.who) > NAMED else ""
    return f"{partial.minutes} of {partial.of} minutes partial ({', '.join(partial.who[:NAMED])}{more})"


async def _heads(link: Link, shards: int) -> dict[int, bytes]:
    """Return the newest entry's id of each stream; a missing stream holds nothing to wait for."""
    found: dict[int, bytes] = {}
    for shard in range(shards):
        try:
            found[shard] = (await link.xinfo_stream(stream_key(shard)))["last-generated-id"]
        except ResponseError as error:
            if "no such key" not in str(error):
                raise
    return found


async def _unsettled(link: Link, heads: Mapping[int, bytes]) -> dict[int, bytes]:
    return {shard: head for shard, head in heads.items() if not await _is_settled(link, shard, head)}


async def _is_settled(link: Link, shard: int, head: bytes) -> bool:
    """Whether the group was given everything up to `head` and has acknowledged it."""
    key = stream_key(shard)
    groups = {group["name"]: group for group in await link.xinfo_groups(key)}
    group = groups.get(GROUP.encode())
    if group is None or _order(group["last-delivered-id"]) < _order(head):
        return False
    return not await link.xpending_range(key, GROUP, min="-", max=head, count=1)


def _order(entry_id: bytes) -> tuple[int, int]:
    ms, _, seq = entry_id.partition(b"-")
    return int(ms), int(seq)
