"""Applying one finding because a person says so.

In: the beginning of a fingerprint. Out: the change that was made, with what was before and after, and how to undo it.
Promise: one at a time over all processes; only a finding that its check still finds, with the statement that was
shown; another database is changed only by the address that was given for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from database import optimization
from database.connect import AWAY, Connection, is_lost
from database.optimization import Answered
from optimizers import actions
from optimizers.answering import answer, describe
from optimizers.check import Check, Remedy, Tier
from optimizers.counters import Counters
from optimizers.database_optimizer import INTERVAL_S, LOCKED, DatabaseOptimizer
from optimizers.meter import Meter
from optimizers.target_look import Nodes, TargetLook, read_facts
from optimizers.targets import Target, connected


class Refused(Exception):
    """The finding is not applied; the text says why."""


@dataclass(frozen=True)
class Applied:
    """A change that was tried."""

    target: str
    check: str
    object: str
    sql: str
    rollback: str | None
    """None: there is nothing to undo."""
    error: str | None
    """None: it was made."""
    is_still_found: bool | None
    """Whether the check finds it again; None where it could not look."""


async def apply(optimizer: DatabaseOptimizer, fingerprint: str) -> Applied:
    """Apply a finding of the opt-in (or automatic) tier; Refused says why not."""
    meter = Meter(INTERVAL_S)
    async with optimizer.store(meter) as store:
        if not await optimization.try_lock(store):
            raise Refused(LOCKED)
        finding = await _find(store, fingerprint)
        target = _target(optimizer, finding)
        check = next((each for each in optimizer.checks if each.id == finding["check_id"]), None)
        if check is None:
            raise Refused(f"there is no check {finding['check_id']} any more")
        run_id = await optimization.begin(store)
        try:
            return await _apply(optimizer, store, meter, finding, target, check)
        finally:
            if not is_lost(store):
                await optimization.end(store, run_id, "applied", meter.statement_s, meter.peak)


async def _apply(
    optimizer: DatabaseOptimizer,
    store: Connection,
    meter: Meter,
    finding: Mapping[str, Any],
    target: Target,
    check: Check,
) -> Applied:
    """Make the change, having looked again before it and after."""
    _require_same(finding, await _look_again(optimizer, store, meter, target, check))
    assert target.apply is not None
    limit_s = optimizer.settings.streamgauge_postgres_connect_timeout_s
    try:
        async with connected(target.apply, meter, limit_s, changes=True) as connection:
            error = await actions.change(store, connection, optimizer.settings, finding)
    except AWAY as failure:
        if is_lost(store):
            raise
        raise Refused(f"{target.name} does not answer: {describe(failure)}") from None
    after = await _look_again(optimizer, store, meter, target, check)
    return Applied(
        target.name,
        check.id,
        finding["object"],
        finding["sql"] or f"upkeep: {finding['remedy']}",
        finding["rollback"],
        error,
        None if after.error_kind or after.insufficient else finding["fingerprint"] in after.fingerprints,
    )


async def _find(store: Connection, fingerprint: str) -> Mapping[str, Any]:
    found = await optimization.find(store, fingerprint) if fingerprint else []
    if len(found) != 1:
        raise Refused(f"{'several findings begin' if found else 'no finding begins'} with {fingerprint!r}")
    finding = dict(found[0])
    if finding["state"] == "resolved":
        raise Refused("it is resolved")
    if finding["tier"] == Tier.NEVER or (finding["sql"] is None and finding["remedy"] == Remedy.SQL):
        raise Refused("findings like this are for a person: copy the statement and run it yourself")
    return finding


def _target(optimizer: DatabaseOptimizer, finding: Mapping[str, Any]) -> Target:
    target = next((each for each in optimizer.targets if each.name == finding["target"]), None)
    if target is None:
        raise Refused(f"there is no target {finding['target']} any more")
    if target.apply is None:
        raise Refused(
            f"{target.name} is only looked at: STREAMGAUGE_OPTIMIZER_APPLY_TARGETS has no address to change it by"
        )
    return target


async def _look_again(
    optimizer: DatabaseOptimizer, store: Connection, meter: Meter, target: Target, check: Check
) -> Answered:
    settings = optimizer.settings
    try:
        async with connected(target.address, meter, settings.streamgauge_postgres_connect_timeout_s) as connection:
            facts, now = await read_facts(connection), datetime.now(UTC)
            shortest_s = settings.streamgauge_optimizer_shortest_interval_s
            counters = Counters(store, target.name, check.id, facts.epoch, now, shortest_s)
            look = TargetLook(Nodes(connection), settings, now, target.is_monitoring, facts, counters)
            return await answer(check, target, look)
    except AWAY as error:
        if is_lost(store):
            raise
        raise Refused(f"{target.name} does not answer: {describe(error)}") from None


def _require_same(finding: Mapping[str, Any], now: Answered) -> None:
    if now.error_kind:
        raise Refused(f"its check cannot look: {now.detail}")
    same = next((each for each in now.findings if each["fingerprint"] == finding["fingerprint"]), None)
    if same is None and now.insufficient is None:
        raise Refused("its check does not find it any more")
    if same is not None and same["sql"] != finding["sql"]:
        raise Refused("its statement has changed: run `streamgauge optimize` and look at it again")
