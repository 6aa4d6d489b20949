"""A simulated Redis: streams with one group, plain keys, a log of effects that a crash or a failover cuts off.

In: commands by name. Out: replies in redis-py's shapes. Promise: what a command does stands in the log as the
append-only file and replicas have it (XREADGROUP as one XCLAIM an entry), so that a prefix of the log is a state that
a real server can come back with. Semantics of Redis 7.0, checked against a real one by test_redis_conformance.py.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.exceptions import ConnectionError as Closed
from redis.exceptions import OutOfMemoryError, ResponseError

from aggregator.lua import CLAIM, HOLD_BACK, PUT, RAISE, RAISE_FIELDS, TRIM, WEIGH
from contract.streams import FIELD
from tests.model.tasks import CLOCK

Id = tuple[int, int]
ZERO: Final[Id] = (0, 0)
EPOCH_MS: Final = 1_700_000_000_000
"""What Redis' clock says when virtual time begins."""
ENTRY_BYTES: Final = 200
"""For the cap: every entry is as long as every other."""


def text(entry_id: Id) -> bytes:
    """Return an id as it is sent."""
    return b"%d-%d" % entry_id


def parse(said: str | bytes) -> Id:
    """Read an id, `-` and `+` included."""
    said = said.decode() if isinstance(said, bytes) else said
    if said in ("-", "+"):
        return ZERO if said == "-" else (1 << 63, 0)
    ms, _, seq = said.partition("-")
    return int(ms), int(seq or 0)


class Server:
    """One Redis, and its successors after a crash or a failover. One stream."""

    def __init__(self) -> None:
        self.is_up = True
        self.is_full = False
        """Out of memory: XADD and SET are refused."""
        self.offset_s = 0.0
        self.run_id = 1
        self.log: list[tuple[float, tuple[Any, ...]]] = []
        self._first = 0
        self._given: set[Id] = set()
        self.hash = 0
        """Of the state, without times; kept up by every effect."""
        self.on_add: Callable[[Id, bytes], None] = lambda at, data: None
        self.on_ack: Callable[[Sequence[Id]], None] = lambda ids: None
        self.on_trim: Callable[[Sequence[bytes]], None] = lambda entries: None
        self.on_set: Callable[[str, bytes], None] = lambda key, value: None
        self._clear()

    def _clear(self) -> None:
        self.entries: dict[Id, bytes] = {}
        self.last = self.delivered = ZERO
        self.has_group = False
        self.pending: dict[Id, tuple[str, float, int]] = {}
        """Consumer, when it was delivered, how often."""
        self.keys: dict[str, bytes] = {}
        self._places: dict[Id, int] = {}
        self.hash = 0

    def begin(self, keys: dict[str, bytes]) -> None:
        """Hold these keys from before anything that a crash takes."""
        for key, value in keys.items():
            self._do("set", key, value)
        self._first = len(self.log)

    def now_ms(self) -> int:
        """Return the time as this server has it."""
        return EPOCH_MS + int((CLOCK.now + self.offset_s) * 1000)

    # Effects

    def _do(self, *effect: Any) -> None:
        self.log.append((CLOCK.now, effect))
        self._apply(effect)

    def _apply(self, effect: tuple[Any, ...]) -> None:
        getattr(self, f"_on_{effect[0]}")(*effect[1:])

    def _toggle(self, *fact: Any) -> None:
        self.hash ^= hash(fact)

    def _on_add(self, at: Id, data: bytes) -> None:
        self.entries[at] = data
        self.last = at
        # Of the identity alone: what is sent again is another state by its place.
        place = self._places[at] = len(self._places)
        self._toggle(1, place, data[8:32])

    def _on_group(self) -> None:
        self.has_group = True
        self._toggle(2)

    def _on_deliver(self, at: Id, consumer: str, time: float, count: int) -> None:
        if at in self.pending:
            self._toggle(3, self._places[at], *self.pending[at][::2])
        self.pending[at] = (consumer, time, count)
        self._toggle(3, self._places[at], consumer, count)

    def _on_read_to(self, at: Id) -> None:
        self._toggle(4, self._places.get(self.delivered, -1))
        self.delivered = at
        self._toggle(4, self._places.get(at, -1))

    def _on_ack(self, at: Id) -> None:
        known = self.pending.pop(at, None)
        if known is not None:
            self._toggle(3, self._places[at], *known[::2])

    def _on_trim(self, least: Id) -> None:
        for at in [at for at in self.entries if at < least]:
            data = self.entries.pop(at)
            self._toggle(1, self._places[at], data[8:32])

    def _on_set(self, key: str, value: bytes | None) -> None:
        self._toggle(5, key, self.keys.get(key, b""))
        if value is None:
            self.keys.pop(key, None)
        else:
            self.keys[key] = value
        self._toggle(5, key, value or b"")

    def come_back(self, kept: int) -> list[bytes]:
        """Be another process with a prefix of the log; returns the entries that are gone with the rest."""
        kept = max(self._first, kept)
        before = self.entries
        lost = self.log[kept:]
        self.log = self.log[:kept]
        self.run_id += 1
        self.is_up, self.is_full = True, False
        self._clear()
        for _, effect in self.log:
            self._apply(effect)
        added = {effect[1]: effect[2] for _, effect in lost if effect[0] == "add"}
        return [data for at, data in added.items() if at in before]

    # Commands

    def call(self, name: str, *arguments: Any) -> Any:
        """Execute one command."""
        if not self.is_up:
            raise Closed("refused")
        return getattr(self, f"_{name}")(*arguments)

    def has_news(self) -> bool:
        """Whether a read for new entries would return some."""
        return not self.is_up or not self.has_group or self.last > self.delivered

    def _xadd(self, data: bytes) -> bytes:
        self._require_memory()
        ms = self.now_ms()
        at = (ms, 0) if ms > self.last[0] else (self.last[0], self.last[1] + 1)
        while at in self._given:
            # Not modelled: an id that another master had given to an entry that is lost.
            at = (at[0], at[1] + 1)
        self._given.add(at)
        self._do("add", at, data)
        self.on_add(at, data)
        return text(at)

    def _require_memory(self) -> None:
        if self.is_full:
            raise OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")

    def _require_group(self) -> None:
        if not self.has_group:
            raise ResponseError("NOGROUP No such key or consumer group")

    def _xgroup_create(self) -> bool:
        if self.has_group:
            raise ResponseError("BUSYGROUP Consumer Group name already exists")
        self._do("group")
        return True

    def _xreadgroup(self, consumer: str, start: str, count: int) -> list[Any]:
        self._require_group()
        found: list[Any] = []
        if start == ">":
            for at in [at for at in self.entries if at > self.delivered][:count]:
                self._do("deliver", at, consumer, CLOCK.now, 1)
                self._do("read_to", at)
                found.append((text(at), {FIELD: self.entries[at]}))
            return [[b"stream", found]] if found else []
        after = parse(start)
        own = [at for at in sorted(self.pending) if at > after and self.pending[at][0] == consumer]
        for at in own[:count]:
            data = self.entries.get(at)
            if data is not None:
                self._do("deliver", at, consumer, CLOCK.now, self.pending[at][2] + 1)
            found.append((text(at), {} if data is None else {FIELD: data}))
        return [[b"stream", found]]

    def _xautoclaim(self, consumer: str, idle_ms: int, cursor: str, count: int) -> list[Any]:
        self._require_group()
        claimed: list[Any] = []
        deleted: list[bytes] = []
        left = count * 10
        todo = [at for at in sorted(self.pending) if at >= parse(cursor)]
        done = 0
        for at in todo:
            if left == 0 or len(claimed) >= count:
                break
            left, done = left - 1, done + 1
            _, since, times = self.pending[at]
            if at not in self.entries:
                self._do("ack", at)
                deleted.append(text(at))
            elif (CLOCK.now - since) * 1000 >= idle_ms:
                self._do("deliver", at, consumer, CLOCK.now, times + 1)
                claimed.append((text(at), {FIELD: self.entries[at]}))
        return [text(todo[done]) if done < len(todo) else b"0-0", claimed, deleted]

    def _xpending_range(self, low: str, high: str, count: int) -> list[dict[str, Any]]:
        self._require_group()
        found = [at for at in sorted(self.pending) if parse(low) <= at <= parse(high)][:count]
        return [{"message_id": text(at), "times_delivered": self.pending[at][2]} for at in found]

    def _xrange(self, low: str, count: int | None) -> list[Any]:
        least = parse(low.lstrip("("))
        found = [at for at in self.entries if at > least or (at == least and low[0] != "(")]
        return [(text(at), {FIELD: self.entries[at]}) for at in found[:count]]

    def _xack(self, ids: Sequence[str]) -> int:
        named = [parse(at) for at in ids]
        known = {at for at in named if at in self.pending}
        self.on_ack(named)
        for at in sorted(known):
            self._do("ack", at)
        return len(known)

    def _get(self, key: str) -> bytes | None:
        return self.keys.get(key)

    def _set(self, key: str, value: Any, nx: bool = False) -> bool:
        self._require_memory()
        if nx and key in self.keys:
            return False
        self._put(key, value if isinstance(value, bytes) else str(value).encode())
        return True

    def _put(self, key: str, value: bytes) -> None:
        self._do("set", key, value)
        self.on_set(key, value)

    def _delete(self, key: str) -> int:
        if key not in self.keys:
            return 0
        self._do("set", key, None)
        return 1

    def _time(self) -> tuple[int, int]:
        ms = self.now_ms()
        return ms // 1000, ms % 1000 * 1000

    def _eval(self, script: str, key: str, *arguments: str) -> Any:
        """Run one of our scripts. They write also where memory is short."""
        if script is RAISE:
            return self._raise(key, *arguments)
        if script is CLAIM:
            return self._claim(key, *arguments)
        if script is RAISE_FIELDS:
            return self._raise_fields(key, *arguments)
        if script in (PUT, HOLD_BACK):
            self._put(key, arguments[0].encode())
            return 1
        if script is WEIGH:
            return self._weigh(*arguments)
        assert script is TRIM, "BUG: a script that the model does not know"
        return self.trim(parse(arguments[0]), int(arguments[1]), parse(arguments[2]))

    def _raise(self, key: str, owner_key: str, number: str, owner: str) -> int:
        if self.keys.get(owner_key, owner.encode()) != owner.encode():
            return 0
        if int(number) > int(self.keys.get(key, 0)):
            self._put(key, number.encode())
        return 1

    def _raise_fields(self, key: str, *fields: str) -> int:
        known = self._hgetall(key)
        for field, number in zip(fields[::2], fields[1::2], strict=True):
            if int(number) > int(known.get(field.encode(), -1)):
                self._put(f"{key} {field}", number.encode())
        return 1

    def _hgetall(self, key: str) -> dict[bytes, bytes]:
        """A field of a hash is a key here."""
        start = f"{key} "
        return {name.removeprefix(start).encode(): n for name, n in self.keys.items() if name.startswith(start)}

    def _claim(self, key: str, system: str, timeline: str) -> bytes:
        owner = self.keys.get(key, b"/").decode().split("/")
        if owner[0] != system or int(owner[1]) <= int(timeline):
            self._put(key, f"{system}/{timeline}".encode())
        return self.keys[key]

    def _weigh(self, _: str, first: str, count: str, consumer: str, idle_ms: str, most_bytes: str) -> int:
        """Entries are so short here that only their number counts."""
        least = parse(first.lstrip("("))
        found = [
            at
            for at, (owner, since, _) in self.pending.items()
            if (at > least or (at == least and first[0] != "("))
            and consumer in ("", owner)
            and (CLOCK.now - since) * 1000 >= int(idle_ms)
        ]
        return max(1, min(len(found), int(count)))

    def bound(self) -> Id:
        """Return the first id that the group still needs."""
        return min([self.delivered, *self.pending])

    def trim(self, keep: Id, cap_bytes: int, safe: Id) -> list[Any]:
        """As the script does."""
        if not self.has_group:
            return [0, len(self.entries) * ENTRY_BYTES, 0, b"0-0"]
        bound = self.bound()
        last = min(bound, safe)
        keep = min(last, keep)
        trimmed = self._trim_to(keep)
        cut = 0
        if len(self.entries) * ENTRY_BYTES > cap_bytes and keep < last:
            trimmed += self._trim_to(last)
            cut = 1
        return [trimmed, len(self.entries) * ENTRY_BYTES, cut, text(bound)]

    def _trim_to(self, least: Id) -> int:
        gone = [data for at, data in self.entries.items() if at < least]
        if gone:
            self.on_trim(gone)
            self._do("trim", least)
        return len(gone)
