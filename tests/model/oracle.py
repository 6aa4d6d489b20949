"""The oracle: what was emitted, sealed, made durable, acknowledged and served, and what must hold of it.

In: what happens, told by servers and services as it happens. Out: Broken, with the promise that does not hold.
Promise: it knows contents by the contract's format alone, and durability by COMMIT alone; nothing is taken from the
code that is judged.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import md5
from typing import Any, Final, NamedTuple

from contract.batch import BatchError, read_envelope
from contract.streams import DATABASE_KEY
from producers.seal import Sealed
from producers.sender import RESEND_S
from tests.model import pure
from tests.model.ledger import Producer
from tests.model.redis_server import Id, Server
from tests.model.statements import SYSTEM
from tests.model.store import Store, Transaction
from tests.model.tasks import CLOCK

Identity = tuple[bytes, int]
Series = dict[bytes, tuple[int, float, tuple[int, ...]]]
NOTHING: Final = Producer(b"", "", 0)


class Broken(Exception):
    """A promise does not hold; `promise` names it."""

    def __init__(self, promise: str, text: str) -> None:
        super().__init__(f"{promise}: {text}")
        self.promise = promise


class Batch(NamedTuple):
    """One sealed batch."""

    data: bytes
    content: pure.Content


class Oracle:
    """One world's."""

    def __init__(self, redis: Server, store: Store) -> None:
        self.batches: dict[Identity, Batch] = {}
        self.emitted: dict[bytes, int] = {}
        self.dead: set[bytes] = set()
        """Producers that were killed."""
        self._redis = redis
        self._store = store
        self._durable: dict[Identity, int] = {}
        """Number of the commit that made a batch durable in the WAL of the primary."""
        self._once: set[Identity] = set()
        """Of those, whatever became of the primary."""
        self._kept: set[str] = set()
        """Digests of entries in the quarantine, whatever became of the primary."""
        self._added: set[Identity] = set()
        self._told: dict[Identity, float] = {}
        """When the producer took it for acknowledged, the last time."""
        self._gone: dict[Identity, float] = {}
        """When Redis lost an entry of it, the last time."""
        self._served: dict[bytes, int] = {}
        redis.on_add, redis.on_ack = self._on_add, self._on_ack
        redis.on_trim, redis.on_set = self._on_trim, self._on_set
        store.on_commit = self._on_commit

    # What happens

    def sealed(self, producer_id: bytes, batch: Sealed) -> None:
        """A producer sealed a batch."""
        self.batches[producer_id, batch.seq] = Batch(batch.data, pure.content(batch.data))

    def acknowledged(self, producer_id: bytes, batch: Sealed) -> None:
        """A producer took a batch for acknowledged."""
        self._told[producer_id, batch.seq] = CLOCK.now

    def lost_by_redis(self, entries: Iterable[bytes]) -> None:
        """Redis came back without these entries."""
        for data in entries:
            if (identity := _identity(data)) is not None:
                self._gone[identity] = CLOCK.now

    def failed_over(self, kept: int) -> None:
        """The primary is one whose WAL has so many commits."""
        self._durable = {identity: number for identity, number in self._durable.items() if number <= kept}

    def served(self, totals: dict[bytes, int]) -> None:
        """I4: no served counter falls; but for batches that both servers have lost, each with its tail."""
        for key, n in self._served.items():
            if totals.get(key, 0) < n - self._lost_by_both(key):
                raise Broken("I4 served totals never fall", f"{key!r} is {totals.get(key, 0)} after {n}")
        self._served.update(totals)

    def _lost_by_both(self, key: bytes) -> int:
        lost = [i for i in self._gone if i in self._once and not self._is_known(i)]
        return sum(self.batches[i].content.series.get(key, (0,))[0] for i in lost)

    def _on_add(self, at: Id, data: bytes) -> None:
        if (identity := _identity(data)) is not None:
            self._added.add(identity)

    def _on_ack(self, ids: Sequence[Id]) -> None:
        """I3: what is acknowledged was durable, on the standby too where commits wait for it."""
        for at in ids:
            data = self._redis.entries.get(at)
            if data is None:
                continue
            identity = _identity(data)
            if identity is None or identity not in self._once:
                if _digest(data) not in self._kept:
                    raise Broken("I3 acknowledged is durable", f"{_name(identity)} is neither applied nor set aside")
                continue
            number = self._durable.get(identity)
            standby = self._store.standby
            if self._store.is_synchronous and standby is not None and number is not None and number > standby:
                raise Broken("I3 acknowledged is durable", f"{_name(identity)} is not on the synchronous standby")

    def _on_trim(self, entries: Sequence[bytes]) -> None:
        """What is trimmed is durable, on the standby too."""
        for data in entries:
            identity = _identity(data)
            if identity is None:
                continue
            number = self._durable.get(identity)
            if number is None and _digest(data) not in self._kept:
                raise Broken("trimmed is durable", f"{_name(identity)} is not in the ledger")
            if number is not None and self._store.standby is not None and number > self._store.standby:
                raise Broken("trimmed is durable", f"{_name(identity)} is not on the standby")

    def _on_set(self, key: str, value: bytes) -> None:
        if key == DATABASE_KEY and value == f"{SYSTEM}/{self._store.timeline}".encode():
            self.check_settled()

    def check_settled(self) -> None:
        """I3, on a database that acknowledgements refer to: all that the group is through with is in it."""
        if any(self._store.tables.get("fences", {}).values()):
            return
        for at, data in self._redis.entries.items():
            if at > self._redis.delivered or at in self._redis.pending:
                continue
            identity = _identity(data)
            if identity is not None and not self._is_known(identity) and _digest(data) not in self._kept:
                raise Broken("I3 acknowledged is durable", f"{_name(identity)} is in no ledger after a failover")

    def _is_known(self, identity: Identity) -> bool:
        tables = self._store.tables
        p = tables.get("producers", {}).get(tables.get("producer_nos", {}).get(identity[0]))
        return (p is not None and p.knows(identity[1])) or identity in tables.get("parked", {})

    # COMMIT

    def _on_commit(self, tx: Transaction, before: dict[tuple[str, Any], Any]) -> None:
        applied: Series = {}
        found: Series = {}
        for (table, key), row in tx.rows.items():
            if table == "producers":
                self._take_producer(tx, key, before[table, key] or NOTHING, row, applied)
            elif table == "totals":
                self._take_total(tx, key, before[table, key], row, found)
            elif table == "quarantine":
                self._kept.add(key[3])
            elif table == "parked":
                self._once.add(key)
                self._durable[key] = tx.number
        if found != applied:
            raise Broken("I1 totals are the applied batches", f"totals grew by {found}, batches hold {applied}")
        self._check_parts(tx, found)

    def _take_producer(self, tx: Transaction, no: int, old: Producer, new: Producer, applied: Series) -> None:
        known = old.applied | old.quarantined
        fresh = (new.applied | new.quarantined) & ~known
        if known & ~(new.applied | new.quarantined) or new.applied & new.quarantined:
            raise Broken("I1 a seq is accounted for once", f"{new}")
        for seq in _bits(fresh):
            identity = (new.producer_id, seq)
            self._once.add(identity)
            self._durable[identity] = tx.number
            if new.applied >> seq & 1:
                for key, more in self.batches[identity].content.series.items():
                    pure.add(applied, key, more)
        self._check_row(new)

    def _take_total(
        self, tx: Transaction, key: Any, old: tuple[int, float, Any] | None, new: tuple[int, float, Any], found: Series
    ) -> None:
        series = self._store.tables.get("series", {}).get(key[0])
        name = series[1] if series is not None else b"no series %d" % key[0]
        n, total, le = old or (0, 0.0, (0,) * len(new[2]))
        pure.add(found, name, (new[0] - n, new[1] - total, tuple(a - b for a, b in zip(new[2], le, strict=True))))
        if new[0] > self.emitted.get(name, 0):
            raise Broken("I1 no event counts twice", f"{name!r} is {new[0]}, emitted {self.emitted.get(name, 0)}")

    def _check_row(self, p: Producer) -> None:
        """I2: each seq up to the top is in one place, and what they hold is what the producer counted."""
        places = [p.applied, p.quarantined, *((1 << g.end) - (1 << g.first) for g in p.gaps)]
        if sum(places) != (1 << p.top_seq + 1) - 2 and p.top_seq:
            raise Broken("I2 every seq is in one place", f"{p}")
        held = p.committed + p.quarantined_events + sum(g.after - g.before for g in p.gaps)
        sealed = sum(b.content.events for seq in range(1, p.top_seq + 1) if (b := self.batches[p.producer_id, seq]))
        if not held == p.top_sealed == sealed:
            raise Broken("I2 accepted is accounted for", f"{held} events accounted for, {sealed} sealed: {p}")
        lost = sum(self.batches[p.producer_id, seq].content.events for g in p.gaps for seq in range(g.first, g.end))
        if lost != sum(g.after - g.before for g in p.gaps):
            raise Broken("I3 loss is exact", f"gaps say {sum(g.after - g.before for g in p.gaps)}, lost {lost}: {p}")
        if p.top_seq and p.accepted != self.batches[p.producer_id, p.top_seq].content.accepted:
            raise Broken("I2 accepted is accounted for", f"accepted is {p.accepted}: {p}")

    def _check_parts(self, tx: Transaction, found: Series) -> None:
        """I6: one commit holds the same events in parts and in totals."""
        parts: dict[bytes, int] = {}
        keys = self._store.tables.get("series", {})
        for data in tx.copied:
            for number, n in pure.parts_of(data):
                key = keys[number][1] if number in keys else b"no series %d" % number
                parts[key] = parts.get(key, 0) + n
        if parts != {key: n for key, (n, _, _) in found.items()}:
            raise Broken("I6 parts and totals are one", f"parts hold {parts}, totals grew by {found}")

    # At rest

    def check_rest(self) -> None:
        """Everything is healed and drained: nothing is missing that no fault took."""
        self.check_settled()
        for identity, batch in self.batches.items():
            if not (self._is_known(identity) or _digest(batch.data) in self._kept or self._may_be_lost(identity)):
                raise Broken("I2 no silent loss", f"{_name(identity)} is nowhere, and no fault took it")
        tables = self._store.tables
        for producer_id in {identity[0] for identity in self.batches} - self.dead:
            p = tables["producers"][tables["producer_nos"][producer_id]]
            self._check_row(p)
            if (producer_id, p.top_seq + 1) in self.batches:
                raise Broken("I2 no silent loss", f"{_name((producer_id, p.top_seq + 1))} is in no gap: {p}")
        self._check_sums()

    def _may_be_lost(self, identity: Identity) -> bool:
        """Whether a documented window of loss explains that a batch is nowhere."""
        gone = self._gone.get(identity)
        if identity[0] in self.dead:
            return gone is not None or identity not in self._added
        told = self._told.get(identity)
        return gone is not None and told is not None and gone - told > RESEND_S

    def _check_sums(self) -> None:
        """I1 and I7: totals and parts of the whole history are the batches in the ledger."""
        expected: Series = {}
        for p in self._store.tables.get("producers", {}).values():
            for seq in _bits(p.applied):
                for key, more in self.batches[p.producer_id, seq].content.series.items():
                    pure.add(expected, key, more)
        found: Series = {}
        keys = self._store.tables.get("series", {})
        for (number, _, _), row in self._store.tables.get("totals", {}).items():
            pure.add(found, keys[number][1] if number in keys else b"?", row)
        if found != expected:
            raise Broken("I1 totals are the applied batches", f"totals {found}, batches {expected}")


@lru_cache(maxsize=pure.ROOM)
def _identity(data: bytes) -> Identity | None:
    try:
        envelope = read_envelope(data)
    except BatchError:
        return None
    return envelope.producer_id, envelope.seq


def _name(identity: Identity | None) -> str:
    return (
        "an entry that is no batch"
        if identity is None
        else f"{identity[0].rstrip(bytes(1)).decode()} seq {identity[1]}"
    )


def _digest(data: bytes) -> str:
    return md5(data, usedforsecurity=False).hexdigest()


def _bits(number: int) -> list[int]:
    found: list[int] = []
    while number:
        low = number & -number
        found.append(low.bit_length() - 1)
        number ^= low
    return found
