"""Rules P1-P12: PostgreSQL, from its configuration files and from the server itself.

Live checks read catalogues only; what they ask stands in `database/queries/hardening_*.sql`.
"""

import re
from collections.abc import Iterable
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from database.queries import load
from streamgauge.hardening.compose_rules import each
from streamgauge.hardening.files import Files, environment
from streamgauge.hardening.live import ASK_S, Live
from streamgauge.hardening.rule import Rule

CONF: Final = "database/postgresql.conf"
STRONG: Final = frozenset({"scram-sha-256", "cert", "peer", "reject"})
LOGGED: Final = ("log_connections", "log_disconnections", "log_lock_waits")
PREFIX: Final = ("%m", "%p", "%u", "%d", "%a")
EXTENSIONS: Final = frozenset({"plpgsql", "pg_stat_statements", "hypopg", "pgstattuple"})
CAREFUL: Final = {"ssl": "on", "fsync": "on", "full_page_writes": "on"}


def p1(files: Files) -> Iterable[str]:
    """SCRAM."""
    said = files.postgresql.get("password_encryption", "scram-sha-256")
    return [] if said == "scram-sha-256" else [f"password_encryption = {said}"]


def p2(files: Files) -> Iterable[str]:
    """pg_hba.conf."""
    for words in files.hba:
        method = words[3] if words[0] == "local" else words[-1] if len(words) > 4 else ""
        if method not in STRONG:
            yield f"'{' '.join(words)}' lets in by {method or 'nothing'}"
        if words[0] in ("host", "hostnossl") and method != "reject":
            yield f"'{' '.join(words)}' allows connections without TLS"
        if (
            words[1] == "replication"
            and method != "reject"
            and words[0] != "local"
            and words[3] in ("all", "0.0.0.0/0", "::/0")
        ):
            yield f"'{' '.join(words)}' lets replicas in from anywhere"


def p3(files: Files) -> Iterable[str]:
    """TLS."""
    if files.postgresql.get("ssl") != "on":
        yield "ssl is not on"
    if files.postgresql.get("ssl_min_protocol_version", "TLSv1.2") not in ("TLSv1.2", "TLSv1.3"):
        yield "TLS below 1.2 is allowed"


def p7(files: Files) -> Iterable[str]:
    """Logs."""
    yield from (f"{name} is not on" for name in LOGGED if files.postgresql.get(name) != "on")
    if files.postgresql.get("log_min_duration_statement", "-1") == "-1":
        yield "slow statements are not logged"
    prefix = files.postgresql.get("log_line_prefix", "")
    yield from (f"log_line_prefix lacks {part}" for part in PREFIX if part not in prefix)


def p9(files: Files) -> Iterable[str]:
    """Durable, with checksums."""
    yield from (f"{name} is off" for name in ("fsync", "full_page_writes") if files.postgresql.get(name, "on") != "on")
    for name, service in each(files):
        arguments = environment(service).get("POSTGRES_INITDB_ARGS", "")
        if name.startswith("postgres-primary") and "--data-checksums" not in arguments:
            yield f"{name}: POSTGRES_INITDB_ARGS has no --data-checksums"


def p11(files: Files) -> Iterable[str]:
    """Slots are limited."""
    kept = files.postgresql.get("max_slot_wal_keep_size", "-1")
    return ["max_slot_wal_keep_size is -1: a replica that is away fills the disk"] if kept == "-1" else []


@asynccontextmanager
async def _connected(live: Live):
    connection = await asyncpg.connect(live.named("postgres"), timeout=ASK_S, command_timeout=ASK_S)
    try:
        yield connection
    finally:
        await connection.close(timeout=ASK_S)


async def _faults(live: Live, query: str) -> list[str]:
    """Run a query that returns a sentence for each fault."""
    async with _connected(live) as connection:
        return [str(row["fault"]) for row in await connection.fetch(load(query))]


async def _settings(live: Live) -> dict[str, str]:
    async with _connected(live) as connection:
        return {row["name"]: row["setting"] for row in await connection.fetch(load("hardening_settings"))}


async def live_p1(live: Live) -> Iterable[str]:
    """SCRAM, and no password kept as MD5."""
    return await _faults(live, "hardening_passwords")


async def live_p2(live: Live) -> Iterable[str]:
    """The rules in force."""
    return await _faults(live, "hardening_hba")


async def live_p3(live: Live) -> Iterable[str]:
    """TLS, also of the connections there are."""
    return await _faults(live, "hardening_tls")


async def live_p4(live: Live) -> Iterable[str]:
    """Roles."""
    return await _faults(live, "hardening_roles")


async def live_p5(live: Live) -> Iterable[str]:
    """Schema public."""
    return await _faults(live, "hardening_public")


async def live_p6(live: Live) -> Iterable[str]:
    """SECURITY DEFINER."""
    return await _faults(live, "hardening_definers")


async def live_p7(live: Live) -> Iterable[str]:
    """Logs."""
    found = await _settings(live)
    # Since PostgreSQL 18 log_connections names what is logged.
    faults = [f"{name} is {found[name] or 'off'}" for name in LOGGED if found[name] in ("off", "")]
    faults += [f"log_line_prefix lacks {part}" for part in PREFIX if part not in found["log_line_prefix"]]
    return faults + (["slow statements are not logged"] if found["log_min_duration_statement"] == "-1" else [])


async def live_p8(live: Live) -> Iterable[str]:
    """Time-outs of roles."""
    return await _faults(live, "hardening_timeouts")


async def live_p9(live: Live) -> Iterable[str]:
    """Durable, with checksums."""
    found = await _settings(live)
    return [f"{name} is off" for name in ("fsync", "full_page_writes", "data_checksums") if found[name] != "on"]


async def live_p10(live: Live) -> Iterable[str]:
    """Mode of the data directory as PostgreSQL found it when it started; 0750 is the other one that it starts with."""
    mode = (await _settings(live))["data_directory_mode"]
    return [] if mode == "0700" else [f"the data directory has mode {mode}"]


async def live_p11(live: Live) -> Iterable[str]:
    """Slots are limited."""
    kept = (await _settings(live))["max_slot_wal_keep_size"]
    return ["max_slot_wal_keep_size is -1: a replica that is away fills the disk"] if kept == "-1" else []


async def live_p12(live: Live) -> Iterable[str]:
    """Extensions and languages."""
    async with _connected(live) as connection:
        extensions = [row["extname"] for row in await connection.fetch(load("hardening_extensions"))]
        languages = [row["lanname"] for row in await connection.fetch(load("hardening_languages"))]
    found = [f"extension {name} is not on the list" for name in extensions if name not in EXTENSIONS]
    return found + [f"language {name} is untrusted" for name in languages]


def p8(files: Files) -> Iterable[str]:
    """Time-outs of roles, as they are made."""
    roles = re.sub(r"--.*", "", files.text("database/roles.sql"))
    made = set(re.findall(r"\bstreamgauge_\w+", roles))
    for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
        limited = set(re.findall(rf"ALTER ROLE\s+(\w+)\s+SET\s+{name}\b", roles))
        yield from (f"{role} has no {name}" for role in sorted(made - limited))


RULES: Final = (
    Rule("P1", "critical", "passwords are SCRAM", "password_encryption = scram-sha-256; set them anew", p1, live_p1),
    Rule("P2", "critical", "pg_hba.conf lets in by SCRAM and TLS only", "hostssl … scram-sha-256", p2, live_p2),
    Rule("P3", "critical", "TLS 1.2 or newer is on", "ssl = on; ssl_min_protocol_version = 'TLSv1.2'", p3, live_p3),
    Rule(
        "P4",
        "critical",
        "roles of services have no rights over the server",
        "ALTER ROLE … NOSUPERUSER …",
        None,
        live_p4,
    ),
    Rule(
        "P5",
        "warning",
        "PUBLIC makes nothing in schema public",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        None,
        live_p5,
    ),
    Rule(
        "P6",
        "warning",
        "SECURITY DEFINER functions name their search_path",
        "ALTER FUNCTION … SET search_path",
        None,
        live_p6,
    ),
    Rule(
        "P7",
        "warning",
        "connections, lock waits and slow statements are logged",
        "see database/postgresql.conf",
        p7,
        live_p7,
    ),
    Rule("P8", "warning", "roles of services have time-outs", "ALTER ROLE … SET statement_timeout", p8, live_p8),
    Rule(
        "P9",
        "critical",
        "commits are durable and pages have checksums",
        "fsync = on; initdb --data-checksums",
        p9,
        live_p9,
    ),
    Rule("P10", "critical", "the data directory is private", "chmod 0700", None, live_p10),
    Rule("P11", "critical", "what a slot may hold back is limited", "max_slot_wal_keep_size = 8GB", p11, live_p11),
    Rule("P12", "warning", "only known extensions, no untrusted language", "DROP EXTENSION", None, live_p12),
)
