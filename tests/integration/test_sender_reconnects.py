"""The sender at the edges: a connection that ends while nothing is sent, a stop while Redis asks to hold back."""

import threading

import redis

from contract.streams import full_key, stream_key
from producers.clock import Clock
from producers.seal import Sealed
from producers.sender import Outbox, Sender
from producers.settings import Settings
from streamgauge.embedded import RedisServer
from tests.batches import make_batch

PRODUCER = bytes(16)


def test_a_restart_between_two_batches_is_noticed(redis_url: str, redis_server: RedisServer) -> None:
    """What was acknowledged lately is sent again, though no command of the producer ever failed."""
    outbox = Outbox()
    sender = Sender(Settings(redis_url=redis_url, shards=1), outbox, Clock(), PRODUCER)
    outbox.put(Sealed(1, 2, make_batch(PRODUCER, 1, counters={b"a_total": (2, 2.0)})))
    sender._attempt()  # pyright: ignore[reportPrivateUsage]
    assert not outbox.waiting
    redis_server.kill()
    redis_server.open()
    for seq in (2, 3):
        outbox.put(Sealed(seq, 2, make_batch(PRODUCER, seq, counters={b"a_total": (2, 2.0)}, accepted=2 * seq)))
        for _ in range(2):
            sender._attempt()  # pyright: ignore[reportPrivateUsage]
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        assert client.xlen(stream_key(0)) == 4, "the first one twice, the others once"
    sender.stop()
    sender.run()


def test_a_stop_while_held_back_sends_what_waits_when_it_may(redis_url: str) -> None:
    """The owner's deadline decides how long to wait for that, not the flag."""
    outbox = Outbox()
    sender = Sender(Settings(redis_url=redis_url, shards=1), outbox, Clock(), PRODUCER)
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        client.set(full_key(0), 1)
        sender._attempt()  # pyright: ignore[reportPrivateUsage]
        assert outbox.held
        outbox.put(Sealed(1, 2, make_batch(PRODUCER, 1, counters={b"a_total": (2, 2.0)})))
        sender.stop()
        running = threading.Thread(target=sender.run)
        running.start()
        running.join(0.5)
        assert running.is_alive() and not client.exists(stream_key(0))
        client.delete(full_key(0))
        running.join(10)
        assert not running.is_alive() and client.xlen(stream_key(0)) == 1
