"""Redis: memory near its limit, keys evicted, writes delayed by the disk, a server that stalls.

In: what INFO and LATENCY say, and the growth of counters since the run before. Out: Said.
"""

from typing import Final, NamedTuple

from optimizers.signals.said import Advice, Said

REDIS: Final = "redis"
MEMORY_SHARE: Final = 0.8
STALL_MS: Final = 100.0
BUFFER_BYTES: Final = 64 << 20


class Server(NamedTuple):
    """A Redis server now."""

    used_bytes: int
    max_bytes: int
    """0: no limit."""
    policy: str
    evicted: int | None
    """Since the run before; None: there was none, or the server restarted."""
    delayed_fsyncs: int | None
    worst_ms: float | None
    """Longest stall of the last hour that LATENCY knows; None: it is not monitored."""
    buffer_bytes: int = 0
    """Held for clients that do not read fast enough, replicas among them."""


def judge_redis(server: Server) -> Said:
    """Say what is wrong with the server of the streams."""
    found = [
        (server.max_bytes > 0 and server.used_bytes > MEMORY_SHARE * server.max_bytes, _memory(server)),
        (bool(server.evicted), _evicting(server)),
        (bool(server.delayed_fsyncs), _fsync(server)),
        ((server.worst_ms or 0.0) > STALL_MS, _stall(server)),
        (server.buffer_bytes > BUFFER_BYTES, _buffers(server)),
    ]
    advice = tuple(each for is_found, each in found if is_found)
    limit = f"of {server.max_bytes}" if server.max_bytes else "without a limit"
    unknown = [
        *(["evictions and delayed writes: the next run can compare"] if server.evicted is None else []),
        *(["stalls: latency-monitor-threshold is 0 or may not be read"] if server.worst_ms is None else []),
    ]
    detail = f"{server.used_bytes} bytes {limit}" + "".join(f"; not known yet, {each}" for each in unknown)
    return Said(REDIS, "warn" if advice else "ok", detail, advice)


def _memory(server: Server) -> Advice:
    evidence = {"used_bytes": server.used_bytes, "max_bytes": server.max_bytes}
    share = f"{server.used_bytes / server.max_bytes:.0%} of maxmemory" if server.max_bytes else "no limit"
    wanted = f"maxmemory of {int(server.used_bytes / MEMORY_SHARE)} bytes or more, or a shorter replay window"
    return Advice("redis memory", share, wanted, "producers are not refused", evidence, "high")


def _evicting(server: Server) -> Advice:
    evidence = {"evicted_keys": server.evicted, "policy": server.policy}
    now = f"{server.evicted} keys evicted, {server.policy}"
    return Advice("redis eviction", now, "maxmemory-policy noeviction", "no stream is lost", evidence, "high")


def _fsync(server: Server) -> Advice:
    evidence = {"delayed_fsyncs": server.delayed_fsyncs}
    now = f"{server.delayed_fsyncs} writes waited for the disk"
    return Advice("redis disk", now, "a faster disk for the append-only file", "no stalls", evidence, "medium")


def _stall(server: Server) -> Advice:
    evidence = {"longest_stall_ms": server.worst_ms}
    now = f"stalled for {server.worst_ms:g} ms" if server.worst_ms is not None else "unknown"
    return Advice("redis stalls", now, "look at LATENCY DOCTOR", "shorter sends and reads", evidence, "medium")


def _buffers(server: Server) -> Advice:
    evidence = {"client_buffer_bytes": server.buffer_bytes}
    now = f"{server.buffer_bytes} bytes wait for slow clients"
    wanted = "look at CLIENT LIST for a client with a large `omem`"
    return Advice("redis clients", now, wanted, "that memory for the streams", evidence, "medium")
