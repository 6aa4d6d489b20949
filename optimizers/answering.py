"""Answering: one check looks once, apart from all others.

In: a check and its look. Out: an `Answered` for the store: findings with fingerprints, or what went wrong.
Promise: the check's transaction is rolled back, its time-out holds on both sides, and no failure of it leaves here.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import asyncpg

from contract.errors import error_text
from database.connect import AWAY, is_failover, is_lost
from database.optimization import Answered
from optimizers.check import Answer, Check, Finding, Severity, Tier, Unsupported
from optimizers.target_look import TargetLook
from optimizers.targets import STATEMENT_TIMEOUT_S, Target

log = logging.getLogger(__name__)

MAX_FINDINGS: Final = 25
"""Kept of one check, worst first."""
_ORDER: Final = (Severity.CRITICAL, Severity.WARN, Severity.INFO)
_FAULTS: Final = (
    *AWAY,
    Unsupported,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
_UNSUPPORTED: Final = (
    Unsupported,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.FeatureNotSupportedError,
    asyncpg.ObjectNotInPrerequisiteStateError,
)
_TIMEOUTS: Final = (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError, TimeoutError)


async def answer(check: Check, target: Target, look: TargetLook) -> Answered:
    """Let a check look; raises only when the monitoring database is away."""
    blank = Answered(target.name, check.id, check.title, look.now, 0.0)
    started = time.perf_counter()
    try:
        said = await _look(check, look)
        found = replace(blank, **_rows(said, check.id, target))
    except _FAULTS as error:
        if is_lost(look.counters.store):
            raise
        kind = "unreachable" if is_lost(look.connection) or is_failover(error) else _kind(error)
        if kind == "fault":
            log.warning("check_failed", extra={"check": check.id, "target": target.name, "error": error_text(error)})
        found = failed(blank, kind, describe(error))
    return replace(found, duration_s=time.perf_counter() - started)


async def _look(check: Check, look: TargetLook) -> Answer:
    limit_ms = int(min(check.timeout_s, STATEMENT_TIMEOUT_S) * 1000)
    async with asyncio.timeout(check.timeout_s):
        await look.connection.execute(f"BEGIN READ ONLY; SET LOCAL statement_timeout = {limit_ms}")
        try:
            return await check.look(look)
        finally:
            if not is_lost(look.connection):
                await look.connection.execute("ROLLBACK")


def failed(blank: Answered, kind: str, detail: str) -> Answered:
    """Return the entry of a check that could not answer."""
    return replace(blank, error_kind=kind, detail=detail)


def describe(error: BaseException) -> str:
    """Return one line about an error; only the server's own words and ours, for others may hold an address."""
    spoken = isinstance(error, (asyncpg.PostgresError, Unsupported))
    text = str(error) if spoken else ""
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__


def fingerprint(check_id: str, object_name: str, target: str) -> str:
    """Return what identifies a finding from run to run."""
    return hashlib.sha256("\0".join((check_id, object_name, target)).encode()).hexdigest()[:16]


def _kind(error: BaseException) -> str:
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return "permission"
    if isinstance(error, _TIMEOUTS):
        return "timeout"
    return "unsupported" if isinstance(error, _UNSUPPORTED) else "fault"


def _rows(said: Answer, check_id: str, target: Target) -> Mapping[str, Any]:
    worst_first = sorted(said.findings, key=lambda finding: _ORDER.index(finding.severity))
    rows: dict[str, dict[str, Any]] = {}
    for finding in worst_first:
        # An object that is named twice is one finding, its worst.
        rows.setdefault(fingerprint(check_id, finding.object, target.name), _row(finding, check_id, target))
    kept: Sequence[dict[str, Any]] = [row | {"fingerprint": name} for name, row in rows.items()][:MAX_FINDINGS]
    return {"findings": kept, "fingerprints": list(rows), "insufficient": said.insufficient}


def _row(finding: Finding, check_id: str, target: Target) -> dict[str, Any]:
    # Only our own database is changed unasked.
    is_asked = finding.tier is Tier.AUTOMATIC and not target.is_monitoring
    return {
        "target": target.name,
        "check_id": check_id,
        "object": finding.object,
        "severity": finding.severity,
        "evidence": dict(finding.evidence),
        "recommendation": finding.recommendation,
        "sql": finding.sql,
        "rollback": finding.rollback,
        "tier": Tier.OPT_IN if is_asked else finding.tier,
        "remedy": finding.remedy,
    }
