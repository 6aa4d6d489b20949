"""Redis: memory near its limit, keys evicted, writes delayed by the disk, a server that stalls, commands that are slow.

In: what INFO and LATENCY say, and the growth of counters since the run before. Out: Said.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from optimizers.signals.said import Advice, Said

REDIS: Final = "redis"
MEMORY: Final = "redis memory"
EVICTION: Final = "redis eviction"
DISK: Final = "redis disk"
STALLS: Final = "redis stalls"
CLIENTS: Final = "redis clients"
LATENCY: Final = "redis latency"
MEMORY_SHARE: Final = 0.8
STALL_MS: Final = 100.0
BUFFER_BYTES: Final = 64 << 20
SLOW_MS: Final = 10.0
WAITED_FOR: Final = ("xadd", "xack")
"""Commands that producers and commits wait for; of one that blocks, Redis counts the waiting too."""


class Server(NamedTuple):
    """A Redis server now."""

    used_bytes: int
    max_bytes: int
    """0: no limit."""
    policy: str
    evicted: int | None
    """Since the run before; None: there was none, or the server restarted."""
    delayed_fsyncs: int | None
    """Since the run before; None as above, and where nothing tells: without an append-only file."""
    worst_ms: float | None
    """Longest stall of the last hour that LATENCY knows; None: it never noted one, or does not watch."""
    buffer_bytes: int | None
    """Held for clients that do not read fast enough, replicas among them; None: not told."""
    tells_fsyncs: bool = True
    lookups: tuple[int, int] | None = None
    """Keys found and not found since the run before; None as above."""
    percentiles_ms: Mapping[str, Mapping[str, float]] | None = None
    """Time of each command that producers and commits wait for, since the server started (`p50` -> ms); None: Redis
    does not tell, as before version 7."""

    @property
    def slowest_ms(self) -> float | None:
        """The highest 99th percentile of them."""
        told = (
            None if self.percentiles_ms is None else [of["p99"] for of in self.percentiles_ms.values() if "p99" in of]
        )
        return None if told is None else max(told, default=0.0)


def judge_redis(server: Server) -> Said:
    """Say what is wrong with the server of the streams."""
    found = [
        (server.max_bytes > 0 and server.used_bytes > MEMORY_SHARE * server.max_bytes, _memory(server)),
        (bool(server.evicted), _evicting(server)),
        (bool(server.delayed_fsyncs), _fsync(server)),
        ((server.worst_ms or 0.0) > STALL_MS, _stall(server)),
        ((server.buffer_bytes or 0) > BUFFER_BYTES, _buffers(server)),
        ((server.slowest_ms or 0.0) > SLOW_MS, _slow(server)),
    ]
    advice = tuple(each for is_found, each in found if is_found)
    limit = f"of {server.max_bytes}" if server.max_bytes else "without a limit"
    detail = f"{server.used_bytes} bytes {limit}{_told(server)}"
    detail += "".join(f"; not known: {each}" for each in _unknown(server))
    return Said(REDIS, "warn" if advice else "ok", detail, advice, _judged(server))


def _told(server: Server) -> str:
    """Return what is worth knowing though nothing is wrong with it."""
    found = ""
    if server.lookups is not None:
        found += f"; {server.lookups[0]} keys found and {server.lookups[1]} not, since the run before"
    for command, of in (server.percentiles_ms or {}).items():
        found += f"; {command} {', '.join(f'{name} {ms:.3g} ms' for name, ms in of.items())}"
    return found


def _unknown(server: Server) -> list[str]:
    reasons = {
        "evictions, the next run can compare": server.evicted is None,
        "delayed writes, the next run can compare": server.delayed_fsyncs is None and server.tells_fsyncs,
        "delayed writes, Redis does not tell without an append-only file": not server.tells_fsyncs,
        "stalls, none was noted yet, or latency-monitor-threshold is 0": server.worst_ms is None,
        "buffers of clients, Redis does not tell": server.buffer_bytes is None,
        "times of commands, Redis before version 7 does not tell": server.percentiles_ms is None,
    }
    return [reason for reason, is_so in reasons.items() if is_so]


def _judged(server: Server) -> tuple[str, ...]:
    """Return the targets that are known: advice on the others stays as it is."""
    known = {
        MEMORY: True,
        EVICTION: server.evicted is not None,
        DISK: server.delayed_fsyncs is not None,
        STALLS: server.worst_ms is not None,
        CLIENTS: server.buffer_bytes is not None,
        LATENCY: server.percentiles_ms is not None,
    }
    return tuple(target for target, is_known in known.items() if is_known)


def _memory(server: Server) -> Advice:
    evidence = {"used_bytes": server.used_bytes, "max_bytes": server.max_bytes}
    share = f"{server.used_bytes / server.max_bytes:.0%} of maxmemory" if server.max_bytes else "no limit"
    wanted = f"maxmemory of {int(server.used_bytes / MEMORY_SHARE)} bytes or more, or a shorter replay window"
    return Advice(MEMORY, share, wanted, "producers are not refused", evidence, "high")


def _evicting(server: Server) -> Advice:
    evidence = {"evicted_keys": server.evicted, "policy": server.policy}
    now = f"{server.evicted} keys evicted, {server.policy}"
    return Advice(EVICTION, now, "maxmemory-policy noeviction", "no stream is lost", evidence, "high")


def _fsync(server: Server) -> Advice:
    evidence = {"delayed_fsyncs": server.delayed_fsyncs}
    now = f"{server.delayed_fsyncs} writes waited for the disk"
    return Advice(DISK, now, "a faster disk for the append-only file", "no stalls", evidence, "medium")


def _stall(server: Server) -> Advice:
    evidence = {"longest_stall_ms": server.worst_ms}
    now = f"stalled for {server.worst_ms:g} ms" if server.worst_ms is not None else "unknown"
    return Advice(STALLS, now, "look at LATENCY DOCTOR", "shorter sends and reads", evidence, "medium")


def _buffers(server: Server) -> Advice:
    evidence = {"client_buffer_bytes": server.buffer_bytes}
    now = f"{server.buffer_bytes} bytes wait for slow clients"
    wanted = "look at CLIENT LIST for a client with a large `omem`"
    return Advice(CLIENTS, now, wanted, "that memory for the streams", evidence, "medium")


def _slow(server: Server) -> Advice:
    evidence = {
        f"{command}_{name}_ms": ms for command, of in (server.percentiles_ms or {}).items() for name, ms in of.items()
    }
    now = f"p99 of {server.slowest_ms:.3g} ms" if server.slowest_ms is not None else "unknown"
    wanted = "look at SLOWLOG GET, and at what else runs on its machine; CONFIG RESETSTAT begins to count anew"
    return Advice(LATENCY, now, wanted, "shorter sends and commits", evidence, "low")
