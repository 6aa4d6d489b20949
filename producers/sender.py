"""Sender: puts sealed batches into the stream, the same bytes until Redis acknowledged them.

In: the outbox. Out: stream entries. Owns the socket; no lock is held while it waits for Redis.
Promise: a batch leaves the outbox only when XADD was answered with an id; what was acknowledged in the last two
seconds is sent again when Redis turns out to be another process (an AOF of `everysec` may have lost it); while
Redis asks to hold back, nothing is sent.
"""

import codecs
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AskError, RedisError
from redis.exceptions import ConnectionError as Closed
from redis.retry import Retry
from redis.sentinel import Sentinel

from contract.crash import NEVER, CrashPoint
from contract.errors import error_text
from contract.redis_url import parse_redis_url, shown_redis_url, without_passwords
from contract.streams import FIELD, MAX_SHARDS, SHARD_COUNT_KEY, full_key, shard_of, stream_key
from producers.clock import Clock
from producers.cluster import ask, open_master, open_node
from producers.estate import RESEND_S, Estates
from producers.event_log import EventLog
from producers.seal import Sealed
from producers.settings import Settings, SettingsError

if TYPE_CHECKING:
    Link = Any  # redis-py types every reply as bytes or str; here replies are bytes
else:
    Link = Redis

log = EventLog(__name__)

MAX_WAITING: Final = 4
SENTINEL_TIMEOUT_S: Final = 0.5
CLOCK_INTERVAL_S: Final = 60.0
CLOCK_ROUNDS: Final = 5
HELD_PAUSE_S: Final = 0.5
MIN_PAUSE_S: Final = 0.05
MAX_PAUSE_S: Final = 1.0
COMPLAIN_INTERVAL_S: Final = 60.0
LOOK_INTERVAL_S: Final = 15.0
"""How often to look for what dead producers left in the spool."""


class Outbox:
    """Sealed batches on their way. The drainer appends, the sender removes; deques need no lock for that."""

    def __init__(self) -> None:
        self.waiting: deque[Sealed] = deque()
        self.acknowledged: deque[tuple[float, Sealed]] = deque()
        self.changed = threading.Event()
        self.freed = threading.Event()
        """A batch was acknowledged since this was cleared."""
        self.held = False
        """Redis asks to hold back."""

    def slots(self) -> int:
        """Return how many batches may be sealed now."""
        return 0 if self.held else MAX_WAITING - len(self.waiting)

    def put(self, sealed: Sealed) -> None:
        """Hand a batch to the sender."""
        self.waiting.append(sealed)
        self.changed.set()


class Sender:
    """Sends one producer's batches. `run` is a thread's body."""

    def __init__(
        self,
        settings: Settings,
        outbox: Outbox,
        clock: Clock,
        producer_id: bytes,
        crash: CrashPoint = NEVER,
        release: Callable[[Sealed], None] | None = None,
    ) -> None:
        self.sent = 0
        self.connected = False
        self._settings = settings
        self._outbox = outbox
        self._clock = clock
        self._producer_id = producer_id
        self._crash = crash
        self._release = release or _forget
        self.estates = Estates(Path(settings.spool_dir or "."), clock)
        self._look_at = 0.0
        self._shard_count = 0
        self._link: Link | None = None
        self._server: bytes | None = None
        self._shard = 0
        self._clock_at = 0.0
        self._pause_s = MIN_PAUSE_S
        self._complain_at = 0.0
        self._error = ""
        """What the last attempt met, as a text; empty: nothing."""
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End after what waits was sent; the owner's deadline decides how long that may take."""
        self._stopping.set()
        self._outbox.changed.set()

    def run(self) -> None:
        """Send until stopped and nothing waits."""
        while True:
            if self._stopping.is_set() and not self._outbox.waiting:
                break
            # Before the clock is measured nothing is sealed: that is what the first connection is for.
            if not self._outbox.waiting and not self._outbox.held and self._clock.is_measured():
                self._outbox.changed.wait(1.0)
                self._outbox.changed.clear()
                continue
            self._attempt()
        self._disconnect()

    def _attempt(self) -> None:
        try:
            link = self._link or self._connect()
            self._send(link)
            self._pause_s = MIN_PAUSE_S
            self._error = ""
        except Exception as error:
            # Also a bug of ours: bound children never look at the threads, so this one may not die.
            self._error = without_passwords(error_text(error), self._settings.redis_url)
            if not isinstance(error, RedisError | OSError):
                log.exception("send_failed")
            elif self.connected or time.monotonic() >= self._complain_at:
                self._complain_at = time.monotonic() + COMPLAIN_INTERVAL_S
                log.warning("redis_refuses_or_is_away", extra=self.standing())
            self._disconnect()
            self._pause(self._pause_s)
            self._pause_s = min(self._pause_s * 2, MAX_PAUSE_S)

    def standing(self) -> dict[str, Any]:
        """Return, for a log: which Redis is meant, what the last attempt met, how many batches wait."""
        told: dict[str, Any] = {
            "redis": shown_redis_url(self._settings.redis_url),
            "error": self._error,
            "batches_waiting": len(self._outbox.waiting),
        }
        if self._server is None:
            told["try"] = "check REDIS_URL"
        return told

    def _send(self, link: Link) -> None:
        if time.monotonic() - self._clock_at > CLOCK_INTERVAL_S:
            self._measure_clock(link)
        batches = [] if self._outbox.held else list(self._outbox.waiting)
        stream = stream_key(self._shard)
        commands: list[tuple[Any, ...]] = [("GET", full_key(self._shard))]
        commands += [("XADD", stream, "*", FIELD, sealed.data) for sealed in batches]
        if batches:
            self._crash.reach("before_send")
        flag, *replies = self._run(link, commands)
        if batches:
            self._crash.reach("after_send")
        failed = next((r for r in (flag, *replies) if isinstance(r, Exception)), None)
        for sealed, reply in zip(batches, replies, strict=True):
            if not isinstance(reply, Exception):
                self._acknowledge(sealed)
                self._crash.reach("after_acknowledged")
        self._outbox.held = flag is not None and not isinstance(flag, Exception)
        if failed is not None:
            raise failed
        if self._settings.spool_dir and time.monotonic() >= self._look_at and not self._stopping.is_set():
            self._look_at = time.monotonic() + LOOK_INTERVAL_S
            self.estates.settle(self._deliver)
            if self.estates.delivered:
                self._look_at = time.monotonic() + RESEND_S
        if self._outbox.held:
            self._pause(HELD_PAUSE_S)

    def _pause(self, seconds: float) -> None:
        """Wait; a stop is told at once, and after it pauses are short: little time is left."""
        if self._stopping.is_set():
            time.sleep(MIN_PAUSE_S)
        else:
            self._stopping.wait(seconds)

    def _deliver(self, producer_id: bytes, batches: Sequence[bytes]) -> bytes | None:
        """Send a dead producer's batches to the shard it kept to, and say to whom; None: Redis asks to hold back."""
        shard = shard_of(producer_id, self._shard_count)
        with open_link(self._settings, stream_key(shard)) as link:
            for at in range(0, len(batches), MAX_WAITING):
                some = batches[at : at + MAX_WAITING]
                flag, *_ = self._expect(link, [("GET", full_key(shard))])
                if flag is not None:
                    return None
                self._expect(link, [("XADD", stream_key(shard), "*", FIELD, data) for data in some])
            return _server(link)

    def _expect(self, link: Link, commands: Sequence[Sequence[Any]]) -> list[Any]:
        replies = self._run(link, commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    def _run(self, link: Link, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands in one round trip; errors stand in their replies' places."""
        pipeline = link.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies = pipeline.execute(raise_on_error=False)
        options = client_options(self._settings)
        return [
            ask(reply, link, options, command) if isinstance(reply, AskError) else reply
            for command, reply in zip(commands, replies, strict=True)
        ]

    def _acknowledge(self, sealed: Sealed) -> None:
        self._outbox.waiting.remove(sealed)
        self._outbox.freed.set()
        self.sent += 1
        now = time.monotonic()
        ring = self._outbox.acknowledged
        ring.append((now, sealed))
        while ring and now - ring[0][0] > RESEND_S:
            self._release(ring.popleft()[1])

    def _connect(self) -> Link:
        settings = self._settings
        link = open_link(settings, SHARD_COUNT_KEY)
        try:
            self._shard_count = self._shards(link)
            self._shard = shard_of(self._producer_id, self._shard_count)
            link = _move(settings, link, stream_key(self._shard))
            server = _server(link)
            self._measure_clock(link)
            self._watch(link)
        except BaseException:
            link.close()
            raise
        if self._server is not None and server != self._server:
            self._send_again()
        self._server = server
        self._link, self.connected = link, True
        return link

    def _watch(self, link: Link) -> None:
        """Make a connection that was closed while it was idle an error.

        redis-py's pool would open it anew without a word, and nobody would look whether it is another server by now.
        """
        connection = link.connection_pool.get_connection()
        connection.register_connect_callback(self._refuse)
        link.connection_pool.release(connection)

    def _refuse(self, connection: object) -> None:
        raise Closed("the connection was closed while it was idle")

    def _shards(self, link: Link) -> int:
        # Read first: a user that may only send is refused the SET, which only the very first one needs.
        stored = link.get(SHARD_COUNT_KEY)
        if stored is None:
            link.set(SHARD_COUNT_KEY, self._settings.shards, nx=True)
            stored = link.get(SHARD_COUNT_KEY)
        count = int(stored or self._settings.shards)
        return count if 1 <= count <= MAX_SHARDS else self._settings.shards

    def _send_again(self) -> None:
        """Queue what was acknowledged lately, oldest first, before what waits."""
        ring = self._outbox.acknowledged
        recent = [sealed for _, sealed in ring]
        ring.clear()
        log.warning("redis_changed", extra={"batches_sent_again": len(recent)})
        self._outbox.waiting.extendleft(reversed(recent))

    def _measure_clock(self, link: Link) -> None:
        rounds: list[tuple[float, float, float]] = []
        for _ in range(CLOCK_ROUNDS):
            sent = time.monotonic()
            seconds, micros = link.time()
            rounds.append((sent, int(seconds) * 1000 + int(micros) / 1000, time.monotonic()))
        self._clock.measured(*min(rounds, key=lambda r: r[2] - r[0]))
        self._clock_at = time.monotonic()

    def _disconnect(self) -> None:
        link, self._link, self.connected = self._link, None, False
        if link is not None:
            try:
                link.close()
            except (RedisError, OSError):
                return


def _server(link: Link) -> bytes:
    """Return which server it is: another one once it was restarted, or another one became master."""
    info = cast("dict[str, Any]", link.info("server")) | cast("dict[str, Any]", link.info("replication"))
    return f"{info.get('run_id')}/{info.get('master_replid')}".encode()


def _forget(sealed: Sealed) -> None:
    """Nobody keeps what is acknowledged."""


def load_client(settings: Settings) -> None:
    """Load in the caller's thread what the first connect would import, without I/O; SettingsError as `open_link`.

    A fork amid an import by another thread leaves its lock taken in the child, for ever.
    """
    codecs.lookup("idna")
    link = open_link(settings)
    link.connection_pool.make_connection()
    link.close()


def client_options(settings: Settings) -> dict[str, Any]:
    """Return the options of a client that never sends a command twice by itself."""
    return {
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": settings.redis_timeout_s,
        "socket_connect_timeout": settings.redis_timeout_s,
        "health_check_interval": 0,
    }


def open_link(settings: Settings, key: str | None = None) -> Link:
    """Open a client of the server that serves a key (SettingsError: the URL is none).

    Of a cluster: asks its nodes who that is; without a key it is the first node named, and nothing is asked.
    """
    options = client_options(settings)
    try:
        address = parse_redis_url(settings.redis_url)
        if not address.sentinels and not address.nodes:
            return Redis.from_url(settings.redis_url, **options)
    except ValueError as error:
        raise SettingsError(f"REDIS_URL: {error}") from None
    access: dict[str, Any] = {"db": address.db, "username": address.username, "password": address.password}
    if address.nodes:
        options |= access
        return open_master(address.nodes, options, key) if key else open_node(address.nodes[0], options)
    # Sentinels answer at once or are skipped; without this each is asked ten times before the next.
    of_sentinels = {**options, "socket_timeout": SENTINEL_TIMEOUT_S, "socket_connect_timeout": SENTINEL_TIMEOUT_S}
    sentinel = Sentinel(address.sentinels, sentinel_kwargs=of_sentinels | address.sentinel_access)
    return sentinel.master_for(address.master, **options, **access)


def _move(settings: Settings, link: Link, key: str) -> Link:
    """Return the client of the server that serves a key: in a cluster another one, and the given one is closed."""
    if not parse_redis_url(settings.redis_url).nodes:
        return link
    link.close()
    return open_link(settings, key)
