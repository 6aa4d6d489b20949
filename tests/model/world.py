"""One world: servers, services and the oracle, and how they go on.

In: a profile. Out: what the servers hold, which tasks can go on, a hash of the state.
Promise: the same profile and steps give the same world; `drain` ends with everything settled, or with Broken.
"""

from math import inf
from typing import Any, Final, NamedTuple

from contract.streams import DATABASE_KEY, SHARD_COUNT_KEY
from producers.seal import Sealed
from producers.settings import Settings
from tests.model.emitting import Producer
from tests.model.here import Here, World
from tests.model.oracle import Broken, Oracle
from tests.model.redis_server import ENTRY_BYTES
from tests.model.services import SETTINGS, Aggregator, Exporter
from tests.model.sessions import Call
from tests.model.statements import DIRECT, SCRAPE, SYSTEM
from tests.model.store import Session, Transaction
from tests.model.tasks import BLOCKED, CLOCK, Process, Request, Task

SENDING: Final = Settings(shards=1)
BEGIN_S: Final = 100.0
STEP_S: Final = 0.001
ALL: Final = 1_000_000
DRAIN_STEPS: Final = 6000
DRAIN_S: Final = 400.0
"""Everything must be drained within so many virtual seconds: claim time, lock time-outs and pauses fit in often."""


class Profile(NamedTuple):
    """What a world is made of."""

    aggregators: int = 2
    producers: int = 2
    flushes: int = 6
    is_synchronous: bool = False
    has_standby: bool = True
    cap_entries: int = 40
    poison: bool = False
    calm_steps: int = 0
    """How long everybody goes on in turn before anything is chosen: services start, first batches are committed."""
    ends_quietly: bool = False
    """A standby takes over once everything is drained, and nobody sends anything any more."""


class Living(World):
    """A world in which nothing goes wrong yet."""

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        CLOCK.now = BEGIN_S
        Here.world = self
        self.profile = profile
        self.oracle = Oracle(self.redis, self.store)
        # Older than whatever a fault takes: without this mark a failover of PostgreSQL cannot be noticed.
        self.redis.begin({SHARD_COUNT_KEY: b"1", DATABASE_KEY: f"{SYSTEM}/1".encode()})
        self.store.is_synchronous = profile.is_synchronous
        self.store.standby = 0 if profile.has_standby else None
        self.services: dict[str, Aggregator | Producer | Exporter] = {}
        self.late: list[tuple[Process, Request]] = []
        """Requests of dead processes that still arrive."""
        self.steps = 0
        self._lives: dict[str, int] = {}
        self._ready: list[Task] | None = None
        """What `ready` found, until something is done."""
        self._settings = SETTINGS.model_copy(update={"streamgauge_stream_max_bytes": profile.cap_entries * ENTRY_BYTES})
        for kind, number in (("a", profile.aggregators), ("p", profile.producers), ("x", 1)):
            for i in range(number):
                self.begin(f"{kind}{i}")
        for step in range(profile.calm_steps):
            if not self.take_turn(step):
                self.wait()

    def begin(self, name: str) -> None:
        """Start a service, for the first time or again."""
        life = self._lives[name] = self._lives.get(name, 0) + 1
        if name[0] == "a":
            self.services[name] = Aggregator(name, life, self._settings)
        elif name[0] == "p":
            self.services[name] = Producer(name, life, self.profile.flushes, SENDING, poison=self.profile.poison)
        else:
            self.services[name] = Exporter(name)

    # What the services say

    def sealed(self, producer_id: bytes, batch: Sealed) -> None:
        self.oracle.sealed(producer_id, batch)

    def acknowledged(self, producer_id: bytes, batch: Sealed) -> None:
        self.oracle.acknowledged(producer_id, batch)

    def served(self, totals: dict[bytes, int]) -> None:
        self.oracle.served(totals)

    def emitted(self, key: bytes) -> None:
        self.oracle.emitted[key] = self.oracle.emitted.get(key, 0) + 1

    # Looking

    def ready(self) -> list[Task]:
        """Return the tasks that can go on."""
        if self._ready is None:
            now = CLOCK.now
            # The innermost loop of all: a method call a task here would cost a third more in all.
            self._ready = [
                task
                for service in self.services.values()
                if (process := service.process).is_alive and process.stopped_until <= now
                for task in process.tasks
                if (asked := task.request) is not None
                and (asked.wake <= now or (asked.holds is not None and asked.holds()))
            ]
        return self._ready

    def find(self, name: str) -> Task | None:
        """Return a task that can go on."""
        return next((task for task in self.ready() if task.name == name), None)

    def requests(self) -> list[Request]:
        """Return what is waited for by processes that run."""
        running = [s.process for s in self.services.values() if s.process.is_alive]
        return [
            task.request
            for process in running
            if process.stopped_until <= CLOCK.now
            for task in process.tasks
            if task.request is not None
        ]

    def state(self) -> int:
        """Return a hash of servers and tasks, without times."""
        where = [task.request.label if task.request else 0 for s in self.services.values() for task in s.process.tasks]
        return hash((self.redis.hash, self.store.hash, self.redis.run_id, self.store.timeline, tuple(where)))

    # Going on

    def perform(self, task: Task, *, is_lost: bool = False) -> None:
        """Execute what a task asks for and let it go on; `is_lost`: the answer does not arrive."""
        CLOCK.now += STEP_S
        self.steps += 1
        self._ready = None
        request = task.request
        assert request is not None
        try:
            result = request.perform()
        except Broken:
            raise
        except Exception as error:  # noqa: BLE001 - the task is told, as by its client
            return self.resume(task, error=error)
        if result is BLOCKED:
            return
        if is_lost:
            self.resume(task, error=request.broken())
        else:
            self.resume(task, result)

    def resume(self, task: Task, value: Any = None, error: Exception | None = None) -> None:
        """Let a task go on; Broken if it ends by an error that nobody caught."""
        self._ready = None
        task.resume(value, error)
        if isinstance(task.error, Broken):
            raise task.error
        if task.error is not None:
            raise Broken("a service does not die", f"{task.name}: {task.error!r}") from task.error

    def arrive(self, which: int) -> bool:
        """A request of a dead process arrives; False: none can."""
        ready = [each for each in self.late if each[1].is_ready()]
        if not ready:
            return False
        chosen = ready[which % len(ready)]
        result = self.execute(chosen[1])
        if result is not BLOCKED:
            self.late.remove(chosen)
            if isinstance(chosen[1], Call):
                chosen[1].session.end()
            if isinstance(result, Session):
                result.end()
        return True

    def execute(self, request: Request) -> Any:
        """Do what is asked for; nobody is there to be told of errors."""
        self._ready = None
        try:
            return request.perform()
        except Broken:
            raise
        except Exception:  # noqa: BLE001
            return None

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        CLOCK.now += seconds
        self._ready = None
        self.store.end_idle()

    def wait(self) -> None:
        """Let time pass until somebody can go on."""
        dues = [request.wake for request in self.requests() if request.wake < inf]
        dues += [s.process.stopped_until for s in self.services.values() if s.process.stopped_until > CLOCK.now]
        self.advance(max(STEP_S, min(dues, default=CLOCK.now) - CLOCK.now))

    def take_turn(self, step: int) -> bool:
        """Let the next one go on, the standby close behind; False: nobody could."""
        self.store.replicate(ALL)
        self._ready = None
        ready = self.ready()
        if ready:
            self.perform(ready[step % len(ready)])
        return bool(ready)

    # Rest

    def drain(self) -> int:
        """Go on, everybody in turn, until nothing is left to do; returns the steps it took."""
        until = CLOCK.now + DRAIN_S
        for step in range(DRAIN_STEPS):
            if self.take_turn(step):
                continue
            if self._is_at_rest():
                return step
            self.wait()
            if CLOCK.now > until:
                break
        raise Broken("I7 drains by itself", self._describe())

    def check_rest(self) -> None:
        """What must hold once everything is drained; what would be served now is no less than what was."""
        self.oracle.check_rest()
        (row,) = DIRECT[SCRAPE](self.store, Transaction())
        self.oracle.served(row["totals"])

    def _is_at_rest(self) -> bool:
        """Whether all that was sent is settled."""
        redis, store = self.redis, self.store
        producers = [s for s in self.services.values() if isinstance(s, Producer) and s.process.is_alive]
        return (
            all(p.has_ended and not p.outbox.waiting for p in producers)
            and not redis.pending
            and redis.delivered == redis.last
            and redis.keys[DATABASE_KEY] == f"{SYSTEM}/{store.timeline}".encode()
            and not any(store.tables.get("fences", {}).values())
            and not store.locks
        )

    def _describe(self) -> str:
        redis = self.redis
        waiting = [request.text() for request in self.requests()]
        read = f"pending {sorted(redis.pending)}, read to {redis.delivered} of {redis.last}"
        return f"{read}, keys {redis.keys}, fences {self.store.tables.get('fences')}, waited for {waiting}"
