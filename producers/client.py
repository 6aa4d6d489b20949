"""Client: owns the metrics of a process, its two threads, and what happens at fork and exit.

In: settings. Out: batches in the stream, for as long as the process lives.
Promise: threads that died are started again at the next `labels()`; a forked child begins as a new producer with
nothing of its parent's; at exit what was emitted is sent within a deadline, and `fin` says that it was all.
"""

import atexit
import os
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from contract.crash import CrashPoint
from contract.metric import MetricDef
from contract.reasons import Dropped
from producers.clock import Clock
from producers.drainer import Drainer
from producers.event_log import EventLog
from producers.journal import Journal, journaled
from producers.metrics import Child, Registry
from producers.seal import Sealer
from producers.sender import Outbox, Sender, load_client
from producers.settings import Settings, SettingsError
from producers.spool import Spool

log = EventLog(__name__)

DISCARD_INTERVAL_S: Final = 1.0


@dataclass(frozen=True)
class Stats:
    """What a client knows of itself."""

    producer_id: str
    accepted: int
    """Events drained so far."""
    sealed_events: int
    dropped: dict[str, int]
    batches_sent: int
    batches_waiting: int
    connected: bool
    spool_failures: int = 0
    """How often sealed batches could not be written to the spool."""


class Life:
    """One producer: from a start to a stop, or to the end of the process."""

    def __init__(self, settings: Settings, journal: Journal | None = None) -> None:
        self.clock = Clock()
        self.outbox = Outbox()
        self.crash = CrashPoint(settings.crash_at)
        self.drainer = Drainer(Sealer(self.clock, settings.service, settings.run_id), self.clock, self.crash)
        self.spool = Spool(Path(settings.spool_dir) if settings.spool_dir else None, self.drainer, journal)
        self.sender = Sender(
            settings, self.outbox, self.clock, self.drainer.sealer.producer_id, self.crash, self.spool.release
        )
        self.ended = threading.Event()
        self.lock = threading.Lock()
        """Held by whoever drains: the drainer's thread, or the one that stops. Never during I/O, never by emitters."""


class Client(Registry):
    """The metrics of one process and what sends them. Most applications use the default one."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__()
        self._settings = settings
        self._life: Life | None = None
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False
        self._journal: Journal | None = None
        _clients.add(self)

    def max_series_per_metric(self) -> int:
        """Return the guard on live series of one metric."""
        return self._settings.max_series_per_metric if self._settings else Settings.max_series_per_metric

    def make(self, kind: type[Child], metric: MetricDef, key: bytes, drop: Dropped | None) -> Child:
        """Return a new child, with a journal if every emit is to outlive a kill."""
        if self._journal is None:
            return super().make(kind, metric, key, drop)
        return journaled(self._journal, metric, key, drop)

    @property
    def service(self) -> str:
        """Return the name of the application, as it is sent."""
        return self._settings.service if self._settings else Settings.service

    @property
    def release(self) -> str:
        """Return what the application's release is called, empty where nobody said; legal before a start, too."""
        if self._settings is not None:
            return self._settings.release
        with suppress(SettingsError):  # a start raises it
            return Settings.read().release
        return ""

    def start(self, settings: Settings | None = None) -> None:
        """Begin to send (a no-op while it runs); SettingsError names a bad setting."""
        with self._lock:
            wanted = settings or self._settings or Settings.read()
            if not wanted.disabled:
                # Says now, to the caller, what would end the sender's thread later.
                load_client(wanted)
            self._settings = wanted
            if wanted.spool_dir and wanted.spool_events and not wanted.disabled and self._journal is None:
                self._journal = Journal()
            if self._closed and self._life is not None:
                self._life.ended.set()
                self._life, self._threads = None, []
            self._closed = self._settings.disabled
            self._run()

    def ensure_running(self) -> None:
        """Start, or start again what died. Never raises: without legal settings what is emitted is dropped."""
        if self._closed or (len(self._threads) == 2 and all(thread.is_alive() for thread in self._threads)):
            return
        try:
            self.start()
        except SettingsError:
            log.exception("metrics_disabled")
            self._settings = Settings(disabled=True)
            self.ensure_running()
        except RuntimeError:
            # No thread to be had (a limit, or the interpreter ends); the next `labels()` tries again.
            log.exception("threads_not_started")

    def _run(self) -> None:
        settings = self._settings
        assert settings is not None, "BUG: start reads the settings first"
        if self._life is None:
            self._life = Life(settings, self._journal)
            if not self._closed:
                self._life.spool.open()
        life = self._life
        wanted = {"drain": lambda: self._drain_loop(life, settings)}
        if not self._closed:
            wanted["send"] = life.sender.run
        alive = {thread.name: thread for thread in self._threads if thread.is_alive()}
        for name, target in wanted.items():
            if f"streamgauge - {name}" not in alive:
                thread = threading.Thread(target=target, name=f"streamgauge - {name}", daemon=True)
                thread.start()
                alive[thread.name] = thread
                # At once: if the next one cannot start, this one must not be started twice.
                self._threads = list(alive.values())

    def _drain_loop(self, life: Life, settings: Settings) -> None:
        while not life.ended.wait(DISCARD_INTERVAL_S if self._closed else settings.flush_interval_s):
            if self._closed:
                life.drainer.discard(self.children)
                continue
            try:
                self._flush(life)
                self._seal_the_rest(life, time.monotonic() + settings.flush_interval_s)
            except Exception:
                # A bug of ours must not end the flushing; what was drained is still there.
                log.exception("flush_failed")

    def _seal_the_rest(self, life: Life, deadline: float) -> None:
        """Seal what found no slot as slots become free, until the next flush: merging it would cost more."""
        while life.drainer.samples() and not life.ended.is_set() and not self._closed:
            if not life.outbox.freed.wait(deadline - time.monotonic()):
                return
            life.outbox.freed.clear()
            if life.outbox.slots() > 0:
                self._flush(life, ())

    def _flush(self, life: Life, children: Sequence[Child] | None = None) -> None:
        """Seal what `children` (all, if none are named) hold and what waits."""
        with life.lock:
            life.spool.take()
            if not life.clock.is_measured():
                life.drainer.hold(self.children)
                life.spool.keep([])
                return
            batches = life.drainer.tick(self.children if children is None else children, life.outbox.slots())
            life.spool.keep(batches)
            if batches:
                life.crash.reach("after_seal")
            for sealed in batches:
                life.outbox.put(sealed)

    def stop(self, timeout_s: float | None = None, *, exiting: bool = False) -> bool:
        """Send what was emitted, then `fin`; returns whether all of it was acknowledged within the deadline.

        What is emitted afterwards is dropped (and taken from memory, unless the process is `exiting`).
        """
        with self._lock:
            life, settings = self._life, self._settings
            if life is None or settings is None or self._closed:
                return True
            deadline = time.monotonic() + (settings.exit_timeout_s if timeout_s is None else timeout_s)
            try:
                self._finish(life, deadline)
            except Exception:
                # A bug of ours must not end the application's own shutdown; what was sealed is still sent.
                log.exception("flush_failed")
            self._closed = True
            life.sender.stop()
            for thread in self._threads:
                if thread.name.endswith("send"):
                    thread.join(max(0.0, deadline - time.monotonic()))
            sent = life.clock.is_measured() and not life.outbox.waiting and not life.drainer.has_pending()
            if not sent:
                log.warning(
                    "unsent_at_exit", extra={**life.sender.standing(), "events_unsealed": life.drainer.unsealed()}
                )
            life.sender.estates.abandon()
            with life.lock:
                life.spool.leave()
            self._life, self._threads = None, []
            life.ended.set()
            if not exiting:
                self._run()
            return sent

    def _finish(self, life: Life, deadline: float) -> None:
        """Seal until nothing is pending, waiting for free slots, then seal `fin`."""
        self._flush(life)
        while (life.drainer.has_pending() or not life.clock.is_measured()) and time.monotonic() < deadline:
            time.sleep(0.005)
            self._flush(life)
        if life.clock.is_measured() and not life.drainer.has_pending():
            life.crash.reach("before_fin")
            fin = life.drainer.sealer.fin(life.clock.now_ms())
            life.spool.keep([fin])
            life.outbox.put(fin)

    def stats(self) -> Stats:
        """Return what is known now; `accepted` lags by at most a flush."""
        life = self._life
        if life is None:
            return Stats("", 0, 0, {}, 0, 0, False)
        sealer = life.drainer.sealer
        return Stats(
            sealer.producer_id.hex(),
            life.drainer.accepted,
            sealer.sealed_events,
            dict(sealer.dropped),
            life.sender.sent,
            len(life.outbox.waiting),
            life.sender.connected,
            life.spool.failures,
        )

    def after_fork(self) -> None:
        """In the child: forget what the parent emitted, become a new producer, run threads of our own."""
        self._lock = threading.Lock()
        was_running = bool(self._threads) and not self._closed
        if self._life is not None:
            self._life.spool.abandon()
            self._life.sender.estates.abandon()
        if self._journal is not None:
            self._journal.after_fork()
        self._life, self._threads = None, []
        for family in self.families.values():
            family.after_fork()
        for child in self.children:
            child.values.clear()
        if was_running:
            self.ensure_running()
            _stop_with_multiprocessing(self)


def _stop_with_multiprocessing(client: Client) -> None:
    """A multiprocessing child ends without `atexit`; its own finalizers run, though.

    They are cleared when its life begins, which is after this: hence the detour over `register_after_fork`.
    """
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.register_after_fork(client, _finalize)


def _finalize(client: Client) -> None:
    util: Any = sys.modules["multiprocessing.util"]
    util.Finalize(client, client.stop, kwargs={"exiting": True}, exitpriority=10)


_clients: Final[weakref.WeakSet[Client]] = weakref.WeakSet()


def _after_fork() -> None:
    for client in list(_clients):
        client.after_fork()


def _at_exit() -> None:
    for client in list(_clients):
        client.stop(exiting=True)


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
