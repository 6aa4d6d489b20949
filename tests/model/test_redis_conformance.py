"""The simulated stream is the real one: the same commands answer the same in both.

Ids are the simulated server's; idle times are those that need no clock: any, and never.
"""

from collections.abc import Coroutine
from random import Random
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from aggregator.lua import CLAIM, PUT, RAISE, RAISE_FIELDS, TRIM, WEIGH
from contract.streams import COMMIT_KEY, FIELD, GROUP, OWNER_KEY, TALLIES_KEY, stream_key
from tests.model.redis_link import Link
from tests.model.redis_server import Server, text
from tests.model.tasks import CLOCK
from tests.servers import redis_binaries

SEQUENCES: Final = 200
STEPS: Final = 25
KEY: Final = stream_key(0)
NEVER_MS: Final = 10**9
MUCH: Final = "1000000000"
CONSUMERS: Final = ("a", "b")

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        next(iter(redis_binaries())) < "7", reason="ONLY REDIS 6.2 IS HERE: THE SIMULATED ONE ANSWERS AS 7.0 DOES"
    ),
]


def done(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run to its end what asks the simulated server and nobody else."""
    value: Any = None
    while True:
        try:
            request = coroutine.send(value)
        except StopIteration as ended:
            return ended.value
        value = request.perform()


def _command(draw: Random, server: Server) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Draw a command as the services give it."""
    consumer, count = draw.choice(CONSUMERS), draw.randint(1, 4)
    ids = [text(at).decode() for at in (*server.entries, *server.pending)] or ["0-0"]
    some, idle_ms = draw.choice(ids), draw.choice((0, NEVER_MS))
    streams = {KEY: draw.choice((">", ">", "0", some))}
    low, high = sorted((some, ids[0]))
    claim = (KEY, GROUP, consumer, idle_ms, draw.choice(("0-0", some)))
    trim = (TRIM, 1, KEY, draw.choice(("0-0", some)), draw.choice(("0", MUCH)), draw.choice(ids))
    read = ("xreadgroup", (GROUP, consumer, streams), {"count": count, "block": None})
    return draw.choice(
        (
            read,
            read,
            ("xautoclaim", claim, {"count": count}),
            ("xpending_range", (KEY, GROUP), {"min": low, "max": high, "count": count}),
            ("xrange", (KEY,), {"min": draw.choice(("-", f"({some}")), "max": "+", "count": count}),
            ("xack", (KEY, GROUP, *draw.sample(ids, min(len(ids), 2))), {}),
            ("eval", trim, {}),
            ("eval", (WEIGH, 1, KEY, GROUP, some, str(count), draw.choice(("", consumer)), str(idle_ms), MUCH), {}),
            ("eval", (RAISE, 2, COMMIT_KEY, OWNER_KEY, str(draw.randint(0, 9)), f"{draw.randint(1, 2)}/1"), {}),
            ("eval", (CLAIM, 1, OWNER_KEY, str(draw.randint(1, 2)), str(draw.randint(1, 2))), {}),
            ("eval", (PUT, 1, COMMIT_KEY, str(draw.randint(0, 9))), {}),
            ("eval", (RAISE_FIELDS, 1, TALLIES_KEY, *_numbers(draw)), {}),
            ("hgetall", (TALLIES_KEY,), {}),
            ("get", (draw.choice((COMMIT_KEY, OWNER_KEY)),), {}),
        )
    )


def _numbers(draw: Random) -> list[str]:
    return [text for name in draw.sample(("a", "b", "c"), 2) for text in (name, str(draw.randint(0, 20)))]


def _judged(name: str, arguments: tuple[Any, ...], reply: Any) -> Any:
    """Leave out what a simulated server does not know: the name of a consumer's stream, bytes, idle times."""
    if name == "xreadgroup":
        return [tuple(entry) for stream in reply for entry in stream[1]]
    if name == "xpending_range":
        return [(one["message_id"], one["times_delivered"]) for one in reply]
    if name == "eval" and arguments[0] is TRIM:
        return reply[0], reply[2], reply[3]
    if name == "xautoclaim":
        return reply[0], [tuple(entry) for entry in reply[1]], reply[2]
    return reply


async def test_the_same_commands_are_answered_the_same(redis_url: str) -> None:
    """Some hundred sequences: reads of new and own entries, claims, acknowledgements, trims."""
    async with Redis.from_url(redis_url, protocol=2, socket_timeout=10) as real:
        for sequence in range(SEQUENCES):
            await real.flushall()
            await _compare(real, Random(sequence), sequence)


async def _compare(real: Any, draw: Random, sequence: int) -> None:
    server = Server()
    link = Link(server)
    for each in (real, link):
        made = each.xgroup_create(KEY, GROUP, id="0", mkstream=True)
        await made if each is real else done(made)
    for step in range(STEPS):
        if draw.random() < 0.4:
            CLOCK.now += draw.choice((0.0, 0.001, 5.0))
            data = b"entry %d" % step
            at = server.call("xadd", data)
            await real.xadd(KEY, {FIELD: data}, id=at)
            continue
        name, arguments, options = _command(draw, server)
        expected = _judged(name, arguments, await getattr(real, name)(*arguments, **options))
        found = _judged(name, arguments, done(getattr(link, name)(*arguments, **options)))
        assert found == expected, f"sequence {sequence}, step {step}: {name} {arguments[2:]} {options}"
