"""Q4: sorts and hashes that do not fit into work_mem and go to disk.

Reads pg_stat_database (temp_files, temp_bytes) as hourly deltas, and names the statements that wrote most where
pg_stat_statements is there. Never automatic: memory is a decision. Source of the thresholds: pgdoctor.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from database.queries import load
from optimizers.check import Answer, Finding, Look, Severity
from optimizers.statements import spent_since, statements_if_any
from optimizers.wording import grade, size, worst

BLOCK_BYTES: Final = 8192
NAMED: Final = 3


@dataclass(frozen=True)
class SpillToDisk:
    """Thresholds of Q4, per hour."""

    id: ClassVar[str] = "Q4"
    title: ClassVar[str] = "spill to disk"
    timeout_s: ClassVar[float] = 15.0

    files_warn: float = 5.0
    files_critical: float = 20.0
    bytes_warn: float = 1024.0**3
    bytes_critical: float = 5 * 1024.0**3

    async def look(self, look: Look) -> Answer:
        """Return the database when it spilled more than it should in about an hour."""
        row = await look.connection.fetchrow(load("check_q4_spills"))
        assert row is not None
        name: str = row["name"]
        counters = {name: {"files": float(row["temp_files"]), "bytes": float(row["temp_bytes"])}}
        interval = await look.since("spills", counters)
        writers = await self._writers(look)
        if interval is None or name not in interval.deltas:
            return Answer(insufficient="no hour of temporary files yet")
        files, written = (interval.deltas[name][key] / interval.hours for key in ("files", "bytes"))
        severity = worst(
            grade(files, self.files_warn, self.files_critical), grade(written, self.bytes_warn, self.bytes_critical)
        )
        return Answer([] if severity is None else [_finding(name, severity, files, written, writers)])

    async def _writers(self, look: Look) -> list[dict[str, Any]]:
        """Return the statements that wrote most temporary blocks; empty where nobody counts them."""
        statements = await statements_if_any(look)
        spent = await spent_since(look, statements) if statements else None
        if spent is None:
            return []
        writing = {name: each["temp_blocks"] for name, each in spent.by_id.items() if each["temp_blocks"] > 0}
        most = sorted(writing, key=lambda name: -writing[name])[:NAMED]
        return [
            {
                "queryid": name,
                "query": statements[name].shown,
                "roles": statements[name].roles,
                "written_bytes": writing[name] * BLOCK_BYTES,
            }
            for name in most
        ]


def _finding(name: str, severity: Severity, files: float, written: float, writers: list[dict[str, Any]]) -> Finding:
    roles = sorted({role for writer in writers for role in writer["roles"]})
    by = f"; most by query {', '.join(writer['queryid'] for writer in writers)}" if writers else ""
    role = " or ".join(roles) or "the role that runs them"
    return Finding(
        object=name,
        severity=severity,
        recommendation=(
            f"Database {name} wrote {files:.0f} temporary files, {size(written)}, in an hour{by}. "
            f"Give work_mem to {role}, not to all: each sort of each connection may take it. Or index what is sorted."
        ),
        evidence={"files_per_hour": files, "bytes_per_hour": written, "queries": writers},
    )
