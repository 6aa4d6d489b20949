"""Which replica is asked for history, and which is left alone."""

from typing import Any

import pytest

from exporter import history_servers
from exporter.history_servers import PRIMARY, Behind, HistoryServers, Replica


class Standby:
    """A connection to a server that says of itself what it is told to."""

    def __init__(self, **row: Any) -> None:
        self.row = row

    async def fetchrow(self, _: str) -> dict[str, Any]:
        return self.row


def servers(*names: str) -> HistoryServers:
    pools: dict[str, Any] = dict.fromkeys(names)
    primary: Any = None
    return HistoryServers(primary, pools, 15)


def test_replicas_take_turns_and_one_that_failed_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = servers("a", "b")
    first, second = asked.replicas(), asked.replicas()
    assert first == second[::-1]
    first[0].rest(OSError("refused"))
    assert asked.replicas() == [first[1]]
    monkeypatch.setattr(history_servers, "REST_S", 0.0)
    first[0].rest(OSError("refused"))
    assert len(asked.replicas()) == 2
    assert servers().replicas() == []


@pytest.mark.parametrize(
    ("is_standby", "age_s"), [(False, 0.1), (True, None), (True, 15.1)], ids=["takes writes", "no heartbeat", "behind"]
)
async def test_a_server_that_is_not_as_far_is_refused(is_standby: bool, age_s: float | None) -> None:
    pool: Any = None
    connection: Any = Standby(is_standby=is_standby, beat_age_s=age_s)
    with pytest.raises(Behind):
        await Replica("r", pool, 15).check(connection)


async def test_a_standby_tells_its_name_and_age_and_a_clock_ahead_is_no_negative_age() -> None:
    pool: Any = None
    connection: Any = Standby(is_standby=True, beat_age_s=-0.2)
    assert await Replica("r", pool, 15).check(connection) == ("r", 0.0)
    assert PRIMARY == ("primary", None)
