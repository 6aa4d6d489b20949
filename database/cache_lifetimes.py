"""Cache lifetimes: what each class of keys has, should have and was given, and the cycles that judged them.

In: a connection. Out: Lifetimes; a Cycle stored in one transaction with what it recommends.
Promise: a slot is judged once: its second cycle fails whole, so a change is never made twice.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final

from database.connect import Connection, transaction
from database.queries import load

KIND: Final = "cache_ttl"
"""Of its recommendations, and the name of its signal."""


@dataclass(frozen=True, kw_only=True)
class Lifetime:
    """One class of keys: a row of `cache_lifetimes`, which says what each column means."""

    key_class: str
    seen_at: datetime
    judged_to: datetime | None = None
    status: str = "insufficient_data"
    detail: str = ""
    current_s: float | None = None
    proposed_s: float | None = None
    applied_s: float | None = None
    is_ours: bool = False
    published_at: datetime | None = None
    is_watched: bool = False
    before_applied_s: float | None = None
    baseline: float | None = None
    held_until: datetime | None = None


@dataclass(frozen=True)
class Undo:
    """A change taken back."""

    key_class: str
    evidence: Mapping[str, Any]
    to_earlier: bool
    """Whether the change before it is in force again; else the class has its own lifetime."""


@dataclass(frozen=True)
class Cycle:
    """What one slot came to."""

    slot: datetime
    outcome: str
    status: str
    """Of the signal."""
    detail: str
    facts: Mapping[str, Any]
    lifetimes: Sequence[Lifetime]
    advice: Sequence[Mapping[str, Any]]
    """Keys as the columns of `recommendations`."""
    judged: Sequence[str]
    """The classes about which something new is known: what was proposed for the others stands."""
    applied: str | None = None
    """The class whose advice is made a change."""
    undone: Sequence[Undo] = field(default_factory=tuple[Undo, ...])


async def read_cycle(connection: Connection, slot: datetime) -> tuple[str, str, dict[str, Any]] | None:
    """Return outcome, detail and facts of a slot that was judged; None when it was not."""
    row = await connection.fetchrow(load("cache_ttl_cycle"), slot)
    return None if row is None else (row["outcome"], row["detail"], json.loads(row["facts"]))


async def read_lifetimes(connection: Connection) -> dict[str, Lifetime]:
    """Return every class."""
    return {row["key_class"]: Lifetime(**dict(row)) for row in await connection.fetch(load("cache_lifetimes"))}


async def store_cycle(connection: Connection, cycle: Cycle) -> None:
    """Keep a cycle, all or nothing."""
    async with transaction(connection):
        stored = (cycle.slot, cycle.outcome, cycle.detail, json.dumps(dict(cycle.facts)))
        await connection.execute(load("cache_ttl_add_cycle"), *stored)
        await connection.execute(load("cache_ttl_forget_cycles"))
        await connection.execute(load("cache_lifetimes_store"), _rows(cycle.lifetimes))
        for undo in cycle.undone:
            await connection.execute(load("cache_ttl_undo"), undo.key_class, json.dumps(dict(undo.evidence)))
            if undo.to_earlier:
                await connection.execute(load("cache_ttl_restore"), undo.key_class)
        await connection.execute(load("signal_store"), KIND, cycle.status, cycle.detail)
        proposed = [one["target"] for one in cycle.advice]
        await connection.execute(load("recommendation_gone"), KIND, proposed, cycle.judged)
        await connection.execute(load("recommendation_propose"), KIND, json.dumps(list(cycle.advice)))
        if cycle.applied is not None:
            await connection.execute(load("cache_ttl_apply"), cycle.applied)
        held = [one.key_class for one in cycle.lifetimes if one.applied_s is not None]
        await connection.execute(load("cache_ttl_in_force"), held)


async def note_published(connection: Connection, key_classes: Sequence[str]) -> None:
    """Note that Redis holds what it shall of these classes."""
    await connection.execute(load("cache_lifetimes_published"), key_classes)


def _rows(lifetimes: Sequence[Lifetime]) -> str:
    return json.dumps([asdict(one) for one in lifetimes], default=datetime.isoformat)
