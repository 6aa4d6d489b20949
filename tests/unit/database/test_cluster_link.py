"""The link to a cluster against nodes that answer as told."""

from typing import Any

import pytest
from redis.exceptions import AskError, ClusterDownError, MovedError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from contract.cluster import SLOTS, Node, slot_of
from database.cluster_link import REDIRECTS, ClusterLink

ONE, TWO = ("one", 1), ("two", 2)
SLOT = slot_of("k")


class Nodes:
    """Nodes of a cluster: `answers` are given in order, and what was sent is kept."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[Node, tuple[Any, ...]]] = []
        self.asked_who = 0

    def link(self) -> Any:
        link: Any = ClusterLink([ONE], {})
        link.client_of = self.client_of
        return link

    def client_of(self, node: Node) -> "Client":
        return Client(self, node)


class Client:
    """One of them."""

    def __init__(self, nodes: Nodes, node: Node) -> None:
        self.nodes, self.node = nodes, node
        self.stack: list[tuple[Any, ...]] = []

    async def execute_command(self, *args: Any, **_: Any) -> Any:
        if args[0] == "CLUSTER SLOTS":
            self.nodes.asked_who += 1
            return [[0, SLOTS - 1, [b"one", 1, b"id"]]]
        self.nodes.sent.append((self.node, args))
        answer = self.nodes.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def pipeline(self, transaction: bool) -> "Asking":
        assert not transaction
        return Asking(self)


class Asking:
    """A pipeline."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.stack: list[tuple[Any, ...]] = []

    async def __aenter__(self) -> "Asking":
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def execute_command(self, *args: Any, **_: Any) -> None:
        self.stack.append(args)

    async def execute(self, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        self.client.nodes.sent += [(self.client.node, args) for args in self.stack]
        return [b"OK", self.client.nodes.answers.pop(0)]


async def test_a_moved_slot_is_followed_and_remembered() -> None:
    nodes = Nodes(MovedError(f"{SLOT} two:2"), b"v", b"w")
    link = nodes.link()
    assert (await link.get("k"), await link.get("k")) == (b"v", b"w")
    assert [node for node, _ in nodes.sent] == [ONE, TWO, TWO]
    assert nodes.asked_who == 1


async def test_asking_goes_in_one_write_with_its_command_and_is_not_remembered() -> None:
    nodes = Nodes(AskError(f"{SLOT} two:2"), b"v", b"w")
    link = nodes.link()
    assert (await link.get("k"), await link.get("k")) == (b"v", b"w")
    assert nodes.sent == [(ONE, ("GET", "k")), (TWO, ("ASKING",)), (TWO, ("GET", "k")), (ONE, ("GET", "k"))]


@pytest.mark.parametrize("error", [RedisConnectionError("gone"), RedisTimeoutError("late"), OSError("refused")])
async def test_a_command_whose_fate_is_unknown_is_not_sent_again(error: Exception) -> None:
    """It surfaces, and before the next command the nodes are asked anew who serves what."""
    nodes = Nodes(error, b"1-1")
    link = nodes.link()
    with pytest.raises(type(error)):
        await link.xadd("k", {b"b": b"x"})
    assert len(nodes.sent) == 1
    await link.xadd("k", {b"b": b"x"})
    assert nodes.asked_who == 2


@pytest.mark.parametrize("answers", [[ClusterDownError("CLUSTERDOWN")], [MovedError(f"{SLOT} one:1")] * REDIRECTS])
async def test_what_nobody_answers_for_is_no_answer_about_the_key(answers: list[Exception]) -> None:
    """redis-py's CLUSTERDOWN is a ResponseError, as `no such key` is."""
    nodes = Nodes(*answers)
    with pytest.raises(RedisConnectionError) as raised:
        await nodes.link().xinfo_stream("k")
    assert not isinstance(raised.value, ResponseError)
    assert nodes.answers == []


async def test_an_answer_about_the_key_is_the_caller_s() -> None:
    nodes = Nodes(ResponseError("no such key"), b"v")
    link = nodes.link()
    with pytest.raises(ResponseError):
        await link.xinfo_stream("k")
    assert await link.get("k") == b"v"
    assert nodes.asked_who == 1
