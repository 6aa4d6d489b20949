"""Emitting: producers of a world, of production's own drainer, sealer, outbox and sender.

In: how often to flush. Out: batches on their way, the same bytes until they are acknowledged. Promise: what is sealed,
sent again and forgotten is decided by production code; a round trip to Redis is one step.
"""

from types import SimpleNamespace
from typing import Any, Final, cast

from redis.exceptions import ConnectionError as Closed
from redis.exceptions import RedisError

from producers.clock import Clock
from producers.drainer import Drainer
from producers.metrics import Child, Counter, Histogram, Registry
from producers.seal import Sealed, Sealer
from producers.sender import Outbox, Sender
from producers.settings import Settings
from tests.model.here import Here, World
from tests.model.redis_server import EPOCH_MS
from tests.model.tasks import CLOCK, Gate, Process, Request, ask, sleep

FLUSH_S: Final = 0.25


def _ignore(_: object) -> None:
    """Nothing is registered, and nothing is given back."""


class ContentClock(Clock):
    """The time that batches carry. It goes on with each flush alone, so that equal batches recur in other schedules."""

    def __init__(self) -> None:
        super().__init__()
        self.flushes = 0
        self._offset_s: float | None = None

    def measured(self, sent_s: float, redis_ms: float, received_s: float) -> None:
        """Learn how far Redis' clock was set."""
        self._offset_s = round((redis_ms - EPOCH_MS) / 1000 - CLOCK.now)

    def is_measured(self) -> bool:
        """Whether Redis was asked."""
        return self._offset_s is not None

    def now_ms(self) -> int:
        """Return the time of this flush."""
        return EPOCH_MS + int(((self._offset_s or 0) + FLUSH_S * self.flushes) * 1000)

    def offset_us(self) -> int:
        """Of no account."""
        return 0

    def uncertainty_us(self) -> int:
        """Of no account."""
        return 0


class _Stopping:
    """The sender's event: waiting for it is told to the task, which sleeps."""

    def __init__(self) -> None:
        self.waited_s = 0.0

    def wait(self, seconds: float) -> None:
        """Note how long to pause."""
        self.waited_s = seconds

    def is_set(self) -> bool:
        """It is never stopped, only killed."""
        return False


class _Sender(Sender):
    """A sender whose world hears what it takes for acknowledged."""

    pause: _Stopping

    def attempt(self, pause: _Stopping) -> None:
        """One round of `run`."""
        self._stopping = cast("Any", pause)
        self._attempt()

    def _acknowledge(self, sealed: Sealed) -> None:
        super()._acknowledge(sealed)
        Here.world.acknowledged(self._producer_id, sealed)


class Attempt(Request):
    """One attempt to send what waits: Redis executes it when it is chosen."""

    can_break = True

    def __init__(self, producer: "Producer") -> None:
        self.producer = producer
        self.label = hash(tuple(sealed.seq for sealed in producer.outbox.waiting))

    def perform(self) -> None:
        """Try."""
        self.producer.sender.attempt(self.producer.pause)

    def text(self) -> str:
        """Say what waits."""
        return f"XADD of seqs {[sealed.seq for sealed in self.producer.outbox.waiting]}"

    def broken(self) -> Exception:
        """A sender breaks by what its link is told beforehand."""
        raise AssertionError("BUG: a sender is spoilt by its link")


class Producer:
    """One life of one emitting process."""

    def __init__(self, name: str, life: int, flushes: int, settings: Settings, *, poison: bool = False) -> None:
        self.process = Process(name)
        self.id = f"{name}.{life}".encode().ljust(16, b"\0")
        self.outbox = Outbox()
        self.clock = ContentClock()
        self.drainer = Drainer(Sealer(self.clock, "model", None, self.id), self.clock)
        self.sender = _Sender(settings, self.outbox, self.clock, self.id)
        self.pause = _Stopping()
        self.is_over = False
        """Set when it is to say farewell."""
        self.has_ended = False
        self._number = int(name[1:])
        self._flushes = flushes
        self._poison = poison
        self._registry = Registry()
        self._events = Counter("events", "", ["of"], registry=self._registry)
        self._seconds = Histogram("work_seconds", "", buckets=(1.0,), registry=self._registry)
        self._odd = Counter("poison", "", registry=self._registry)
        self.process.spawn("flush", self._flush())
        self.process.spawn("send", self._send())

    def _emit(self) -> None:
        at = self.clock.flushes
        self._note(self._events.labels(str(at // 3)), 1.0)
        if self._number == 0 and at % 2:
            self._note(self._seconds.labels(), 0.5 if at % 4 == 1 else 2.0)
        if self._poison and at == 3:
            self._note(self._odd.labels(), 1.0)

    def _note(self, child: Child, value: float) -> None:
        child.values.append(value)
        Here.world.emitted(child.key)

    async def _flush(self) -> None:
        await ask(Gate(self.clock.is_measured))
        while not self.is_over:
            if self.clock.flushes < self._flushes:
                self._emit()
                self._tick()
            await ask(Gate(lambda: self.is_over, FLUSH_S if self.clock.flushes < self._flushes else 5.0))
        while self.drainer.has_pending():
            await ask(Gate(lambda: self.outbox.slots() > 0))
            self._tick()
        await ask(Gate(lambda: self.outbox.slots() > 0))
        self.put(self.drainer.sealer.fin(self.clock.now_ms()))
        self.has_ended = True

    def _tick(self) -> None:
        for sealed in self.drainer.tick(self._registry.children, self.outbox.slots()):
            self.put(sealed)
        self.clock.flushes += 1

    def put(self, sealed: Sealed) -> None:
        """Hand a batch to the sender."""
        Here.world.sealed(self.id, sealed)
        self.outbox.put(sealed)

    async def _send(self) -> None:
        while True:
            if not self.outbox.waiting and not self.outbox.held and self.clock.is_measured():
                await ask(Gate(lambda: bool(self.outbox.waiting)))
                continue
            self.pause.waited_s = 0.0
            await ask(Attempt(self))
            if self.pause.waited_s:
                await sleep(self.pause.waited_s)


class SenderLink:
    """A sender's connection: it breaks as the world says, and when Redis becomes another process."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._run_id = world.redis.run_id
        self.connection_pool = SimpleNamespace(
            get_connection=lambda: SimpleNamespace(register_connect_callback=_ignore), release=_ignore
        )

    def call(self, name: str, *arguments: Any) -> Any:
        """Execute one command."""
        redis = self.world.redis
        if redis.run_id != self._run_id:
            raise Closed("closed")
        return redis.call(name, *arguments)

    def get(self, key: str) -> bytes | None:
        """GET."""
        return self.call("get", key)

    def set(self, key: str, value: Any, *, nx: bool) -> Any:
        """SET."""
        return self.call("set", key, value, nx)

    def info(self, section: str) -> dict[str, Any]:
        """Return who the server is."""
        self.call("time")
        return {"run_id" if section == "server" else "master_replid": self._run_id}

    def time(self) -> tuple[int, int]:
        """TIME."""
        return self.call("time")

    def pipeline(self, *, transaction: bool) -> "_Pipeline":
        """Collect commands."""
        return _Pipeline(self)

    def close(self) -> None:
        """Nothing is kept."""


class _Pipeline:
    def __init__(self, link: SenderLink) -> None:
        self._link = link
        self._commands: list[tuple[Any, ...]] = []

    def execute_command(self, *command: Any) -> None:
        """Add one."""
        self._commands.append(command)

    def execute(self, *, raise_on_error: bool) -> list[Any]:
        """Send them all; errors stand in their places."""
        world = self._link.world
        cut, world.cut_after = world.cut_after, None
        replies = [self._reply(command) for command in self._commands[:cut]]
        if cut is not None:
            raise Closed("closed")
        return replies

    def _reply(self, command: tuple[Any, ...]) -> Any:
        try:
            if command[0] == "GET":
                return self._link.call("get", command[1])
            return self._link.call("xadd", command[-1])
        except Closed:
            raise
        except RedisError as error:
            return error
