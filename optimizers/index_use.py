"""Use of indexes over all servers of a target, since it is counted.

In: a look. Out: per index scans by server, size, writes, and how long all of it is known.
Promise: an index is called unused only where every configured server answered and counts long enough, and no other
standby is attached to the primary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from database.queries import load
from optimizers.check import Look

DAY_S = 86_400.0


@dataclass(frozen=True)
class IndexUse:
    """One index that could be done without; that of a parent stands for its partitions."""

    name: str
    table: str
    definition: str
    is_partitioned: bool
    size_bytes: int
    writes: int
    """To its table that the index had to follow, on the primary."""
    scans: dict[str, int]
    """By server."""
    last_scan: datetime | None
    """On any server, as far as they know: PostgreSQL 16 and newer do."""
    known_s: float
    """For how long all servers have counted and the index was there."""
    counted_s: float
    """For how long the primary has counted writes."""
    standbys: int
    """Attached to the primary, configured here or not."""
    asked: int
    """Servers that answered, the primary among them."""

    @property
    def all_scans(self) -> int:
        """On all servers."""
        return sum(self.scans.values())

    @property
    def known_days(self) -> float:
        """For how long it is known."""
        return self.known_s / DAY_S

    @property
    def writes_per_hour(self) -> float | None:
        """On average since they are counted."""
        return self.writes / self.counted_s * 3600 if self.counted_s > 0 else None

    @property
    def where(self) -> str:
        """The servers that were asked."""
        return ", ".join(self.scans)


def unasked(uses: Sequence[IndexUse], look: Look) -> str | None:
    """Return why nobody can call an index unused: a server that may use it was not asked. None: all were."""
    if look.unseen:
        return f"{', '.join(look.unseen)} did not answer: it may use what others do not"
    more = max((use.standbys - use.asked + 1 for use in uses), default=0)
    if more <= 0:
        return None
    said = "1 attached standby was" if more == 1 else f"{more} attached standbys were"
    return f"{said} not asked, and may use what others do not: name them in STREAMGAUGE_OPTIMIZER_REPLICAS"


async def read_index_use(look: Look) -> list[IndexUse]:
    """Return every index that enforces nothing and serves no foreign key."""
    by_server = await look.everywhere(load("index_use"))
    rows = {server: {row["index_id"]: row for row in found} for server, found in by_server.items()}
    own = rows["primary"]
    since = await look.first_seen(f"{row['name']}#{number}" for number, row in own.items())
    found: list[IndexUse] = []
    for number, row in own.items():
        same = {server: each[number] for server, each in rows.items() if number in each}
        ages_s = [look.stats_age_s or 0.0, *(r["stats_age_s"] or 0.0 for s, r in same.items() if s != "primary")]
        observed_s = (look.now - since[f"{row['name']}#{number}"]).total_seconds()
        found.append(
            IndexUse(
                row["name"],
                row["table_name"],
                row["definition"],
                row["is_partitioned"],
                row["size_bytes"],
                row["writes"],
                {server: each["scans"] for server, each in same.items()},
                max((each["last_scan"] for each in same.values() if each["last_scan"]), default=None),
                # An index that a replica does not have yet is not known there.
                min(observed_s, *ages_s) if len(same) == len(rows) else 0.0,
                look.stats_age_s or 0.0,
                row["standbys"],
                len(rows),
            )
        )
    return found
