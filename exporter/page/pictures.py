"""Pictures: heat maps that were drawn lately, so that many who look at one cost as much as one who does.

In: a selector and a range. Out: the picture of heat.draw; BadQuestion when there is no such.
Promise: at most MAX_KEPT are kept, each for as long as its newest window is new.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from database.connect import AWAY
from exporter.history import gather
from exporter.history_servers import HistoryServers
from exporter.page.heat import DEFAULT_RANGE, RANGES, ask, draw
from exporter.page.words import unit_of
from exporter.question import BadQuestion, Question
from exporter.service import Exporter
from exporter.snapshot import Unavailable

MAX_KEPT: Final = 32
SHORTEST_S: Final = 5.0
PREFERRED: Final = "http_request_duration_seconds"

Picture = dict[str, Any]


class Picked(NamedTuple):
    """What the page draws: asked for, or chosen for whoever asked for nothing."""

    series: str
    span: str
    unit: str
    picture: Picture | None
    why_not: str


class Pictures:
    """Draws, and keeps what was drawn."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter
        self._kept: dict[tuple[str, str], tuple[float, asyncio.Task[Picture]]] = {}

    async def get(self, series: str, span: str) -> Picture:
        """Return a picture; those who ask for the same share it."""
        key, now = (series, span), time.monotonic()
        until, task = self._kept.get(key, (0.0, None))
        if task is None or until <= now or (task.done() and (task.cancelled() or task.exception())):
            question = ask(series, span, time.time())
            task = asyncio.create_task(_draw(self._exporter.history, question), name="exporter - heat map")
            task.add_done_callback(_ignore)
            self._kept.pop(key, None)
            self._kept[key] = (now + max(SHORTEST_S, question.step_s / 4), task)
            while len(self._kept) > MAX_KEPT:
                del self._kept[next(iter(self._kept))]
        return await asyncio.shield(task)

    async def pick(self, histograms: Sequence[Mapping[str, Any]] | None, series: str, span: str) -> Picked:
        """Return what to draw; `why_not` says why there is no picture."""
        span = span if span in RANGES else DEFAULT_RANGE
        known = {one["name"]: one for one in histograms or ()}
        series = series or next(iter(names(histograms)), "")
        if not series:
            said = "the database does not answer" if histograms is None else "insufficient data: no histogram in a day"
            return Picked("", span, "", None, said)
        unit = _unit(known, series)
        try:
            picture = await asyncio.wait_for(
                self.get(series, span), self._exporter.settings.streamgauge_probe_deadline_s
            )
            return Picked(series, span, unit, picture, "")
        except BadQuestion as error:
            return Picked(series, span, unit, None, str(error))
        except (*AWAY, Unavailable):
            return Picked(series, span, unit, None, "the database does not answer")

    async def draw(self, series: str, span: str) -> Picked:
        """Return the picture of exactly what is asked for; BadQuestion when there is none."""
        return Picked(series, span, _unit({}, series), await self.get(series, span), "")

    async def aclose(self) -> None:
        """End what is being drawn."""
        tasks = [task for _, task in self._kept.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def names(histograms: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """Return what can be drawn, first what is drawn for whoever asks for nothing."""
    return sorted((one["name"] for one in histograms or ()), key=lambda name: (name != PREFERRED, name))


def _unit(known: Mapping[str, Mapping[str, Any]], series: str) -> str:
    """Return the unit: as declared, or the one that the name ends with."""
    name = series.partition("{")[0]
    declared = str(known.get(name, {}).get("unit", ""))
    return declared or unit_of(name)


async def _draw(servers: HistoryServers, question: Question) -> Picture:
    gathered = await gather(servers, question)
    return await asyncio.to_thread(draw, gathered, question)


def _ignore(task: asyncio.Task[Picture]) -> None:
    """Take the exception when nobody waits any more."""
    if not task.cancelled():
        task.exception()
