"""Snapshots: brings the model up to date from one REPEATABLE READ transaction, and renders it.

In: a pool. Out: a View, immutable, of exactly one snapshot of the current primary.
Promise: reads only what commits touched since the snapshot before, by `pg_visible_in_snapshot`; any doubt (another
server, another generation, commits pruned past us, an unknown shape) means that everything is read anew.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from contract.self_metrics import CATALOGUE
from database.connect import Connection, Pool, acquire, transaction
from database.jobs import AGGREGATOR_CURRENT_S
from database.queries import load
from database.sketches import Ints, distinct
from exporter.columns import (
    Layout,
    NewSeries,
    Row,
    Totals,
    read_gauges,
    read_heard,
    read_ids,
    read_metrics,
    read_series,
    read_totals,
)
from exporter.derived import Derived, read_ratios
from exporter.derived import render as render_derived
from exporter.exposition import Page, paginate
from exporter.family import Metric
from exporter.gauges import GaugeRows, Heard, live_producers
from exporter.ledger import (
    Pipeline,
    Samples,
    Service,
    read_pipeline,
    read_services,
    read_stored,
    render,
    samples,
)
from exporter.model import Model, Outdated
from exporter.settings import ExporterSettings
from exporter.streams import Acknowledged

log = logging.getLogger(__name__)

TRUSTED_AGE_S: Final = 300.0
"""An older snapshot is not built upon: commits may have been pruned that it did not see."""
RATIOS_EVERY_S: Final = 5.0
"""Derived gauges look at minutes: reading all their windows at each scrape would cost more than the scrape."""
READ_ALL_SHARE: Final = 0.25
"""From this share of touched series on, one pass over all totals is faster than a look-up each."""


NOTHING: Final[Ints] = np.empty(0, dtype=np.int64)


class Unavailable(Exception):
    """No snapshot may be served now; the text says why."""


class Restoring(Unavailable):
    """Totals lack commits that were acknowledged, until an aggregator has folded them again."""


class OtherDatabase(Restoring):
    """Acknowledgements refer to another database, or another timeline of it; `wanted` names it."""

    def __init__(self, found: str, wanted: str) -> None:
        super().__init__(f"this database is {found}, acknowledgements refer to {wanted}")
        self.wanted = wanted


class Head(NamedTuple):
    """Where a snapshot stands."""

    snapshot: str
    identity: str
    """`<system identifier>/<timeline>`, as aggregators write it to Redis."""
    generation: int
    first_commit: int | None
    last_commit: int | None
    now_s: float


@dataclass(slots=True)
class Change:
    """What was read of one snapshot, before it is applied."""

    head: Head
    full: bool
    touched: Ints
    services: list[Service]
    pipeline: Pipeline
    stored: Samples
    heard: Heard
    metrics: list[Metric] | None = None
    layouts: dict[int, Layout] = field(default_factory=dict[int, Layout])
    series: list[NewSeries] = field(default_factory=list[NewSeries])
    totals: list[Totals] = field(default_factory=list[Totals])
    gauges: GaugeRows | None = None


@dataclass(frozen=True, slots=True)
class View:
    """One snapshot, rendered. Pages are shared with other views where they are equal."""

    head: Head
    pages: tuple[list[Page], list[Page]]
    """Text, OpenMetrics."""
    version: str
    """Equal exactly when the text is equal, within this process."""
    shown: int
    full: bool
    took_s: float
    services: list[Service]
    pipeline: Pipeline
    in_flight: Mapping[str, int] | None
    taken_at: float
    """time.monotonic() when the snapshot was taken."""


class Snapshots:
    """Keeps the model and makes views; one `take` at a time."""

    def __init__(
        self,
        settings: ExporterSettings,
        pool: Pool,
        acknowledged: Callable[[], Coroutine[None, None, Acknowledged | None]],
        in_flight: Callable[[], Mapping[str, int] | None],
        derived: Sequence[Derived] = (),
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._acknowledged = acknowledged
        self._confirmed: str | None = None
        self._in_flight = in_flight
        self._derived = derived
        self._taken = frozenset(
            {metric.name.removesuffix("_total") for metric in CATALOGUE}
            | {metric.name for metric in CATALOGUE}
            | {one.name for one in derived}
        )
        self._ratios: dict[str, float] = {}
        self._ratios_at_s = float("-inf")
        self._model: Model | None = None
        self._head: Head | None = None
        self._pages: tuple[list[Page], list[Page]] = ([], [])
        self._own: tuple[bytes, bytes] = (b"", b"")
        self._nonce = secrets.token_hex(4)
        self._number = 0

    async def take(self) -> View:
        """Return a view of a snapshot taken after this call; Unavailable says why there is none."""
        began = time.monotonic()
        # Asked before the snapshot is taken: it must hold every commit that was acknowledged by then.
        acknowledged = await self._acknowledged()
        change = await self._read_any()
        self._confirm(change.head, acknowledged)
        # And afterwards: this one may have been replaced meanwhile, and hold commits that the new one has yet to fold.
        after = await self._acknowledged()
        if acknowledged is not None and after is not None:
            self._require(change.head, after)
        try:
            return await asyncio.to_thread(self._apply, change, began)
        except Outdated as why:
            log.info("full_reload", extra={"reason": str(why)})
            self._model = None
            return await self.take()
        except BaseException:
            self._model = None
            raise

    def _confirm(self, head: Head, acknowledged: Acknowledged | None) -> None:
        """Refuse a database that is not the one acknowledgements refer to: it may lack a tail of commits."""
        if acknowledged is None:
            if head.identity == self._confirmed:
                return
            raise Unavailable("Redis cannot be asked whether this is the current database")
        self._require(head, acknowledged)
        if acknowledged.commit > (head.last_commit or 0):
            self._confirmed = None
            newest = head.last_commit or 0
            raise Restoring(f"this database ends at commit {newest}, acknowledgements refer to {acknowledged.commit}")
        self._confirmed = head.identity

    def _require(self, head: Head, acknowledged: Acknowledged) -> None:
        wanted = acknowledged.owner or acknowledged.identity
        if wanted and wanted != head.identity:
            self._confirmed = None
            raise OtherDatabase(head.identity, wanted)
        if acknowledged.identity and acknowledged.identity != wanted:
            self._confirmed = None
            raise Restoring(f"{wanted} is being restored, acknowledgements refer to {acknowledged.identity}")

    async def _read_any(self) -> Change:
        async with acquire(self._pool) as connection, transaction(connection, "REPEATABLE READ READ ONLY"):
            if self._derived:
                await connection.execute(load("lock_parts"))
            return await self._read(connection)

    async def _read(self, connection: Connection) -> Change:
        row = await connection.fetchrow(load("exporter_head"))
        assert row is not None
        head = _read_head(row)
        full = self._model is None or self._doubts(head)
        touched = NOTHING if full else await self._touched(connection, head)
        services = await connection.fetch(load("exporter_services"), self._settings.streamgauge_live_s)
        pipeline = await connection.fetchrow(load("exporter_pipeline"), AGGREGATOR_CURRENT_S)
        heard = await connection.fetchrow(load("exporter_heard"))
        assert pipeline is not None and heard is not None
        stored = await read_stored(connection)
        read = (read_services(services), read_pipeline(pipeline, row), stored, read_heard(heard))
        change = Change(head, full, touched, *read)
        if full:
            await self._read_all(connection, change)
        elif len(touched):
            await self._read_touched(connection, change)
        if abs(head.now_s - self._ratios_at_s) >= RATIOS_EVERY_S:
            self._ratios = await read_ratios(connection, self._derived, head.now_s)
            self._ratios_at_s = head.now_s
        return change

    def _doubts(self, head: Head) -> bool:
        before = self._head
        return (
            before is None
            or head.identity != before.identity
            or head.generation != before.generation
            or head.now_s - before.now_s > TRUSTED_AGE_S
            or (head.first_commit is not None and head.first_commit > (before.last_commit or 0) + 1)
        )

    async def _touched(self, connection: Connection, head: Head) -> Ints:
        assert self._head is not None
        if head.last_commit == self._head.last_commit and head.snapshot == self._head.snapshot:
            return NOTHING
        xmin = self._head.snapshot.partition(":")[0]
        rows = await connection.fetch(load("exporter_touched"), self._head.snapshot, xmin)
        return distinct(np.concatenate([NOTHING, *(read_ids(row["ids"]) for row in rows)]))

    async def _read_all(self, connection: Connection, change: Change) -> None:
        change.metrics, change.layouts = read_metrics(await connection.fetch(load("exporter_metrics")))
        change.series = [read_series(row) for row in await connection.fetch(load("exporter_series"), None)]
        change.totals = [read_totals(row) for row in await connection.fetch(load("exporter_totals"))]
        change.gauges = await self._gauges(connection, None)

    async def _read_touched(self, connection: Connection, change: Change) -> None:
        assert self._model is not None
        unknown = change.touched[~self._model.is_known(change.touched)]
        if len(unknown):
            change.metrics, change.layouts = read_metrics(await connection.fetch(load("exporter_metrics")))
            rows = await connection.fetch(load("exporter_series"), unknown.tolist())
            change.series = [read_series(row) for row in rows]
        gauges, others = self._model.split_gauges(change.touched)
        if len(gauges) or len(unknown):
            change.gauges = await self._gauges(connection, [*gauges.tolist(), *unknown.tolist()])
        if len(others) > READ_ALL_SHARE * self._model.size():
            change.totals = [read_totals(row) for row in await connection.fetch(load("exporter_totals"))]
        elif len(others) or len(unknown):
            ids = [*others.tolist(), *unknown.tolist()]
            change.totals = [read_totals(row) for row in await connection.fetch(load("exporter_totals_of"), ids)]

    async def _gauges(self, connection: Connection, ids: list[int] | None) -> GaugeRows:
        row = await connection.fetchrow(load("exporter_gauges"), ids)
        assert row is not None
        return read_gauges(row)

    # Applying: in a worker thread, so that health checks are answered meanwhile.

    def _apply(self, change: Change, began: float) -> View:
        model = self._updated(change)
        self._model = None  # until all of it is applied
        now_s = change.head.now_s
        for fresh in change.series:
            model.add_series(fresh)
        model.touch(change.touched, now_s)
        model.apply_totals(change.totals)
        if change.gauges is not None:
            model.replace_gauges(None if change.full else change.touched, change.gauges)
        model.merge_gauges(live_producers(change.heard, self._settings.streamgauge_live_s, now_s))
        model.show_since(now_s - self._settings.streamgauge_series_ttl_s)
        view = self._view(model, change, began)
        self._model, self._head = model, change.head
        return view

    def _updated(self, change: Change) -> Model:
        if change.full:
            assert change.metrics is not None
            model = Model(change.metrics, change.layouts, self._taken)
            for number in model.hidden:
                log.warning("metric_hidden", extra={"metric": model.families[number].metric.name, "why": "name taken"})
            return model
        assert self._model is not None
        if change.metrics is not None:
            self._model.update_metrics(change.metrics, change.layouts)
        return self._model

    def _view(self, model: Model, change: Change, began: float) -> View:
        in_flight = self._in_flight()
        found = samples(change.services, change.pipeline, change.stored, in_flight)
        own = [
            render(found, openmetrics=om) + render_derived(self._derived, self._ratios, openmetrics=om)
            for om in (False, True)
        ]
        self._own = (_same(own[0], self._own[0]), _same(own[1], self._own[1]))
        text = paginate([*model.pieces(openmetrics=False), self._own[0]], self._pages[0])
        om = paginate([*model.pieces(openmetrics=True), self._own[1], b"# EOF\n"], self._pages[1])
        if [id(page) for page in text] != [id(page) for page in self._pages[0]]:
            self._number += 1
        self._pages = (text, om)
        return View(
            change.head,
            self._pages,
            f"{self._nonce}-{self._number}",
            model.shown(),
            change.full,
            time.monotonic() - began,
            change.services,
            change.pipeline,
            in_flight,
            began,
        )


def _same(new: bytes, old: bytes) -> bytes:
    return old if new == old else new


def _read_head(row: Row) -> Head:
    if row["in_recovery"]:
        raise Unavailable("the database server is a standby")
    if row["fenced"]:
        raise Restoring("totals are being restored after a database failover")
    return Head(
        row["snapshot"],
        f"{row['system_identifier']}/{row['timeline']}",
        row["generation"],
        row["first_commit"],
        row["last_commit"],
        row["now_s"],
    )
