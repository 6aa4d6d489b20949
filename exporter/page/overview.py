"""Overview: everything the page shows but the heat map, read once for all who look.

In: the exporter (its newest view, pool and probes). Out: a plain context for the templates.
Promise: each part is read by itself: what cannot be read within a probe's deadline is None, and the rest is shown.
"""

import asyncio
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

from contract.errors import error_text
from contract.metric import Kind
from database.connect import AWAY, acquire
from database.jobs import list_jobs
from database.optimization_status import read_status
from database.queries import load
from exporter.components.component import Status
from exporter.monitor import Report
from exporter.page import flow
from exporter.page.advice import READERS
from exporter.page.state import Reason, facts, judge, lag, latency_s, levels, waits_s
from exporter.page.words import ago, count, duration, plural, size
from exporter.service import Exporter
from exporter.snapshot import Unavailable

log = logging.getLogger(__name__)

Context = dict[str, Any]
T = TypeVar("T")

SLOW_EVERY_S: Final = 5.0
"""How often the parts are read that only jobs change."""
EVERY_S: Final = {"thresholds": 30.0}
"""The same, of parts that look at five minutes of data."""
AT_ONCE: Final = 2
"""Connections of the exporter's pool that the page takes at most: scrapes need the others."""
PRODUCERS: Final = 200
FINDINGS: Final = 100
BAD: Final = (*AWAY, Unavailable)


class Overview:
    """Reads the context; keeps what is read seldom."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter
        self._slow: Context = {"recommendations": None}
        self._slow_at: dict[str, float] = {}
        self._few = asyncio.Semaphore(AT_ONCE)
        self._deadline_s = exporter.settings.streamgauge_probe_deadline_s
        self._left_behind: set[asyncio.Task[Any]] = set()
        self._behind = flow.Behind()

    async def read(self) -> Context:
        """Return the context of the whole page."""
        monitor = self._exporter.monitor
        report, fast, _ = await asyncio.gather(monitor.look(), self._fast(), self._refresh_slow())
        view = self._exporter.refresher.newest
        rates = fast["rates"]
        context: Context = {**fast, **self._slow, "report": report, "now_s": time.time(), "view": view}
        context["accounts"] = [] if view is None else flow.accounts(view)
        context["stages"] = flow.stages(view, levels(report), rates, self._notes(report, context))
        context["state"] = judge(report, notices(context))
        context["age_s"] = self._exporter.refresher.age_s()
        context["behind"] = self._look(context)
        return context

    def _look(self, context: Context) -> dict[str, list[Any]]:
        view, now_s = context["view"], context["now_s"]
        is_current = context["age_s"] is not None and context["age_s"] < flow.HOLE_S
        self._behind.note(
            now_s,
            waits_s(context["report"]),
            flow.in_flight(view) if view is not None and is_current else None,
        )
        return self._behind.columns()

    async def _fast(self) -> Context:
        rates, producers = await asyncio.gather(self._read(self._throughput), self._read(self._producers))
        return {"rates": rates, "producers": producers}

    async def _read(self, read: Callable[[], Awaitable[T]]) -> T | None:
        """Return what was read, None when its source is away.

        A read that is cancelled may hang on (a driver waits for the server to confirm), so it is not waited for.
        """
        task = asyncio.create_task(self._in_turn(read), name="exporter - part of the page")
        self._left_behind.add(task)
        task.add_done_callback(self._left_behind.discard)
        try:
            done, _ = await asyncio.wait({task}, timeout=self._deadline_s)
        finally:
            task.cancel()
        if not done:
            log.info("page_part_unread", extra={"error": f"not within {self._deadline_s:g} s"})
            return None
        return task.result()

    async def _in_turn(self, read: Callable[[], Awaitable[T]]) -> T | None:
        try:
            async with self._few:
                return await read()
        except BAD as error:
            log.info("page_part_unread", extra={"error": error_text(error)})
            return None

    async def _throughput(self) -> flow.Throughput:
        async with acquire(self._exporter.pool) as connection:
            rows = await connection.fetch(load("page_commits"), flow.HISTORY_S)
            now_s = rows[-1]["now_s"] if rows else time.time()
        return flow.throughput(rows, now_s)

    async def _producers(self) -> list[flow.Producer]:
        async with acquire(self._exporter.pool) as connection:
            live_s = self._exporter.settings.streamgauge_live_s
            rows = await connection.fetch(load("exporter_producers"), live_s, PRODUCERS)
        return flow.producers(rows, [json.loads(row["dropped"]) for row in rows], time.time())

    async def _refresh_slow(self) -> None:
        pool, now = self._exporter.pool, time.monotonic()
        reads: dict[str, Callable[[], Awaitable[Any]]] = {
            "histograms": self._histograms,
            "optimizer": lambda: read_status(pool, FINDINGS),
            "jobs": lambda: list_jobs(pool),
            **{name: partial(reader, pool) for name, reader in READERS.items()},
        }
        due = [name for name in reads if now - self._slow_at.get(name, -math.inf) >= EVERY_S.get(name, SLOW_EVERY_S)]
        found = await asyncio.gather(*(self._read(reads[name]) for name in due))
        self._slow |= dict(zip(due, found, strict=True))
        self._slow_at |= dict.fromkeys(due, now)

    async def _histograms(self) -> list[Mapping[str, Any]]:
        async with acquire(self._exporter.pool) as connection:
            return [dict(row) for row in await connection.fetch(load("page_histograms"), Kind.HISTOGRAM)]

    def _notes(self, report: Report, context: Context) -> dict[str, list[str]]:
        stored: dict[str, int] = {}
        for told in facts(report, "aggregators"):
            for member in told.get("members", ()):
                stored |= member.get("stream_bytes") or {}
        view, refresher = context["view"], self._exporter.refresher
        duplicates = 0 if view is None else sum(service.duplicates for service in view.services)
        committed_s = None if view is None else flow.since_commit(view, context["now_s"])
        behind = lag(report)
        return {
            "stream": [
                "lag unknown" if behind is None else f"lag {plural(behind, 'entry', 'entries')}",
                f"{size(sum(stored.values()))} held for replay" if stored else "",
                _took(report, "redis"),
            ],
            "aggregators": [f"{plural(duplicates, 'duplicate')} changed nothing" if duplicates else ""],
            "database": [
                "" if committed_s is None else f"newest commit {ago(committed_s)}",
                _took(report, "database"),
            ],
            "exporter": [
                f"snapshot {ago(refresher.age_s())}",
                *(f"{kind} refresh in {duration(seconds)}" for kind, seconds in list(refresher.took_s.items())[-1:]),
            ],
        }


def _took(report: Report, kind: str) -> str:
    seconds = latency_s(report, kind)
    return "" if seconds is None else f"answers in {duration(seconds)}"


def notices(context: Context) -> list[Reason]:
    """Return what is worth knowing though nothing is wrong now."""
    found: list[Reason] = []
    bad = [one for one in context["accounts"] if one.level != "ok"]
    if bad:
        text = "; ".join(f"{one.service}: {one.verdict}" for one in bad)
        found.append(Reason("degraded", "completeness", f"{text}, since the beginning of each", section="completeness"))
    optimizer: Context = context["optimizer"] or {"findings": []}
    listed: list[Context] = optimizer["findings"]
    opened = [f for f in listed if f["state"] == "open" and f["severity"] != "info" and not f["acted_at"]]
    if opened:
        text = f"{plural(len(opened), 'finding')} open, the first about {opened[0]['object']}"
        found.append(Reason("degraded", "findings", text, section="findings"))
    beyond = [one.metric for one in context["thresholds"] or () if one.level in ("degraded", "down")]
    told = any(one.kind == "thresholds" and one.status is not Status.OK for one in context["report"].readings)
    if beyond and not told:
        text = f"{plural(len(beyond), 'threshold')} reached: {', '.join(dict.fromkeys(beyond))}"
        found.append(Reason("degraded", "thresholds", text, section="thresholds"))
    view = context["view"]
    if view is not None and not any(service.states.get("live") for service in view.services):
        text = "no producer is live" if view.services else "no producer was ever heard of"
        found.append(Reason("unknown", "producers", f"{text}: nothing is measured now", section="completeness"))
    return found


def summary(context: Context) -> str:
    """Return the sentence under the headline when all is well."""
    view = context["view"]
    if view is None:
        return "Nothing has been read yet."
    rates = context["rates"]
    live = sum(service.states.get("live", 0) for service in view.services)
    rate = "" if rates is None or rates.events_now is None else f"{rates.events_now:,.0f} events/s from "
    lost = sum(service.lost for service in view.services)
    fresh_s = flow.since_commit(view, context["now_s"])
    behind = "" if fresh_s is None else f", newest commit {ago(fresh_s)}"
    return f"{rate}{plural(live, 'live producer')}{behind}, {count(lost) if lost else 'nothing'} lost."
