"""Rules R1-R7: Redis and Sentinel, from their configuration files and from the servers themselves."""

import re
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from streamgauge.hardening.compose_rules import exposed, memory_limit
from streamgauge.hardening.files import Files
from streamgauge.hardening.live import ASK_S, Live
from streamgauge.hardening.rule import Rule

STREAMS: Final = "redis/redis.conf"
CACHE: Final = "redis/cache.conf"
SENTINEL: Final = "redis/sentinel.conf"
USERS: Final = ("redis/users.acl", "redis/cache-users.acl")
APPLICATION: Final = ("producer", "exporter")
"""Users that must be there: they only send or only look."""
NOT_APPLICATIONS: Final = frozenset({"default", "admin", "replica", "sentinel"})
DANGEROUS: Final = ("flushall", "flushdb", "config", "keys", "debug", "shutdown", "acl", "replicaof", "slaveof", "save")
"""Commands, whichever of their subcommands; and these categories."""
WIDE: Final = ("@all", "@dangerous", "@admin")
MEMORY_SHARE: Final = 0.7


def users(text: str) -> dict[str, list[str]]:
    """Return the rules of each user of an ACL file; those of selectors, which stand in brackets, among them."""
    lines = (line.replace("(", " ").replace(")", " ").split() for line in text.splitlines())
    return {words[1]: words[2:] for words in lines if len(words) > 1 and words[0] == "user"}


def r1(files: Files) -> Iterable[str]:
    """The default user is off; others are limited to keys and commands."""
    yield from open_doors(users(files.text(USERS[0])))
    if "off" not in users(files.text(USERS[1])).get("default", []):
        yield f"{USERS[1]}: the default user is on"


def open_doors(found: Mapping[str, list[str]]) -> Iterable[str]:
    """Yield what users may that they should not, from their rules."""
    if "off" not in found.get("default", []):
        yield "the default user is on"
    for name, rules in found.items():
        if name != "default" and "nopass" in rules and "off" not in rules:
            yield f"{name} needs no password"
        yield from (f"{name} has a password in clear text" for rule in rules if rule.startswith(">"))
    for name in APPLICATION:
        if name not in found:
            yield f"there is no user {name}"
            continue
        if {"~*", "allkeys"} & set(found[name]) and name == "producer":
            yield f"{name} may use every key"
        if {"+@all", "allcommands"} & set(found[name]):
            yield f"{name} may use every command"


def r2(files: Files) -> Iterable[str]:
    """No user but the admin and Redis's own has a dangerous command."""
    for file in USERS:
        for name, rules in users(files.text(file)).items():
            granted = [rule[1:].partition("|")[0].lower() for rule in rules if rule.startswith("+")]
            granted += ["@all" for rule in rules if rule == "allcommands"]
            bad = [one for one in granted if one in DANGEROUS or one in WIDE]
            yield from (f"{name} may {one.upper()}" for one in bad if name not in NOT_APPLICATIONS)


def r3(files: Files) -> Iterable[str]:
    """Protected mode, or a bind address with users; Sentinel too."""
    for name in (STREAMS, CACHE, SENTINEL):
        found = files.redis(name)
        is_protected = found.get("protected-mode", ["yes" if name != SENTINEL else "no"])[-1] == "yes"
        has_access = bool(found.keys() & {"aclfile", "requirepass", "user"})
        if not is_protected and not has_access:
            yield f"{name}: open to everybody"


def r4(files: Files) -> Iterable[str]:
    """No command that debugs or changes protected settings."""
    for name in (STREAMS, CACHE):
        found = files.redis(name)
        for directive in ("enable-debug-command", "enable-protected-configs", "enable-module-command"):
            if found.get(directive, ["no"])[-1] != "no":
                yield f"{name}: {directive} {found[directive][-1]}"


def r5(files: Files) -> Iterable[str]:
    """TLS, or an internal network only."""
    outside = sorted(exposed(files, ("redis-", "sentinel-")))
    for name in (STREAMS, CACHE):
        if outside and not files.redis(name).get("tls-port"):
            yield f"{name}: no TLS, and {', '.join(outside)} is on a network that is not internal"


def r6(files: Files) -> Iterable[str]:
    """The streams are never evicted, are on disk, and fit into their container."""
    found = files.redis(STREAMS)
    for directive, wanted in (("maxmemory-policy", "noeviction"), ("appendonly", "yes")):
        if found.get(directive, [""])[-1] != wanted:
            yield f"{directive} is not {wanted}"
    most = size(found.get("maxmemory", ["0"])[-1])
    if not most:
        yield "maxmemory is not set"
    for name, service in sorted(files.services.items()):
        limit = memory_limit(service)
        if re.fullmatch(r"redis-\d+", name) and limit and most > MEMORY_SHARE * limit:
            yield f"{name}: maxmemory is more than 70 % of the container's memory: saving needs the rest"


def r7(files: Files) -> Iterable[str]:
    """Sentinels take no scripts from the network; a majority decides."""
    found = files.redis(SENTINEL)
    told = [text.split() for text in found.get("sentinel", [])]
    if ["deny-scripts-reconfig", "yes"] not in told:
        yield "sentinel deny-scripts-reconfig is not yes"
    quorums = [words[-1] for words in told if words and words[0] == "monitor"]
    count = sum(bool(re.fullmatch(r"sentinel-\d+", name)) for name in files.services)
    if not quorums:
        yield "no master is monitored"
    yield from (f"quorum {one} of {count} is no majority" for one in quorums if _is_no_majority(one, count))


def _is_no_majority(quorum: str, count: int) -> bool:
    return quorum.isdecimal() and count > 0 and int(quorum) <= count // 2


def size(text: str) -> int:
    """Return bytes of a size as Redis writes it: 1gb, 512mb, 100."""
    units = {"": 1, "b": 1, "k": 1000, "kb": 1024, "m": 10**6, "mb": 1 << 20, "g": 10**9, "gb": 1 << 30}
    found = re.fullmatch(r"(\d+)([a-z]*)", text.strip().lower())
    return int(found[1]) * units.get(found[2], 0) if found else 0


@asynccontextmanager
async def _asked(url: str) -> AsyncGenerator[Any, None]:
    client: Any = Redis.from_url(
        url, protocol=2, decode_responses=True, socket_timeout=ASK_S, socket_connect_timeout=ASK_S
    )
    try:
        yield client
    finally:
        await client.aclose()


async def live_r1(live: Live) -> Iterable[str]:
    """The users in force."""
    async with _asked(live.named("redis")) as client:
        lines: list[str] = await client.acl_list()
    return open_doors({words[1]: words[2:] for words in map(str.split, lines)})


async def live_r2(live: Live) -> Iterable[str]:
    """What the server would let applications do (ACL DRYRUN, Redis 7)."""
    async with _asked(live.named("redis")) as client:
        faults: list[str] = []
        there: list[str] = await client.acl_users()
        faults += [f"there is no user {user}" for user in APPLICATION if user not in there]
        for user in sorted(set(there) - NOT_APPLICATIONS):
            for command in (("FLUSHALL",), ("CONFIG", "GET", "x"), ("KEYS", "*"), ("SHUTDOWN",), ("ACL", "LIST")):
                answer = await client.execute_command("ACL", "DRYRUN", user, *command)
                if answer == "OK":
                    faults.append(f"{user} may {command[0]}")
        return faults


async def live_r3(live: Live) -> Iterable[str]:
    """A stranger gets nothing."""
    faults: list[str] = []
    for option in ("redis", "sentinel"):
        async with _asked(re.sub(r"//[^@/]*@", "//", live.named(option))) as client:
            try:
                await client.ping()
            except Exception as error:
                if "NOAUTH" in str(error) or "uthentication" in str(error):
                    continue
                raise
            faults.append(f"--{option}: a stranger may PING")
    return faults


async def live_r4(live: Live) -> Iterable[str]:
    """Protected settings."""
    async with _asked(live.named("redis")) as client:
        found: dict[str, str] = await client.config_get("enable-*")
    return [f"{name} {value}" for name, value in sorted(found.items()) if value != "no"]


async def live_r6(live: Live) -> Iterable[str]:
    """Eviction and disk."""
    async with _asked(live.named("redis")) as client:
        found: dict[str, str] = await client.config_get("maxmemory*")
        found |= await client.config_get("appendonly")
    faults = [] if found["maxmemory-policy"] == "noeviction" else [f"maxmemory-policy {found['maxmemory-policy']}"]
    faults += ["maxmemory is not set"] if found["maxmemory"] == "0" else []
    return faults + ([] if found["appendonly"] == "yes" else ["appendonly is not yes"])


async def live_r7(live: Live) -> Iterable[str]:
    """A failover could be agreed on."""
    async with _asked(live.named("sentinel")) as client:
        masters: dict[str, dict[str, Any]] = await client.sentinel_masters()
        faults = [] if masters else ["no master is monitored"]
        for name, told in masters.items():
            if int(told["quorum"]) <= (int(told["num-other-sentinels"]) + 1) // 2:
                faults.append(f"{name}: quorum {told['quorum']} is no majority")
            try:
                await client.execute_command("SENTINEL CKQUORUM", name)
            except ResponseError as error:
                faults.append(f"{name}: {str(error)[:80]}")
    return faults


RULES: Final = (
    Rule("R1", "critical", "users have passwords, keys and commands of their own", "see redis/users.acl", r1, live_r1),
    Rule("R2", "critical", "applications have no dangerous command", "-@dangerous", r2, live_r2),
    Rule("R3", "critical", "a stranger gets nothing", "protected-mode yes, or aclfile", r3, live_r3),
    Rule("R4", "warning", "debugging and protected settings are off", "enable-debug-command no", r4, live_r4),
    Rule("R5", "critical", "TLS, or an internal network only", "tls-port, or networks: internal: true", r5),
    Rule("R6", "critical", "streams are kept: noeviction, on disk, within memory", "see redis/redis.conf", r6, live_r6),
    Rule("R7", "warning", "a majority of Sentinels decides", "sentinel monitor … <majority>", r7, live_r7),
)
