"""Database pool: how many connections the measured load holds at once, by Little's law.

In: connection seconds per second of a database, between two looks. Out: Said.
Promise: busy at once = arrivals per second x seconds each, which is what the server measures: nothing is assumed.
"""

from math import ceil, sqrt
from typing import Final, NamedTuple

from optimizers.signals.said import Advice, Said, insufficient

POOL: Final = "database_pool"
HEADROOM: Final = 10
"""Connections left for people and for backups."""


class Connections(NamedTuple):
    """What the clients of a database were doing, between two looks."""

    busy: float
    """On average held at once: running a statement or in a transaction."""
    open: int
    max_connections: int
    reserved: int
    seconds: float
    """Between the looks."""
    clients: int = 1
    """That share them: told apart by application and address."""

    @property
    def limit(self) -> int:
        """Connections that all processes together may open."""
        return max(1, self.max_connections - self.reserved - HEADROOM)


def pool_needed(busy: float, limit: int) -> int:
    """Return ceil(L + 2 sqrt(L)) connections over all processes, at most `limit`."""
    return min(max(1, ceil(busy + 2 * sqrt(busy))), limit)


def judge_pool(database: str, seen: Connections | str) -> Said:
    """Say whether more connections are needed than open, or open than the server gives; a text says what is missing."""
    if isinstance(seen, str):
        return insufficient(POOL, seen)
    needed = pool_needed(seen.busy, seen.limit)
    detail = f"{seen.busy:.2f} connections busy on average, {seen.open} open, {needed} needed, {seen.limit} may be used"
    if needed <= seen.open <= seen.limit:
        return Said(POOL, "ok", detail)
    evidence = {
        "busy_connections": round(seen.busy, 3),
        "open_connections": seen.open,
        "max_connections": seen.max_connections,
        "reserved_connections": seen.reserved,
        "measured_over_s": round(seen.seconds, 1),
        "clients": seen.clients,
    }
    effect = "no waiting for a connection" if seen.open < needed else "connections left for people and backups"
    each = ceil(needed / max(seen.clients, 1))
    proposed = f"{needed} over all processes" + (f", {each} for each of {seen.clients}" if seen.clients > 1 else "")
    advice = Advice(database, f"{seen.open} open", proposed, effect, evidence, "low")
    return Said(POOL, "warn", detail, (advice,))
