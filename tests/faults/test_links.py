"""The bench's own link: what each mode does to connections that live already, and to new ones."""

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamgauge.processes import wait_until
from tests.faults.link import Link

pytestmark = [pytest.mark.faults, pytest.mark.timeout(60)]

SOON_S = 0.2
DEADLINE_S = 10.0


class Echo(socketserver.BaseRequestHandler):
    received: bytearray

    def handle(self) -> None:
        try:
            while data := self.request.recv(1 << 16):
                Echo.received += data
                self.request.sendall(data)
        except ConnectionError:
            pass


class EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


class UnixEchoServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@pytest.fixture(params=["tcp", "unix"])
def link(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Link]:
    Echo.received = bytearray()
    path = str(tmp_path / "s")
    server = EchoServer(("127.0.0.1", 0), Echo) if request.param == "tcp" else UnixEchoServer(path, Echo)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        made = Link("127.0.0.1", server.server_address[1]) if request.param == "tcp" else Link.to_unix(path)  # type: ignore[arg-type]
        with made:
            yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join(DEADLINE_S)


def connect(link: Link) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), DEADLINE_S)


def echoes(client: socket.socket, data: bytes) -> bool:
    client.sendall(data)
    return heard(client, len(data)) == data


def heard(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := client.recv(size - len(data))):
        data += more
    return data


def is_silent(client: socket.socket) -> bool:
    client.settimeout(SOON_S)
    try:
        client.recv(1)
        return False
    except TimeoutError:
        return True
    finally:
        client.settimeout(DEADLINE_S)


def test_a_link_passes_everything_on(link: Link) -> None:
    with connect(link) as one, connect(link) as other:
        assert echoes(one, b"one") and echoes(other, b"other")
        large = bytes(range(256)) * 4096
        thread = threading.Thread(target=one.sendall, args=(large,))
        thread.start()
        assert heard(one, len(large)) == large
        thread.join(DEADLINE_S)
        assert link.connections == 2
    assert wait_until(lambda: link.connections == 0, DEADLINE_S)


def test_a_delay_holds_both_ways(link: Link) -> None:
    with connect(link) as client:
        assert echoes(client, b"before")
        link.delay(0.2)
        began = time.monotonic()
        assert echoes(client, b"slow")
        assert time.monotonic() - began >= 0.4
        link.delay(60)
        client.sendall(b"held")
        assert is_silent(client)
        link.pass_on()
        assert heard(client, 4) == b"held", "a change of mode ends a delay"


def test_dropped_replies_leave_the_requests(link: Link) -> None:
    """The connection that lost a reply ends when the link heals: its next reply would answer another request."""
    with connect(link) as client, connect(link) as untouched:
        assert echoes(client, b"before") and echoes(untouched, b"x")
        link.drop_replies()
        client.sendall(b"unanswered")
        assert wait_until(lambda: b"unanswered" in Echo.received, DEADLINE_S)
        assert is_silent(client)
        assert wait_until(lambda: link.dropped_bytes == len(b"unanswered"), DEADLINE_S)
        link.pass_on()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert echoes(untouched, b"after")


def test_a_black_hole_accepts_and_says_nothing(link: Link) -> None:
    with connect(link) as client:
        assert echoes(client, b"before")
        link.blackhole()
        client.sendall(b"held")
        with connect(link) as new:
            new.sendall(b"new")
            assert is_silent(client) and is_silent(new)
            assert b"held" not in Echo.received and b"new" not in Echo.received
            link.pass_on()
            assert heard(client, 4) == b"held" and heard(new, 3) == b"new"


def test_a_reset_link_refuses_until_it_passes_on(link: Link) -> None:
    with connect(link) as client:
        assert echoes(client, b"before")
        link.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            connect(link)
    link.pass_on()
    with connect(link) as client:
        assert echoes(client, b"after")


def test_a_cut_lets_exactly_so_many_bytes_through(link: Link) -> None:
    with connect(link) as client:
        link.cut_after(10)
        assert echoes(client, b"1234")
        client.sendall(b"56789abcdef")
        with pytest.raises(ConnectionResetError):
            while client.recv(16):
                pass
    assert wait_until(lambda: len(Echo.received) == 10, DEADLINE_S)
    assert bytes(Echo.received) == b"123456789a" and link.cuts == 1
    with connect(link) as client:
        assert echoes(client, b"after")


def test_a_server_that_is_away_is_told_to_the_client() -> None:
    with Link("127.0.0.1", 1) as link, pytest.raises(ConnectionResetError), connect(link) as client:
        assert client.recv(1) != b"", "a farewell instead of a reset"


def test_a_closed_link_leaves_no_thread() -> None:
    before = threading.active_count()
    with Link("127.0.0.1", 1) as link:
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        connect(link)
