"""WebSockets of the deployment: the real nginx from our file over five replicas, started as the compose file says.

Promise: what is refused is refused before it is accepted, and who is closed is told why by a code.
"""

import asyncio
import json
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from producers.traffic import reconnect_delay_s
from streamgauge.processes import free_port, wait_until
from streamgauge.stack import answers
from tests.edge import ROOT, UPSTREAMS, Edge, lacking

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    # Redis is not needed: what replicas emit waits, and the sockets are what is looked at.
    made = Edge(tmp_path_factory.mktemp("edge"), f"redis://127.0.0.1:{free_port()}")
    with made.processes:
        made.open()
        yield made


async def receive(socket: ClientConnection) -> Any:
    """Return a message, within a deadline."""
    async with asyncio.timeout(20):
        return await socket.recv()


def names_of(refused: InvalidStatus) -> list[str]:
    """Return the names of the headers of a refusal."""
    return [name.lower() for name in refused.response.headers]


async def test_websocket_echo_through_nginx_and_directly(edge: Edge) -> None:
    for port in (None, *edge.ports[:2]):
        async with await edge.socket(port) as socket:
            await socket.send("I want to sell my house")
            assert json.loads(await receive(socket))["intent"]


async def test_a_page_of_another_origin_is_refused_and_ours_is_not(edge: Edge) -> None:
    for port in (None, edge.ports[0]):
        with pytest.raises(InvalidStatus) as refused:
            await edge.socket(port, origin="https://stranger.example")
        assert refused.value.response.status_code == 403
        assert port or not lacking(names_of(refused.value))
        await (await edge.socket(port, origin="https://ours.example")).close()
    await (await edge.socket(origin=f"https://localhost:{edge.tls}")).close()


async def test_a_client_has_so_many_sockets_and_cannot_choose_its_address(edge: Edge) -> None:
    sockets: list[ClientConnection] = []
    try:
        with pytest.raises(InvalidStatus) as refused:
            for number in range(30):
                forged = {"X-Forwarded-For": f"10.0.0.{number}"}
                sockets.append(await edge.socket(additional_headers=forged))
        assert refused.value.response.status_code == 429
        assert not lacking(names_of(refused.value))
        assert len(sockets) == 20
    finally:
        for socket in sockets:
            await socket.close()


async def test_a_replica_itself_limits_the_sockets_of_a_client(edge: Edge) -> None:
    """Behind another proxy, or none: it does not rely on nginx."""
    sockets: list[ClientConnection] = []
    try:
        with pytest.raises(InvalidStatus) as refused:
            for _ in range(30):
                sockets.append(await edge.socket(edge.ports[0]))
        assert refused.value.response.status_code == 403
        assert len(sockets) == 20
    finally:
        for socket in sockets:
            await socket.close()
    async with await edge.socket(edge.ports[0]) as socket:
        await socket.send("hello")
        assert await receive(socket)


async def test_a_message_that_is_too_large_closes_its_socket_with_1009(edge: Edge) -> None:
    for port in (None, edge.ports[0]):
        async with await edge.socket(port) as socket:
            await socket.send(json.dumps({"text": "x" * 2000, "label": "y" * 60}))
            assert json.loads(await receive(socket))["intent"]
            await socket.send("x" * 65_537)
            with pytest.raises(ConnectionClosed) as closed:
                await receive(socket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


async def test_a_socket_that_sends_too_fast_is_closed(edge: Edge) -> None:
    async with await edge.socket(edge.ports[0]) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(500):
                await socket.send("hello")
            while True:
                await receive(socket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


class Client:
    """Keeps a socket open; when it is closed it comes back as clients shall, and remembers the code."""

    def __init__(self, edge: Edge) -> None:
        self.codes: Counter[int] = Counter()
        self._edge = edge
        self._is_over = asyncio.Event()
        self._waits_s: list[float] = []

    async def run(self) -> float:
        """Stay until told to end; then say something, and return the longest wait (seconds)."""
        while True:
            async with await self._edge.socket(ping_interval=None) as socket:
                if await self._stays(socket):
                    await socket.send("hello")
                    assert await receive(socket)
                    return max(self._waits_s)
            code = socket.close_code or 0
            self.codes[code] += 1
            self._waits_s.append(reconnect_delay_s(code, 0, random.random()))
            await asyncio.sleep(self._waits_s[-1])

    def end(self) -> None:
        """Tell it to end."""
        self._is_over.set()

    async def _stays(self, socket: ClientConnection) -> bool:
        """Wait until the end, True, or until the socket is closed."""
        closed, over = asyncio.create_task(socket.wait_closed()), asyncio.create_task(self._is_over.wait())
        await asyncio.wait({closed, over}, return_when=asyncio.FIRST_COMPLETED)
        is_open = not closed.done()
        closed.cancel()
        over.cancel()
        return is_open


async def test_a_rolling_restart_closes_every_socket_with_1012_and_clients_come_back(edge: Edge) -> None:
    """Each client is told that the service restarts, waits a time of its own, and is served by who is there."""
    clients = [Client(edge) for _ in range(10)]
    tasks = [asyncio.create_task(client.run()) for client in clients]
    for number in range(UPSTREAMS):
        await asyncio.to_thread(edge.processes.stop, f"replica-{number}", signal.SIGTERM)
        edge.start_replica(number)
        assert await asyncio.to_thread(wait_until, answers(edge.ports[number], "/healthz"), 60)
    for client in clients:
        client.end()
    async with asyncio.timeout(60):
        waits_s = await asyncio.gather(*tasks)
    assert {code for client in clients for code in client.codes} == {1012}
    assert all(client.codes[1012] >= 1 for client in clients)
    assert len(set(waits_s)) > 5


def test_the_health_check_script_works_through_nginx(edge: Edge) -> None:
    env = {
        "PATH": "/usr/bin:/bin",
        "STREAMGAUGE_API_URLS": f"https://localhost:{edge.tls}",
        "CURL_CA_BUNDLE": str(edge.folder / "ssl/ca.crt"),
    }
    command = [ROOT / "scripts/health-check.sh", "--format", "json"]
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    checks = {one["name"]: one["status"] for one in json.loads(run.stdout)["checks"]}
    assert [status for name, status in checks.items() if "websocket" in name.lower()] == ["ok"], checks
