"""Actions: what can be chosen at a step, somebody's next I/O or a fault; each may find nothing to do.

In: tuples of names and numbers. Out: the world moved on. Promise: an action that does not apply changes nothing, so
that a schedule from which some were dropped is a schedule; `heal` ends every fault.
"""

from typing import Any, Final

import asyncpg

from tests.model.emitting import Attempt, Producer
from tests.model.redis_link import Call as RedisCall
from tests.model.sessions import Call
from tests.model.tasks import BLOCKED, CLOCK, Failed, Process, Request, Task
from tests.model.world import ALL, Living

Action = tuple[Any, ...]
ERRORS: Final = (
    asyncpg.SerializationError,
    asyncpg.DiskFullError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
)
"""What PostgreSQL may say to any statement, for reasons of its own."""
FRESH_S: Final = 1.5
"""The append-only file lacks nothing older when power fails."""


class Simulation(Living):
    """One world, and what may be done to it."""

    def act(self, action: Action) -> bool:
        """Do one; False: there was nothing to do."""
        done: bool = getattr(self, f"_do_{action[0]}")(*action[1:])
        self._ready = None
        return done

    # For whom there is something to do

    def breakable(self) -> list[str]:
        """Name the tasks whose request goes by a connection."""
        return [task.name for task in self.ready() if task.request is not None and task.request.can_break]

    def commits(self) -> list[str]:
        """Name the tasks that ask for the COMMIT of a sound transaction."""
        return [task.name for task in self.ready() if isinstance(task.request, Call) and task.request.may_abort()]

    def waits_for_standby(self) -> bool:
        """Whether a COMMIT waits for the synchronous standby."""
        return any(session.waits_for_standby() for session in self.store.sessions)

    def _breakable(self, name: str) -> tuple[Task, Request] | None:
        task = self.find(name)
        if task is None or task.request is None or not task.request.can_break:
            return None
        return task, task.request

    # Going on

    def _do_run(self, name: str) -> bool:
        task = self.find(name)
        if task is None:
            return False
        self.perform(task)
        return True

    def _do_wait(self) -> bool:
        self.wait()
        return True

    def _do_time(self, seconds: float) -> bool:
        self.advance(seconds)
        return True

    # Connections

    def _do_cut(self, name: str, commands: int) -> bool:
        """What a task asks for does not arrive; a pipeline breaks after some commands."""
        found = self._breakable(name)
        if found is None:
            return False
        task, request = found
        if isinstance(request, Attempt):
            self.cut_after = commands
            self.perform(task)
        else:
            self.resume(task, error=request.broken())
        return True

    def _do_lose(self, name: str) -> bool:
        """What a task asks for is done, and the answer is lost."""
        found = self._breakable(name)
        if found is None:
            return False
        task, request = found
        is_pipeline = isinstance(request, Attempt)
        self.cut_after = ALL if is_pipeline else None
        self.perform(task, is_lost=not is_pipeline)
        return True

    def _do_late(self, which: int) -> bool:
        """A request of a dead process arrives."""
        return self.arrive(which)

    # Processes

    def _do_kill(self, name: str, mode: int) -> bool:
        """Kill -9. What it had asked for: 0 is gone, 1 arrives later; 2: its host is gone, PostgreSQL is not told."""
        service = self.services.get(name)
        if service is None or not service.process.is_alive or (isinstance(service, Producer) and service.has_ended):
            return False
        process = service.process
        process.is_alive = False
        asked = [task.request for task in process.tasks if task.request is not None]
        self.late += [(process, request) for request in asked if _arrives(request, mode)]
        at_work = {request.session for _, request in self.late if isinstance(request, Call)}
        for session in process.sessions:
            session.has_client = False
        for task in process.tasks:
            task.close()
        for session in process.sessions:
            if session not in at_work and mode != 2:
                session.end()
        if isinstance(service, Producer):
            self.oracle.dead.add(service.id)
        return True

    def _do_die(self, name: str) -> bool:
        """What a task asks for is done; its process is killed before it hears of it."""
        task = self.find(name)
        if task is None or task.request is None:
            return False
        self.cut_after = ALL if isinstance(task.request, Attempt) else None
        if self.execute(task.request) is not BLOCKED:
            task.request = None
        return self._do_kill(task.process.name, 0)

    def _do_start(self, name: str) -> bool:
        """Start a service that is dead again."""
        service = self.services.get(name)
        if service is None or service.process.is_alive:
            return False
        self.begin(name)
        return True

    def _do_stop(self, name: str, seconds: float) -> bool:
        """SIGSTOP, and SIGCONT later."""
        process = self._process(name)
        if process is None:
            return False
        process.stopped_until = CLOCK.now + seconds
        return True

    def _process(self, name: str) -> Process | None:
        service = self.services.get(name)
        return service.process if service is not None and service.process.is_alive else None

    # Redis

    def _do_redis_kill(self, tail: int) -> bool:
        """Redis ends; of what its file lacks, so many effects, none is old."""
        log = self.redis.log
        least = next((i for i, (at, _) in enumerate(log) if CLOCK.now - at < FRESH_S), len(log))
        return self._lose_redis(max(least, len(log) - tail))

    def _do_redis_failover(self, tail: int) -> bool:
        """A replica that lacks so many effects, however old, takes over."""
        return self._lose_redis(len(self.redis.log) - tail)

    def _lose_redis(self, kept: int) -> bool:
        self.oracle.lost_by_redis(self.redis.come_back(kept))
        for service in self.services.values():
            for task in service.process.tasks:
                if isinstance(task.request, RedisCall):
                    task.request = Failed(task.request.broken())
        self.late = [each for each in self.late if isinstance(each[1], Call)]
        return True

    def _do_redis(self, is_up: bool) -> bool:
        """Redis cannot be reached, or can again."""
        self.redis.is_up = is_up
        return True

    def _do_redis_full(self, is_full: bool) -> bool:
        """Redis is out of memory, or no more."""
        self.redis.is_full = is_full
        return True

    def _do_redis_clock(self, seconds: float) -> bool:
        """The clock of Redis is set."""
        self.redis.offset_s += seconds
        return True

    def _do_again(self, which: int) -> bool:
        """An old batch is sent again, by whoever has it."""
        sent = [effect[2] for _, effect in self.redis.log if effect[0] == "add"]
        return bool(sent) and self._send(sent[which % len(sent)])

    def _do_junk(self, which: int) -> bool:
        """Something that is no batch is sent."""
        return self._send(b"junk-%d" % which)

    def _send(self, data: bytes) -> bool:
        if not self.redis.is_up or self.redis.is_full:
            return False
        self.redis.call("xadd", data)
        return True

    # PostgreSQL

    def _do_error(self, name: str, which: int) -> bool:
        """PostgreSQL refuses a statement for a reason of its own."""
        task = self.find(name)
        if task is None or not isinstance(task.request, Call) or task.request.statement is None:
            return False
        task.request.abort()
        self.resume(task, error=ERRORS[which % len(ERRORS)]("as told"))
        return True

    def _do_abort(self, name: str) -> bool:
        """A transaction is aborted, and whoever drives it was not told: its COMMIT is answered ROLLBACK."""
        task = self.find(name)
        if task is None or not isinstance(task.request, Call) or not task.request.may_abort():
            return False
        task.request.abort()
        return True

    def _do_cancel(self) -> bool:
        """A COMMIT's wait for the synchronous standby is cancelled."""
        for session in self.store.sessions:
            if session.waits_for_standby() and session.waiting is not None and session.waiting.commits is not None:
                session.waiting.commits.is_cancelled = True
                return True
        return False

    def _do_replicate(self, records: int) -> bool:
        """The standby flushes some more."""
        self.store.replicate(records)
        return True

    def _do_pg(self, is_up: bool) -> bool:
        """PostgreSQL ends, or recovers."""
        if is_up == self.store.is_up:
            return False
        if is_up:
            self.store.restart()
        else:
            self.store.crash()
        return True

    def _do_pg_failover(self, skip: int) -> bool:
        """The standby takes over; the old primary is gone for good."""
        if self.store.standby is None:
            return False
        self.store.fail_over(skip)
        self.oracle.failed_over(len(self.store.wal))
        return True

    def _do_pg_backend(self, which: int) -> bool:
        """One session is ended."""
        if not self.store.sessions:
            return False
        self.store.sessions[which % len(self.store.sessions)].end()
        return True

    def _do_pg_clock(self, seconds: float) -> bool:
        """The clock of PostgreSQL is set."""
        self.store.offset_s += seconds
        return True

    def _do_generation(self) -> bool:
        """Cached numbers become invalid, as by `forget`: commits are excluded meanwhile."""
        if not self.store.is_up or any(s.transaction is not None and s.transaction.shares for s in self.store.sessions):
            return False
        self.store.change_generation()
        return True

    def heal(self) -> None:
        """End every fault; who is dead is started again, but for producers, and these say farewell."""
        self.redis.is_up, self.redis.is_full = True, False
        self._do_pg(True)
        del self.services["x0"]
        for name, service in tuple(self.services.items()):
            service.process.stopped_until = 0.0
            if isinstance(service, Producer):
                service.is_over = True
            elif not service.process.is_alive:
                self.begin(name)
        while self.late:
            self.store.replicate(ALL)
            if not self.arrive(0):
                self.advance(1.0)


def _arrives(request: Request, mode: int) -> bool:
    """Whether a server gets, or has, a request of a process that is dead."""
    is_at_work = isinstance(request, Call) and request.statement is None
    is_sent = request.can_break and not isinstance(request, Attempt)
    return is_at_work or (mode == 1 and is_sent)
