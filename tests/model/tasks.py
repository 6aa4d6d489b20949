"""Tasks: the coroutines of the services, each held at its next I/O until somebody chooses it.

In: coroutines as production has them. Out: `Task.request`, what a task waits for, and `Task.resume`.
Promise: between two requests a task runs alone and without interruption; time is what the world says it is.
"""

import asyncio
import types
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from math import inf
from typing import Any, Final, Self


class Killed(BaseException):
    """The process ends here, as by kill -9."""


class Clock:
    """Virtual time, seconds. Stands for the module `time` where production imports it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now

    time = perf_counter = monotonic


CLOCK: Final = Clock()
"""One for the worlds of this process, which live one after another."""


BLOCKED: Final = object()
"""What `perform` returns when the task has to wait after all."""


class Request:
    """What a task waits for."""

    label = 0
    """Tells requests apart when states are counted."""
    can_break = False
    """Whether it goes by a connection, on which it may arrive after its sender has died."""
    wake = 0.0
    """When the task can go on at the latest; 0.0: now."""
    holds: Callable[[], bool] | None = None
    """If it holds, the task can go on earlier."""

    def is_ready(self) -> bool:
        """Whether the task can go on."""
        return self.wake <= CLOCK.now or (self.holds is not None and self.holds())

    def perform(self) -> Any:
        """Do it."""

    def broken(self) -> Exception:
        """Break the connection it goes by; returns what the task is told."""
        raise AssertionError("BUG: it goes by no connection")

    def text(self) -> str:
        """Say what is asked for."""
        return "time or its own process"


class Sleep(Request):
    """Waits for a time."""

    label = 1

    def __init__(self, seconds: float) -> None:
        self.wake = CLOCK.now + seconds


class Gate(Sleep):
    """Waits for a condition inside the process."""

    label = 2

    def __init__(self, holds: Callable[[], bool], at_most_s: float = inf) -> None:
        super().__init__(at_most_s)
        self.holds = holds


class Failed(Sleep):
    """What was waited for failed; the task has not heard of it yet."""

    label = 5

    def __init__(self, error: Exception) -> None:
        super().__init__(0.0)
        self._error = error

    def perform(self) -> Any:
        """Tell."""
        raise self._error


@types.coroutine
def ask(request: Request) -> Generator[Request, Any, Any]:
    """Wait for a request."""
    return (yield request)


class Process:
    """What is killed or stopped as one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.stopped_until = 0.0
        self.tasks: list[Task] = []
        self.sessions: list[Any] = []
        """Its connections to PostgreSQL."""

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> "Task":
        """Begin a task; it runs up to its first request."""
        task = Task(f"{self.name}.{name}", self, coroutine)
        self.tasks.append(task)
        task.resume()
        return task


class Task:
    """One coroutine and the request it waits for; None: it has ended."""

    __slots__ = ("_coroutine", "error", "name", "process", "request")

    current: "Task | None" = None
    """The one that runs."""

    def __init__(self, name: str, process: Process, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.name = name
        self.process = process
        self.request: Request | None = None
        self.error: Exception | None = None
        """What nobody caught."""
        self._coroutine = coroutine

    def resume(self, value: Any = None, error: BaseException | None = None) -> None:
        """Go on to the next request."""
        outer, Task.current = Task.current, self
        try:
            self.request = self._coroutine.throw(error) if error is not None else self._coroutine.send(value)
        except StopIteration:
            self.request = None
        except Exception as failed:  # noqa: BLE001 - the world judges it
            self.request, self.error = None, failed
        finally:
            Task.current = outer

    def close(self) -> None:
        """Forget it; its `finally` blocks do not reach a server, for they get no answer."""
        self.request = None
        coroutine = self._coroutine
        # A killed process runs nothing; Python would run `finally` blocks, and those may ask again.
        for _ in range(20):
            try:
                coroutine.throw(Killed())
            except BaseException:  # noqa: BLE001
                return


class Queue:
    """As asyncio.Queue."""

    def __init__(self, maxsize: int = 1) -> None:
        self._size = maxsize
        self._items: list[Any] = []

    def __class_getitem__(cls, item: Any) -> type[Self]:
        return cls

    async def put(self, item: Any) -> None:
        """Add, once there is room."""
        if len(self._items) >= self._size:
            await ask(Gate(lambda: len(self._items) < self._size))
        self._items.append(item)

    async def get(self) -> Any:
        """Take, once there is something."""
        if not self._items:
            await ask(Gate(lambda: bool(self._items)))
        return self._items.pop(0)


class TaskGroup:
    """As asyncio.TaskGroup; its tasks belong to the process that opened it, and go on until that ends."""

    async def __aenter__(self) -> Self:
        return self

    def create_task(self, coroutine: Coroutine[Any, Any, Any], *, name: str) -> None:
        """Begin a task."""
        create_task(coroutine, name=name)

    async def __aexit__(self, *_: object) -> None:
        await ask(Sleep(inf))


async def sleep(seconds: float) -> None:
    """As asyncio.sleep."""
    await ask(Sleep(seconds))


async def wait_for(awaitable: Coroutine[Any, Any, Any], timeout: float) -> None:
    """As asyncio.wait_for, for something that does not happen."""
    awaitable.close()
    await ask(Sleep(timeout))
    raise TimeoutError


class Lock:
    """As asyncio.Lock."""

    def __init__(self) -> None:
        self._is_held = False

    async def __aenter__(self) -> None:
        if self._is_held:
            await ask(Gate(lambda: not self._is_held))
        self._is_held = True

    async def __aexit__(self, *_: object) -> None:
        self._is_held = False


class Condition(Lock):
    """As asyncio.Condition, for one task that waits at a time."""

    async def wait_for(self, holds: Callable[[], bool]) -> None:
        """Let others in until it holds."""
        while not holds():
            self._is_held = False
            await ask(Gate(lambda: holds() and not self._is_held))
            self._is_held = True

    def notify_all(self) -> None:
        """Whoever waits looks for itself."""


@asynccontextmanager
async def timeout(seconds: float) -> AsyncGenerator[None]:
    """As asyncio.timeout, around what ends by itself: every wait of the simulated servers does."""
    yield


def create_task(coroutine: Coroutine[Any, Any, Any], *, name: str) -> Task:
    """As asyncio.create_task; it belongs to the process that runs."""
    assert Task.current is not None
    return Task.current.process.spawn(name.rpartition(" ")[2], coroutine)


class _Loop:
    """The running loop as the services use it."""

    time = CLOCK.monotonic

    async def run_in_executor(self, _: Any, work: Callable[..., Any], *arguments: Any) -> Any:
        """Do pure work: nobody can tell in which thread."""
        return work(*arguments)


ASYNCIO: Final = types.SimpleNamespace(
    Queue=Queue,
    TaskGroup=TaskGroup,
    Event=asyncio.Event,
    Lock=Lock,
    Condition=Condition,
    timeout=timeout,
    create_task=create_task,
    sleep=sleep,
    wait_for=wait_for,
    get_running_loop=_Loop,
)
"""Stands for the module `asyncio` where production imports it."""
