"""`streamgauge check-config`: would the services start here, and are their servers set up as they need them?

In: the environment that the services get. Out: a line for each thing looked at; 0 fine, 1 something critical is wrong
with a server, 2 a setting cannot be used (it is named).
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

from asyncpg import ClientConfigurationError
from redis.exceptions import RedisError

from database.connect import AWAY, Connection, acquire, open_pool
from database.migrate import SchemaError, check
from database.queries import load
from database.redis_link import open_link
from database.settings import PostgresSettings, RedisSettings, SettingsError, read_settings
from streamgauge.commands import Subparsers
from streamgauge.hardening.report import as_json, as_text, exit_code
from streamgauge.hardening.rule import Severity, Status, Verdict
from streamgauge.reach import describe_away, environment

SERVICES: Final = ("aggregator", "exporter", "producer")
OLDEST_POSTGRES: Final = 15
OLDEST_REDIS: Final = (6, 2)
CLOCK_S: Final = 5.0


class Found(NamedTuple):
    """What one look found; `fault` is empty when all is well."""

    fault: str
    evidence: str


def add_parser(sub: Subparsers) -> None:
    """Declare the options."""
    parser = sub.add_parser("check-config", help="check settings, and the servers that they name")
    parser.add_argument("--service", action="append", choices=SERVICES, help="whose settings (default: all)")
    parser.add_argument("--offline", action="store_true", help="settings and files only: ask no server")
    parser.add_argument("--format", choices=("text", "json"), default="text")


def run(args: argparse.Namespace) -> int:
    """Check once. SettingsError (exit code 2) names the first setting that cannot be used."""
    try:
        verdicts = _verdicts(args)
    except SettingsError as error:
        if args.format == "json":
            print(as_json([Verdict("settings", "critical", Status.FAIL, str(error), "correct the setting")]))
        raise
    print((as_json if args.format == "json" else as_text)(verdicts))
    return exit_code(verdicts)


def _verdicts(args: argparse.Namespace) -> list[Verdict]:
    environ = environment()
    verdicts = [_settings(environ, name) for name in args.service or SERVICES]
    if not args.offline:
        verdicts += asyncio.run(_servers(environ))
    return verdicts


def _settings(environ: Mapping[str, str], service: str) -> Verdict:
    READERS[service](environ)
    return Verdict(f"S-{service}", "critical", Status.PASS, "its settings can be used", "")


def _aggregator(environ: Mapping[str, str]) -> None:
    from aggregator.settings import AggregatorSettings
    from optimizers.check_settings import read_checks
    from optimizers.checks import CHECKS
    from optimizers.targets import read_targets
    from optimizers.thresholds.definitions import read_definitions

    settings = read_settings(AggregatorSettings, environ)
    read_checks(CHECKS, settings.streamgauge_checks_file)
    read_definitions(settings.streamgauge_thresholds_file)
    read_targets(settings)
    open_link(settings)


def _exporter(environ: Mapping[str, str]) -> None:
    from database.replicas import read_replicas
    from exporter.derived import read_derived
    from exporter.settings import ExporterSettings, check_access

    settings = read_settings(ExporterSettings, environ)
    check_access(settings)
    read_derived(settings.streamgauge_derived_file)
    if settings.streamgauge_postgres_replicas:
        read_replicas(settings.streamgauge_postgres_replicas.get_secret_value())
    open_link(settings)


def _producer(environ: Mapping[str, str]) -> None:
    from contract.redis_url import parse_redis_url
    from producers.settings import Settings

    try:
        parse_redis_url(Settings.read(environ).redis_url)
    except ValueError as error:  # the producers' own SettingsError is one
        text = str(error)
        raise SettingsError(text if text.startswith("STREAMGAUGE_") else f"REDIS_URL: {text}") from None


READERS: Final[Mapping[str, Callable[[Mapping[str, str]], None]]] = {
    "aggregator": _aggregator,
    "exporter": _exporter,
    "producer": _producer,
}


async def _servers(environ: Mapping[str, str]) -> list[Verdict]:
    return [
        *await _unless_away("PG-answers", "start PostgreSQL, or correct POSTGRES_DSN", _postgres, environ),
        *await _unless_away("RE-answers", "start Redis, or correct REDIS_URL", _redis, environ),
    ]


async def _unless_away(
    name: str, fix: str, ask: Callable[[Mapping[str, str]], Awaitable[list[Verdict]]], environ: Mapping[str, str]
) -> list[Verdict]:
    try:
        return await ask(environ)
    except ClientConfigurationError as error:
        raise SettingsError(f"POSTGRES_DSN: {error}") from None
    except (*AWAY, RedisError) as error:
        return [Verdict(name, "critical", Status.FAIL, describe_away(error), fix)]


async def _postgres(environ: Mapping[str, str]) -> list[Verdict]:
    pool = await open_pool(read_settings(PostgresSettings, environ), application="streamgauge check-config", size=1)
    try:
        async with acquire(pool) as connection:
            return [
                await _look("PG-version", "critical", "PostgreSQL 15 or newer", lambda: _version(connection)),
                await _look("PG-schema", "critical", "streamgauge migrate", lambda: _schema(connection)),
                await _look("PG-clock", "warning", "set the clocks by NTP", lambda: _clock(connection)),
                await _look("PG-commit", "critical", "synchronous_commit = on", lambda: _synchronous(connection)),
            ]
    finally:
        await pool.close()


async def _redis(environ: Mapping[str, str]) -> list[Verdict]:
    settings = read_settings(RedisSettings, environ)
    link = open_link(settings)
    try:
        info = await link.info()
        return [
            await _look("RE-version", "critical", "Redis 6.2 or newer", lambda: _redis_version(info)),
            await _look("RE-role", "critical", "name the master, or its Sentinels", lambda: _role(info)),
            await _look("RE-policy", "critical", "maxmemory-policy noeviction", lambda: _policy(info)),
            await _look("RE-disk", "warning", "appendonly yes", lambda: _disk(info)),
            await _look("RE-shards", "warning", "the number only grows", lambda: _shards(link, settings)),
            await _look("RE-clock", "warning", "set the clocks by NTP", lambda: _redis_clock(link)),
        ]
    finally:
        await link.aclose()


async def _look(name: str, severity: Severity, fix: str, ask: Callable[[], Awaitable[Found]]) -> Verdict:
    found = await ask()
    if found.fault:
        return Verdict(name, severity, Status.FAIL, found.fault, fix)
    return Verdict(name, severity, Status.PASS, found.evidence, "")


async def _version(connection: Connection) -> Found:
    major = connection.get_server_version().major
    told = f"PostgreSQL {major}"
    return Found(f"{told} is older than {OLDEST_POSTGRES}" if major < OLDEST_POSTGRES else "", told)


async def _schema(connection: Connection) -> Found:
    try:
        await check(connection)
    except SchemaError as error:
        return Found(str(error), "")
    return Found("", "the schema is at the newest version")


async def _clock(connection: Connection) -> Found:
    before = time.time()
    there = float(await connection.fetchval(load("clock")))
    return _apart("PostgreSQL", there - (before + time.time()) / 2)


async def _synchronous(connection: Connection) -> Found:
    said = await connection.fetchval("SHOW synchronous_commit")
    lost = "a crash loses commits whose events are acknowledged already"
    return Found(f"synchronous_commit is off: {lost}" if said == "off" else "", f"synchronous_commit is {said}")


async def _redis_version(info: Mapping[str, Any]) -> Found:
    told = str(info["redis_version"])
    version = tuple(int(part) for part in told.split(".")[:2])
    return Found(f"Redis {told} is older than 6.2" if version < OLDEST_REDIS else "", f"Redis {told}")


async def _role(info: Mapping[str, Any]) -> Found:
    role = str(info["role"])
    return Found("" if role == "master" else f"is a {role}: it takes no writes", f"is a {role}")


async def _policy(info: Mapping[str, Any]) -> Found:
    policy = str(info.get("maxmemory_policy", "unknown"))
    if policy == "noeviction":
        return Found("", "no stream is evicted")
    return Found(f"maxmemory-policy is {policy}: a full server would throw streams away", "")


async def _disk(info: Mapping[str, Any]) -> Found:
    is_on = str(info.get("aof_enabled")) == "1"
    return Found("" if is_on else "appendonly is off: a restart loses what is not committed", "appendonly is on")


async def _shards(link: Any, settings: RedisSettings) -> Found:
    from contract.streams import SHARD_COUNT_KEY

    stored, wanted = await link.get(SHARD_COUNT_KEY), settings.streamgauge_shards
    if stored is None:
        return Found("", f"none recorded yet; {wanted} will be")
    if int(stored) > wanted:
        return Found(f"STREAMGAUGE_SHARDS is {wanted}, and Redis has {int(stored)}: {int(stored)} hold", "")
    return Found("", f"{int(stored)} recorded, {wanted} wanted")


async def _redis_clock(link: Any) -> Found:
    before = time.time()
    seconds, micros = await link.time()
    return _apart("Redis", seconds + micros / 1e6 - (before + time.time()) / 2)


def _apart(what: str, seconds: float) -> Found:
    told = f"the clock of {what} is {seconds:+.2f} s from this machine's"
    return Found(told if abs(seconds) > CLOCK_S else "", told)
