"""The supervisor of `up`, with small programs in the place of the services."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import asyncpg
import psutil
import pytest

from database.queries import load
from streamgauge import supervisor
from streamgauge.processes import Known, StartError, wait_until
from streamgauge.stack import Ports, Service
from streamgauge.state import StateFile, UpState, read_state
from streamgauge.supervisor import ChildDied, Supervisor

GOOD = """
import pathlib, signal, sys, time
def end(*_):
    with open(sys.argv[1], "a") as order: order.write(sys.argv[2] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
pathlib.Path(sys.argv[3]).touch()
while True: time.sleep(1)
"""
# Dies only when the others can be asked to stop: they are started at once, not one after another.
BAD = """
import pathlib, sys, time
others = [pathlib.Path(sys.argv[3]).with_name(f"{name}.ready") for name in ("aggregator", "exporter")]
while not all(ready.exists() for ready in others): time.sleep(0.01)
sys.exit("the reason it died of")
"""
NAMES = ("aggregator", "exporter", "api", "traffic")


class Stack:
    """Programs that write down the order in which they were stopped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.code: dict[str, str] = dict.fromkeys(NAMES, GOOD)
        self.never_ready = ""

    def services(
        self, environ: Mapping[str, str], ports: Ports, dsn: str, *, with_traffic: bool, **_: bool
    ) -> list[Service]:
        return [self._service(name, environ) for name in NAMES if with_traffic or name != "traffic"]

    def _service(self, name: str, environ: Mapping[str, str]) -> Service:
        ready = self.folder / f"{name}.ready"
        command = (sys.executable, "-c", self.code[name], str(self.folder / "order"), name, str(ready))
        return Service(name, command, environ, lambda: name != self.never_ready and ready.exists(), 10.0)

    def order(self) -> list[str]:
        return (self.folder / "order").read_text().split()


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    made = Stack(tmp_path)
    monkeypatch.setattr(supervisor, "services", made.services)
    return made


@pytest.fixture
def environ(redis_url: str, dsn: str) -> dict[str, str]:
    named = {"REDIS_URL": redis_url, "POSTGRES_DSN": dsn, "STREAMGAUGE_API_PORT": "0", "STREAMGAUGE_EXPORTER_PORT": "0"}
    return {**os.environ, **named}


def run(home: Path, environ: dict[str, str], duration_s: float | None = 0.0) -> tuple[Supervisor, list[str]]:
    said: list[str] = []
    up = Supervisor(home, environ, said.append)
    up.run(duration_s, with_traffic=True, when_ready=lambda _: None)
    return up, said


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE}


def test_emitters_stop_before_the_aggregator_and_it_before_the_exporter(
    stack: Stack, environ: dict[str, str], tmp_path: Path
) -> None:
    before = children()
    run(tmp_path / "home", environ)
    assert stack.order() == ["traffic", "api", "aggregator", "exporter"]
    assert children() == before
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["logs"]


def test_dead_child_stops_everything_and_shows_its_last_lines(
    stack: Stack, environ: dict[str, str], tmp_path: Path
) -> None:
    stack.code["api"] = BAD
    before = children()
    with pytest.raises(StartError, match=r"api ended with code 1:\n +the reason it died of"):
        run(tmp_path / "home", environ)
    assert stack.order() == ["aggregator", "exporter"]
    assert children() == before


def test_child_that_dies_later_stops_everything(stack: Stack, environ: dict[str, str], tmp_path: Path) -> None:
    home = tmp_path / "home"

    def kill_exporter(up: Supervisor) -> None:
        state = read_state(home)
        assert state is not None
        os.kill(next(child.pid for child in state.children if child.name == "exporter"), signal.SIGKILL)

    with pytest.raises(ChildDied, match="exporter ended with code -9"):
        Supervisor(home, environ, lambda _: None).run(None, with_traffic=True, when_ready=kill_exporter)
    assert stack.order() == ["traffic", "api", "aggregator"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_starting_stops_what_was_started(
    stack: Stack, environ: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    stack.never_ready = "api"
    home = tmp_path / "home"

    def interrupt() -> None:
        wait_until((tmp_path / "api.ready").exists, 30)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    _, said = run(home, environ, None)
    thread.join()
    assert said[-1] == "stopping before everything was ready"
    assert stack.order() == ["api", "aggregator", "exporter"]


def test_leftovers_of_a_killed_up_are_ended_by_the_next(stack: Stack, environ: dict[str, str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    orphan = psutil.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    killed = StateFile(home)
    killed.acquire()
    killed.write(UpState(supervisor.child_of("up", orphan.pid), {}, [supervisor.child_of("api", orphan.pid)]))
    killed.abandon()
    _, said = run(home, environ)
    assert f"ending api (pid {orphan.pid}) of an earlier run" in said
    assert orphan.wait(10) == -signal.SIGTERM
    assert not Known.of(orphan.pid).is_alive()


FOUND = """INSERT INTO streamgauge.findings
    VALUES ($1, 'main', 'I5', $1, 'warn', '{}', '', '', '', 'report', '', 'open', now(), now(), 3)"""
GONE = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'streamgauge demo')"
LEFT = "SELECT to_regnamespace('streamgauge_demo') IS NOT NULL"


async def leave_demo(dsn: str) -> None:
    """What a demo makes and leaves when it is killed; while it is connected it is let alone."""
    demo = await asyncpg.connect(dsn, timeout=10, server_settings={"application_name": "streamgauge demo"})
    await demo.execute(load("demo_schema"))
    assert not await supervisor.drop_left_demo(dsn)
    demo.terminate()
    here = await asyncpg.connect(dsn, timeout=10, command_timeout=30)
    for name in ("streamgauge_demo.offers_price_again", "shop.orders_again"):
        await here.execute(FOUND, name)
    while not await here.fetchval(GONE):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    assert await here.fetchval(LEFT)
    await here.close(timeout=10)


async def look(dsn: str) -> tuple[bool, list[tuple[str, str]]]:
    here = await asyncpg.connect(dsn, timeout=10, command_timeout=30)
    found = await here.fetch("SELECT object, state FROM streamgauge.findings ORDER BY object")
    is_left = await here.fetchval(LEFT)
    await here.close(timeout=10)
    return is_left, [(row["object"], row["state"]) for row in found]


def test_a_plain_up_drops_what_a_killed_demo_left(stack: Stack, environ: dict[str, str], dsn: str) -> None:
    asyncio.run(asyncio.wait_for(leave_demo(dsn), 60))
    _, said = run(stack.folder / "home", environ)
    assert said == ["dropped the schema streamgauge_demo, which a demo that was killed had left"]
    expected = [("shop.orders_again", "open"), ("streamgauge_demo.offers_price_again", "resolved")]
    assert asyncio.run(look(dsn)) == (False, expected)
    assert run(stack.folder / "home", environ)[1] == []
