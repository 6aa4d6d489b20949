"""Spool: files that outlive a killed process, so that its successor sends what it sealed and could not send.

In: after each flush, the batches just sealed and drafts of what waits to be sealed. Out: one directory a producer
with a file a flush, under a lock that the owner holds while it lives.
Promise: the files of a flush appear as one (a rename); what is in them is released once it is acknowledged for as
long as the sender would send it again; a disk that fails is counted and said once, and costs the cover, nothing else.
"""

import fcntl
import os
import shutil
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from contract.errors import error_text
from producers.drainer import Drainer
from producers.event_log import EventLog
from producers.journal import Journal
from producers.seal import Numbering, Sealed

log = EventLog(__name__)

VERSION: Final = 1
LOCK: Final = "lock"
SUFFIX: Final = ".flush"
UNBORN: Final = "."
"""Before the name of a directory whose lock is not taken yet: nobody may think its owner dead."""
RETRY_S: Final = 60.0
DRAFT_SHARE: Final = 10
"""While nothing can be sealed, drafts cost at most one part in so many of the drainer's time."""


class Flush(msgspec.Struct, array_like=True, frozen=True):
    """What one flush left behind. The newest one tells where the producer stood; fields are only ever appended."""

    version: int
    service: str
    run_id: str | None
    numbering: Numbering
    """After the sealed batches, before the drafts."""
    dropped: dict[str, int]
    sealed: list[bytes]
    """They may have been sent."""
    drafts: list[bytes]
    """What would be sealed next, were there no later flush: never sent while the producer lived."""
    positions: dict[int, int] = {}
    """Up to where the events of each of the journal's segments are in batches and drafts; a newer one: nowhere yet."""
    levels: dict[bytes, float] = {}
    """With a journal: what each gauge stands at, by its key."""
    closed: bool = False
    """A successor has written what it will send: there are no drafts any more, and no tail."""


class Spool:
    """The files of one living producer. `release` is the sender's, everything else the drainer's."""

    def __init__(self, root: Path | None, drainer: Drainer, journal: Journal | None = None) -> None:
        self.failures = 0
        self._root = root
        self._drainer = drainer
        self._journal = journal
        self._lock: int | None = None
        self._folder: Path | None = None
        self._number = 0
        self._retry_at = 0.0
        self._draft_at = 0.0
        self._standing: tuple[int, ...] = ()
        """What the newest file tells of: while it is the same, there is nothing to write."""
        self._left: dict[int, set[int]] = {}
        """Seqs of each flush's file that are not released, by the file's number."""
        self._released: deque[int] = deque()

    def release(self, sealed: Sealed) -> None:
        """Note a batch that need not be sent again."""
        if self._root is not None:
            self._released.append(sealed.seq)

    def open(self) -> None:
        """Begin to keep, unless there is no spool or it failed lately. Never raises."""
        if self._root is None or self._folder is not None or time.monotonic() < self._retry_at:
            return
        try:
            self._open(self._root)
        except OSError as error:
            self._fail(self._root, error)

    def take(self) -> None:
        """Move journaled events to where they are drained. Never raises."""
        if self._root is not None and self._journal is not None:
            try:
                self._journal.take()
            except OSError as error:
                self._fail(self._root, error)

    def keep(self, sealed: Sequence[Sealed]) -> None:
        """Write one flush, before any of its batches may be sent; forget what was released. Never raises."""
        self.open()
        if self._root is None or self._folder is None:
            return
        try:
            began_s = time.monotonic()
            if self._standing != self._stand() and (sealed or began_s >= self._draft_at):
                self._write(self._folder, sealed)
                self._draft_at = began_s + DRAFT_SHARE * (time.monotonic() - began_s)
            self._forget(self._folder)
        except OSError as error:
            self._fail(self._root, error)

    def _stand(self) -> tuple[int, ...]:
        drainer = self._drainer
        return (drainer.accepted, drainer.sealer.seq, sum(drainer.sealer.dropped.values()))

    def _open(self, root: Path) -> None:
        name = self._drainer.sealer.producer_id.hex()
        unborn = root / f"{UNBORN}{name}"
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        unborn.mkdir(mode=0o700)
        self._lock = os.open(unborn / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._left.clear()
        self._write(unborn, [])
        unborn.rename(root / name)
        self._folder = root / name
        if self._journal is not None:
            self._journal.open(self._folder)

    def _write(self, folder: Path, sealed: Sequence[Sealed]) -> None:
        sealer, journal = self._drainer.sealer, self._journal
        flush = Flush(
            VERSION,
            sealer.service,
            sealer.run_id,
            sealer.numbering,
            dict(sealer.dropped),
            [each.data for each in sealed],
            [each.data for each in self._drainer.drafts()],
            dict(journal.positions) if journal else {},
            self._drainer.levels() if journal else {},
        )
        write_flush(folder, self._number + 1, flush)
        self._number += 1
        self._left[self._number] = {each.seq for each in sealed}
        self._standing = self._stand()
        if journal is not None:
            journal.forget()

    def _forget(self, folder: Path) -> None:
        """Remove files all of whose batches are released; the newest stays, it tells where the producer stands."""
        released: set[int] = set()
        while self._released:
            released.add(self._released.popleft())
        for number, left in list(self._left.items()):
            left -= released
            if not left and number != self._number:
                del self._left[number]
                (folder / flush_name(number)).unlink(missing_ok=True)

    def _fail(self, root: Path, error: OSError) -> None:
        # What is there is out of date now, and would contradict what is sealed next: better nothing.
        self.failures += 1
        self._retry_at = time.monotonic() + RETRY_S
        if self.failures == 1:
            log.warning("spool_failed", extra={"folder": str(root), "error": error_text(error)})
        name = self._drainer.sealer.producer_id.hex()
        for folder in (name, f"{UNBORN}{name}"):
            shutil.rmtree(root / folder, ignore_errors=True)
        self._close()
        if self._journal is not None:
            # What emits is bound to it: it goes on in memory.
            with suppress(OSError):
                self._journal.open(None)

    def leave(self) -> None:
        """End: a successor takes what is there, be it only what was acknowledged in the last moments."""
        if self._folder is not None:
            with suppress(OSError):
                self._forget(self._folder)
        if self._journal is not None:
            self._journal.close()
        self.abandon()

    def abandon(self) -> None:
        """In a forked child: the parent goes on, holding its lock."""
        self._root = None
        self._close()

    def _close(self) -> None:
        # Only closed, never unlocked: in a forked child the lock is the parent's too.
        lock, self._lock, self._folder = self._lock, None, None
        if lock is not None:
            with suppress(OSError):
                os.close(lock)


def flush_name(number: int) -> str:
    """Return the name of a flush's file; names sort by number."""
    return f"{number:012d}{SUFFIX}"


def write_flush(folder: Path, number: int, flush: Flush) -> None:
    """Write the file of a flush; it is there whole or not at all. OSError: it is not."""
    draft = folder / "new"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(msgspec.msgpack.encode(flush))
    draft.rename(folder / flush_name(number))
