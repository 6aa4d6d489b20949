"""G1: settings far from what the memory of the database's host suggests, and roles without time-outs.

Reads pg_settings, pg_db_role_setting and, when the server runs on this machine, the limit of its control group. The
formulas are pgtune's for a web application; memory is the container's limit. Elsewhere memory is unknown and that is
said; what does not depend on it is judged all the same. Never automatic.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity
from optimizers.host_memory import memory_limit
from optimizers.wording import GB, MB, grade, percent, setting_size, size, span

LOOPBACK: Final = frozenset({None, "127.0.0.1", "::1"})
UNKNOWN: Final = "the memory of the database's host is unknown: the server is not on this machine"
STATEMENT: Final = "statement_timeout"
_TIMEOUTS: Final = {
    STATEMENT: ("5s", Severity.INFO, "a query that never ends holds its connection and its locks"),
    "idle_in_transaction_session_timeout": ("60s", Severity.WARN, "a forgotten transaction holds up VACUUM and others"),
}
_TIME: Final = re.compile(r"\s*([0-9.]+)\s*(us|ms|s|min|h|d|)\s*")
_MS: Final = {"us": 0.001, "ms": 1.0, "": 1.0, "s": 1000.0, "min": 60_000.0, "h": 3_600_000.0, "d": 86_400_000.0}


@dataclass(frozen=True)
class Settings:
    """Thresholds of G1."""

    id: ClassVar[str] = "G1"
    title: ClassVar[str] = "settings"
    timeout_s: ClassVar[float] = 5.0

    factor: float = 2.0
    """A setting is far from its formula when it is this many times larger or smaller."""
    work_mem_factor: float = 4.0
    """So many times larger than its formula, work_mem may use up the host."""
    maintenance_share_warn: float = 0.125
    """Of memory, for all autovacuum workers together."""
    maintenance_share_critical: float = 0.25
    memory_bytes: float = 0.0
    """Of the database's host; 0: what its control group allows, where the server runs on this machine."""
    autovacuum_work_mem_bytes: float = 2 * GB
    """More does not help an autovacuum worker."""
    statement_ms_low: float = 500.0
    statement_ms_high: float = 5000.0
    """Between these the statements of an application should be ended."""
    long_statement_roles: str = (
        "streamgauge_owner streamgauge_aggregator streamgauge_exporter streamgauge_optimizer streamgauge_metrics"
    )
    """Roles of no application: their statements may take longer."""

    async def look(self, look: Look) -> Answer:
        """Compare with the formulas."""
        rows = await look.connection.fetch(load("check_g1_settings"))
        have = {row["name"]: float(row["value"]) for row in rows}
        memory_bytes = self.memory_bytes or await _memory(look)
        found = [*self._of_storage(have, look.version), *await _of_choices(look), *await self._of_roles(look)]
        if memory_bytes:
            found += self.of_memory(have, memory_bytes)
        return Answer(found, None if memory_bytes else UNKNOWN)

    def of_memory(self, have: Mapping[str, float], memory_bytes: float) -> list[Finding]:
        """Return what is far from its formula for so much memory."""
        wanted = formulas(have, memory_bytes)
        found = [
            finding
            for name, (wanted_bytes, above) in wanted.items()
            if (finding := self._against(name, have[name], wanted_bytes, above, memory_bytes))
        ]
        return [*found, *self._of_maintenance(have, memory_bytes)]

    def _against(
        self, name: str, value: float, wanted: float, above: Severity | None, memory_bytes: float
    ) -> Finding | None:
        factor = self.work_mem_factor if name == "work_mem" else self.factor
        if value < wanted / self.factor:
            severity = Severity.INFO
        elif value > wanted * factor and above is not None:
            severity = above
        else:
            return None
        text = f"{name} is {size(value)}; {size(memory_bytes)} of memory suggest {size(wanted)}."
        return _change(name, severity, text, setting_size(value), setting_size(wanted), memory_bytes)

    def _of_maintenance(self, have: Mapping[str, float], memory_bytes: float) -> Iterator[Finding]:
        own = have["autovacuum_work_mem"]
        name = "autovacuum_work_mem" if own > 0 else "maintenance_work_mem"
        workers = have["autovacuum_max_workers"]
        share = have[name] * workers / memory_bytes
        severity = grade(share, self.maintenance_share_warn, self.maintenance_share_critical)
        if severity is None and have[name] > self.autovacuum_work_mem_bytes:
            severity = Severity.INFO
        if severity is not None:
            wanted = min(memory_bytes * self.maintenance_share_warn / workers, self.autovacuum_work_mem_bytes)
            text = f"{workers:.0f} autovacuum workers may take {size(have[name])} each, {percent(share)} of memory."
            was = setting_size(own) if own > 0 else "-1"
            yield _change("autovacuum_work_mem", severity, text, was, setting_size(wanted), memory_bytes)

    def _of_storage(self, have: Mapping[str, float], version: int) -> Iterator[Finding]:
        cost = have["random_page_cost"]
        if cost > 1.1 * self.factor:
            text = f"random_page_cost is {cost:g}, which is right for spinning disks only; SSDs read anywhere at 1.1."
            yield _change("random_page_cost", Severity.INFO, text, f"{cost:g}", "1.1", None)
        depth = have["effective_io_concurrency"]
        if version < 18 and depth < 200 / self.factor:
            text = f"effective_io_concurrency is {depth:.0f}; SSDs take 200 requests at once, NVMe 1000."
            yield _change("effective_io_concurrency", Severity.INFO, text, f"{depth:.0f}", "200", None)
        for name, wanted in (("max_wal_size", 4 * GB), ("min_wal_size", GB)):
            if have[name] < wanted / self.factor:
                text = (
                    f"{name} is {size(have[name])}; {size(wanted)} keep checkpoints apart (W1 sees whether they are)."
                )
                yield _change(name, Severity.INFO, text, setting_size(have[name]), setting_size(wanted), None)

    async def _of_roles(self, look: Look) -> list[Finding]:
        rows = [dict(row) for row in await look.connection.fetch(load("check_g1_timeouts"))]
        long = self.long_statement_roles.split()
        found = [_without(row) if not milliseconds(row["value"]) else self._of_statements(row, long) for row in rows]
        return [finding for finding in found if finding]

    def _of_statements(self, row: Mapping[str, Any], long: Sequence[str]) -> Finding | None:
        value_ms = milliseconds(row["value"])
        is_right = self.statement_ms_low <= value_ms <= self.statement_ms_high
        if row["setting"] != STATEMENT or row["name"] in long or is_right:
            return None
        wanted = f"{self.statement_ms_high if value_ms > self.statement_ms_high else self.statement_ms_low:.0f}ms"
        text = (
            f"Role {row['role']} ends its statements after {span(value_ms / 1000)}: those of an application should end "
            f"after {span(self.statement_ms_low / 1000)} to {span(self.statement_ms_high / 1000)}"
        )
        return _of_role(row, Severity.INFO, text, wanted)


def formulas(have: Mapping[str, float], memory_bytes: float) -> dict[str, tuple[float, Severity | None]]:
    """Return setting -> (bytes by pgtune's web profile, how bad it is to be far above; None: not bad)."""
    shared = memory_bytes / 4
    sessions = have["max_connections"] + have["max_worker_processes"]
    return {
        "shared_buffers": (shared, Severity.WARN),
        "effective_cache_size": (memory_bytes * 3 / 4, Severity.WARN),
        "maintenance_work_mem": (min(memory_bytes / 16, 8 * GB), None),
        "work_mem": (max((memory_bytes - shared) / (sessions * 3), 4 * MB), Severity.WARN),
        "wal_buffers": (min(shared * 0.03, 16 * MB), None),
    }


async def _memory(look: Look) -> int | None:
    row = await look.connection.fetchrow(load("check_g1_choices"))
    if row is None or row["address"] not in LOOPBACK:
        return None
    return await asyncio.to_thread(memory_limit, row["pid"])


async def _of_choices(look: Look) -> list[Finding]:
    row = await look.connection.fetchrow(load("check_g1_choices"))
    assert row is not None
    found: list[Finding] = []
    if row["jit"]:
        text = "jit is on: compiling costs short queries more than it saves them."
        found.append(_change("jit", Severity.INFO, text, "on", "off", None))
    if row["wal_compression"] == "off":
        method = "lz4" if row["has_lz4"] else "pglz"
        text = "wal_compression is off: it makes the full pages that follow a checkpoint smaller."
        found.append(_change("wal_compression", Severity.INFO, text, "off", method, None))
    return found


def milliseconds(text: str | None) -> float:
    """Return a time as a setting has it; 0 where there is none."""
    found = _TIME.fullmatch(text or "")
    return float(found[1]) * _MS[found[2]] if found else 0.0


def _without(row: Mapping[str, Any]) -> Finding:
    wanted, severity, why = _TIMEOUTS[row["setting"]]
    hidden = " (whether the server sets one cannot be seen by a role that has its own)" if row["is_hidden"] else ""
    return _of_role(row, severity, f"Role {row['role']} has no {row['setting']}{hidden}: {why}", wanted)


def _of_role(row: Mapping[str, Any], severity: Severity, text: str, wanted: str) -> Finding:
    sql = f"ALTER ROLE {row['role']} SET {row['setting']} = '{wanted}'"
    before = f"RESET {row['setting']}" if row["own_value"] is None else f"SET {row['setting']} = '{row['own_value']}'"
    return Finding(
        object=f"{row['role']}.{row['setting']}",
        severity=severity,
        recommendation=f"{text}. {sql}.",
        evidence={"role": row["role"], "setting": row["setting"], "value_ms": milliseconds(row["value"])},
        sql=sql,
        rollback=f"ALTER ROLE {row['role']} {before}",
    )


def _change(name: str, severity: Severity, text: str, value: str, wanted: str, memory_bytes: float | None) -> Finding:
    return Finding(
        object=name,
        severity=severity,
        recommendation=f"{text} Set {name} = {wanted}.",
        evidence={"value": value, "proposed": wanted} | ({"memory_bytes": memory_bytes} if memory_bytes else {}),
        sql=f"ALTER SYSTEM SET {name} = '{wanted}'",
        rollback=f"ALTER SYSTEM SET {name} = '{value}'",
    )
