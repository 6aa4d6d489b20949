"""Mutants: one mechanism each that is taken away; the check is worth something only if it catches all of them.

In: a name. Out: production code (or, for what is written in SQL and Lua, the simulated server) without the mechanism,
for as long as a block lasts.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any, Final, NamedTuple
from unittest.mock import patch

import msgspec

import aggregator.service
import database.admission
import database.connect
import database.ledger
from aggregator import failover
from aggregator.committer import Committer
from aggregator.identities import Identities
from aggregator.service import Aggregator as RealAggregator
from aggregator.shard import Shard
from aggregator.trim import EVERYTHING, Trimmer
from contract.batch import read_body, read_envelope, seal
from contract.streams import COMMIT_KEY, DATABASE_KEY
from database.connect import AWAY
from producers.seal import Sealed
from producers.sender import Sender
from tests.model import emitting, ledger, statements, tasks
from tests.model.emitting import Producer
from tests.model.ledger import Producer as Row
from tests.model.ledger import Run
from tests.model.redis_server import Id, Server
from tests.model.services import Exporter
from tests.model.store import Store

Patches = Sequence[AbstractContextManager[Any]]


class Mutant(NamedTuple):
    """One mechanism taken away."""

    what: str
    patches: Callable[[], Patches]


async def _commit_unlooked(connection: Any) -> None:
    await connection.execute("COMMIT")


async def _commit_or_not(connection: Any) -> None:
    with suppress(*AWAY):
        await connection.execute("COMMIT")


def _commits(commit: Callable[[Any], Awaitable[None]]) -> Callable[[], Patches]:
    return lambda: [patch.object(database.ledger, "commit", commit), patch.object(database.connect, "commit", commit)]


def _ack_first() -> Patches:
    real: Any = getattr(Shard, "_commit")  # noqa: B009 - of production, which has no seam there

    async def commit(shard: Any, prepared: Any) -> None:
        await shard._ack([entry.stream_id for entry in prepared.entries], await shard._check_database())
        await real(shard, prepared)

    return [patch.object(Shard, "_commit", commit)]


def _duplicates_unwritten() -> Patches:
    real: Any = getattr(Committer, "_leave_out")  # noqa: B009

    async def leave_out(committer: Any, ready: Any, already: Any) -> None:
        await real(committer, ready, already)
        if not ready.booked:
            ready.copies.clear()

    return [patch.object(Committer, "_leave_out", leave_out)]


def _sealed_anew() -> Patches:
    real = emitting.Attempt.perform

    def perform(attempt: Any) -> None:
        real(attempt)
        producer: Producer = attempt.producer
        if producer.pause.waited_s and producer.outbox.waiting:
            waiting = list(producer.outbox.waiting)
            producer.outbox.waiting.clear()
            for old in waiting:
                producer.put(_under_next_seq(producer, old))

    return [patch.object(emitting.Attempt, "perform", perform)]


def _under_next_seq(producer: Producer, old: Sealed) -> Sealed:
    sealer = producer.drainer.sealer
    sealer.seq += 1
    sealer.sealed_events += old.events
    body = msgspec.structs.replace(read_body(read_envelope(old.data), old.data), accepted=sealer.sealed_events)
    return Sealed(sealer.seq, old.events, seal(sealer.producer_id, sealer.seq, old.events, body), old.fin)


def _sent_is_acknowledged() -> Patches:
    real = emitting.Attempt.perform

    def perform(attempt: Any) -> None:
        waiting = list(attempt.producer.outbox.waiting)
        real(attempt)
        for sealed in waiting:
            with suppress(ValueError):
                attempt.producer.outbox.waiting.remove(sealed)

    return [patch.object(emitting.Attempt, "perform", perform)]


@asynccontextmanager
async def _unsure(connection: Any, isolation: str = "") -> AsyncGenerator[Any, None]:
    await connection.execute("BEGIN")
    yield connection
    await _commit_or_not(connection)


async def _check_unfenced(link: Any, pool: Any, committers: Any, shards: int, *_more: Any) -> failover.Identity:
    """As failover.check, with everything said to be restored before it is."""
    standing = await failover.read_standing(link, pool)
    if standing.is_current:
        return standing.now
    claim: Any = getattr(failover, "_claim")  # noqa: B009 - of production, which has no seam there
    await claim(link, standing.now)
    await link.set(COMMIT_KEY, standing.commit.newest)
    await link.set(DATABASE_KEY, str(standing.now))
    replay: Any = getattr(failover, "_replay")  # noqa: B009
    for shard in range(shards):
        await replay(link, shard, committers[0], None)
    return standing.now


def _nothing(*_: object) -> None:
    """Take no step."""


def _below_top(p: Row, seq: int) -> bool:
    return seq <= p.top_seq


def _is_applied(p: Row, seq: int) -> bool:
    return bool(p.applied >> seq & 1)


def _delivered(server: Server) -> Id:
    return server.delivered


async def _unchecked(_: Any, link: Any, main: Any) -> failover.Identity:
    return (await failover.read_commit(main.pool)).database


async def _forget_at_once(identities: Any) -> None:
    identities.looking_up, looked_up = tasks.Lock(), identities.looking_up
    await _real_forget(identities)
    identities.looking_up = looked_up


def _one_generation() -> Patches:
    return [patch.object(module, "STARTS", 0) for module in (ledger, statements)]


async def _never(*_: Any, **__: Any) -> None:
    """Take no step."""


def _everything(*_: object) -> str:
    return EVERYTHING


def _unflushed() -> Patches:
    return [patch.object(Trimmer, "_safe", _everything)]


def _gap_unbooked(p: Row, run: Run) -> Row:
    booked = _real_book_run(p, run)
    return booked if run.lo <= p.top_seq else booked._replace(gaps=p.gaps)


_real_book_run = ledger.book_run
_real_forget = Identities.forget
_real_lock_and_check = ledger.lock_and_check


def _generation_unlooked(store: Store, tx: Any, generation: int, *more: Any) -> Any:
    return _real_lock_and_check(store, tx, store.tables["state"][0], *more)


def _of(owner: Any, name: str, replacement: Any) -> Callable[[], Patches]:
    return lambda: [patch.object(owner, name, replacement)]


MUTANTS: Final[dict[str, Mutant]] = {
    "tag": Mutant("the tag of COMMIT is not looked at", _commits(_commit_unlooked)),
    "unknown-commit": Mutant("a COMMIT whose answer is lost counts as done", _commits(_commit_or_not)),
    "ack-first": Mutant("acknowledged before the commit", _ack_first),
    "high-water-mark": Mutant(
        "the ledger keeps a high-water mark instead of intervals",
        _of(ledger, "is_known", _below_top),
    ),
    "duplicates-unwritten": Mutant("a commit of duplicates alone writes nothing", _duplicates_unwritten),
    "no-row-lock": Mutant("the producers' rows are not locked", _of(Store, "has_row_locks", False)),
    "copies": Mutant("copies within one commit are not told apart", _of(Committer, "_leave_out_copies", _nothing)),
    "no-gap": Mutant("a gap is not recorded", _of(ledger, "book_run", _gap_unbooked)),
    "quarantined-unlooked": Mutant(
        "a seq that is quarantined counts as new",
        _of(ledger, "is_known", _is_applied),
    ),
    "generation": Mutant(
        "numbers cached before a failover are used after it", _of(ledger, "lock_and_check", _generation_unlooked)
    ),
    "cache-first": Mutant(
        "caches of numbers fill before the COMMIT that makes them", _of(database.admission, "transaction", _unsure)
    ),
    "trim-delivered": Mutant("trimmed up to what was delivered, pending or not", _of(Server, "bound", _delivered)),
    "trim-unflushed": Mutant("trimmed although the standby lacks the commit", _unflushed),
    "no-failover-check": Mutant(
        "a database that is another one is not noticed", _of(RealAggregator, "_check_database", _unchecked)
    ),
    "check-at-commit": Mutant("it is noticed by commits alone", _of(RealAggregator, "_check_main", _never)),
    "no-fence": Mutant(
        "served while the streams are folded again", _of(aggregator.service, "check_failover", _check_unfenced)
    ),
    "unconfirmed": Mutant(
        "served without asking which database acknowledgements refer to",
        lambda: [patch.object(Exporter, name, _nothing) for name in ("_confirm", "_require")],
    ),
    "forgotten-meanwhile": Mutant(
        "cached numbers are dropped while others are looked up", _of(Identities, "forget", _forget_at_once)
    ),
    "restart": Mutant("numbers of before a failover are those of the next server", _one_generation),
    "new-seq": Mutant("sent again under a new seq", _sealed_anew),
    "sent": Mutant("a batch leaves the producer when it is sent, not when it is acknowledged", _sent_is_acknowledged),
    "no-ring": Mutant(
        "what was acknowledged lately is not sent again to another Redis", _of(Sender, "_send_again", _nothing)
    ),
}


@contextmanager
def mutated(name: str) -> Generator[None]:
    """Take a mechanism away; an empty name takes none."""
    with ExitStack() as stack:
        for each in MUTANTS[name].patches() if name else ():
            stack.enter_context(each)
        yield
