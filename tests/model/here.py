"""Here: the world that lives now, which simulated clients belong to.

Promise: one at a time; `enter` begins the next.
"""

from producers.seal import Sealed
from tests.model.redis_server import Server
from tests.model.store import Store


class World:
    """The servers, and who hears what services do."""

    def __init__(self) -> None:
        self.redis = Server()
        self.store = Store()
        self.cut_after: int | None = None
        """A sender's next round trip breaks after so many commands."""

    def emitted(self, key: bytes) -> None:
        """A producer has emitted an event of a series."""

    def sealed(self, producer_id: bytes, batch: Sealed) -> None:
        """A producer has sealed a batch."""

    def acknowledged(self, producer_id: bytes, batch: Sealed) -> None:
        """A producer knows that Redis has a batch."""

    def served(self, totals: dict[bytes, int]) -> None:
        """An exporter has answered a scrape."""


class Here:
    """Where services are."""

    world: World
