"""The sender against a Redis that fails as told (fakeredis has no lost replies, so a double stands in)."""

import json
import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
from redis.exceptions import AskError, MovedError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from producers import Client, Counter
from producers import sender as module
from producers.clock import Clock
from producers.event_log import EventLog
from producers.seal import Sealed
from producers.sender import Outbox, Sender
from producers.settings import Settings, SettingsError
from streamgauge.logs import JsonFormatter, TextFormatter
from streamgauge.processes import wait_until


class Double:
    """A Redis connection: records XADDs; `fail` may raise after the server took them (a lost reply)."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.run_id = "a"
        self.full = False
        self.fail: Callable[[], None] = lambda: None
        self.answers: list[Exception] = []
        self.connection_pool = Mock()

    def info(self, section: str) -> dict[str, str]:
        return {"run_id": self.run_id} if section == "server" else {}

    def set(self, *args: Any, **kwargs: Any) -> None: ...

    def get(self, key: str) -> bytes:
        return b"2"

    def time(self) -> tuple[int, int]:
        return (1000, 0)

    def close(self) -> None: ...

    def pipeline(self, transaction: bool) -> "Pipeline":
        assert not transaction
        return Pipeline(self)


class Pipeline:
    """Commands of one round trip."""

    def __init__(self, server: Double) -> None:
        self.server = server
        self.adds: list[bytes] = []

    def execute_command(self, *command: Any) -> None:
        if command[0] == "XADD":
            self.adds.append(command[-1])

    def execute(self, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        replies: list[Any] = [b"1" if self.server.full else None]
        for data in self.adds:
            if self.server.answers:
                replies.append(self.server.answers.pop(0))
            else:
                self.server.taken.append(data)
                replies.append(b"1-1")
        self.server.fail()
        return replies


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Double:
    double = Double()

    def open_link(settings: Settings, key: str | None = None) -> Double:
        # Clients that other tests made in this process send from threads of their own.
        if threading.current_thread() is not threading.main_thread():
            raise ConnectionRefusedError
        return double

    monkeypatch.setattr(module, "open_link", open_link)
    monkeypatch.setattr(module, "MIN_PAUSE_S", 0.0)
    return double


@pytest.fixture
def outbox() -> Outbox:
    box = Outbox()
    for seq in (1, 2):
        box.put(Sealed(seq, 1, b"batch %d" % seq))
    return box


def a_sender(outbox: Outbox) -> Sender:
    return Sender(Settings(), outbox, Clock(), bytes(16))


def attempt(sender: Sender) -> None:
    sender._attempt()  # pyright: ignore[reportPrivateUsage]


def fails_once(error: Exception, server: Double) -> Callable[[], None]:
    def fail() -> None:
        server.fail = lambda: None
        raise error

    return fail


def test_lost_reply_sends_the_same_bytes_again(server: Double, outbox: Outbox) -> None:
    """The batch's fate is unknown, so it goes again, unchanged; the ledger removes the second one."""
    server.fail = fails_once(RedisConnectionError("reply lost"), server)
    sender = a_sender(outbox)
    attempt(sender)
    assert len(outbox.waiting) == 2
    attempt(sender)
    assert not outbox.waiting
    assert server.taken == [b"batch 1", b"batch 2"] * 2


def test_refused_batch_stays_and_accepted_neighbour_leaves(server: Double, outbox: Outbox) -> None:
    """Redis out of memory for one XADD of two: just that one waits."""
    server.answers = [ResponseError("OOM command not allowed")]
    sender = a_sender(outbox)
    attempt(sender)
    assert [sealed.seq for sealed in outbox.waiting] == [1]
    attempt(sender)
    assert server.taken == [b"batch 2", b"batch 1"]


def test_another_server_gets_the_recent_batches_again(server: Double, outbox: Outbox) -> None:
    """A restarted Redis may have lost what it acknowledged within the last seconds."""
    sender = a_sender(outbox)
    attempt(sender)
    outbox.put(Sealed(3, 1, b"batch 3"))
    server.fail = fails_once(RedisConnectionError("gone"), server)
    attempt(sender)
    server.taken.clear()
    server.run_id = "b"
    attempt(sender)
    assert server.taken == [b"batch 1", b"batch 2", b"batch 3"]


def test_full_flag_holds_back_until_it_is_gone(server: Double, outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the stream is at its cap the producer merges instead of sending."""
    monkeypatch.setattr(module, "HELD_PAUSE_S", 0.0)
    server.full = True
    sender = a_sender(outbox)
    attempt(sender)
    assert outbox.slots() == 0
    outbox.put(Sealed(3, 1, b"batch 3"))
    attempt(sender)
    assert server.taken == [b"batch 1", b"batch 2"]
    server.full = False
    attempt(sender)
    assert outbox.slots() == 3
    attempt(sender)
    assert server.taken[-1] == b"batch 3"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STREAMGAUGE_FLUSH_INTERVAL_S", "0"),
        ("STREAMGAUGE_FLUSH_INTERVAL_S", "fast"),
        ("STREAMGAUGE_SHARDS", "65"),
        ("STREAMGAUGE_SERVICE", ""),
    ],
)
def test_bad_setting_is_named(name: str, value: str) -> None:
    """The producer reads its few settings itself, and says which is wrong."""
    with pytest.raises(SettingsError, match=name):
        Settings.read({name: value})


def test_bad_redis_address_is_named() -> None:
    """At the first connection, by the setting's name."""
    with pytest.raises(SettingsError, match="REDIS_URL"):
        module.open_link(Settings(redis_url="http://x"))


def test_a_batch_that_a_node_sends_on_is_sent_once_to_the_next(
    server: Double, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slot moves: just what was refused with ASK goes to the other node."""
    there: list[bytes] = []

    def take(error: AskError, link: Double, options: dict[str, Any], command: tuple[Any, ...]) -> bytes:
        assert (error.host, error.port) == ("10.0.0.2", 7001)
        there.append(command[-1])
        return b"1-1"

    monkeypatch.setattr(module, "ask", take)
    server.answers = [AskError("13254 10.0.0.2:7001")]
    attempt(a_sender(outbox))
    assert (there, server.taken, list(outbox.waiting)) == ([b"batch 1"], [b"batch 2"], [])


def test_a_moved_shard_makes_the_sender_look_for_its_node(server: Double, outbox: Outbox) -> None:
    server.answers = [MovedError("13254 10.0.0.2:7001"), MovedError("13254 10.0.0.2:7001")]
    sender = a_sender(outbox)
    attempt(sender)
    assert (sender.connected, len(outbox.waiting)) == (False, 2)
    attempt(sender)
    assert server.taken == [b"batch 1", b"batch 2"]


def test_a_cluster_is_asked_by_the_sender_s_thread_only() -> None:
    """The start looks at the address alone: no node needs to be there."""
    module.load_client(Settings(redis_url="redis+cluster://u:p@127.0.0.1:1,127.0.0.1:2"))
    with pytest.raises(SettingsError, match="REDIS_URL: a cluster has one database only"):
        module.load_client(Settings(redis_url="redis+cluster://127.0.0.1:1/3"))


@pytest.mark.usefixtures("server")
def test_a_log_without_fields_tells_which_redis_is_away_and_why(caplog: pytest.LogCaptureFixture) -> None:
    """An application with a formatter of its own sees the message only; the event stays its first word."""
    client = Client(Settings(redis_url="redis://shop:s3cret@127.0.0.1:1/0?password=s3cret", exit_timeout_s=0.01))
    Counter("a", registry=client).inc()
    client.start()
    told = "redis='redis://127.0.0.1:1/0' error='ConnectionRefusedError' batches_waiting=0 try='check REDIS_URL'"
    assert wait_until(lambda: f"redis_refuses_or_is_away {told}\n" in caplog.text, 10)
    assert not client.stop(exiting=True)
    assert f"unsent_at_exit {told} events_unsealed=1\n" in caplog.text
    assert "s3cret" not in caplog.text + repr([vars(record) for record in caplog.records])


def test_formatters_of_fields_show_each_once_beside_the_event(caplog: pytest.LogCaptureFixture) -> None:
    EventLog("producers").warning("cache_is_away", extra={"try": "check it", "share": "100 %s"})
    record = next(one for one in caplog.records if one.name == "producers")
    assert record.getMessage() == "cache_is_away try='check it' share='100 %s'"
    told = json.loads(JsonFormatter().format(record))
    assert (told["event"], told["try"], told["share"]) == ("cache_is_away", "check it", "100 %s")
    assert TextFormatter().format(record).endswith(" WARNING cache_is_away try='check it' share='100 %s'")


def test_an_error_that_repeats_the_password_is_logged_without_it(
    server: Double, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    """An old server repeats what it did not understand; once connected, the address is not in doubt."""
    settings = Settings(redis_url="redis://:s3%2Fcret@h:1")
    sender = Sender(settings, outbox, Clock(), bytes(16))
    server.fail = fails_once(ResponseError("unknown command 'AUTH', beginning with: 's3/cret'"), server)
    attempt(sender)
    assert "s3/cret" not in caplog.text
    assert "beginning with: '…'\" batches_waiting=2" in caplog.text
    assert "REDIS_URL" not in caplog.text
