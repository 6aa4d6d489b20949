"""Estate: what a dead producer left in the spool, sent by whoever finds it.

In: the spool's root, a clock, a way to deliver. Out: the dead producer's own batches, under its own id and seqs.
Promise: only what no living process holds is touched, by one finder at a time; a directory goes when everything in
it was acknowledged for as long as a living producer would send it again, so that a finder that dies too leaves it to
the next; sent twice, it counts once (the ledger).
"""

import fcntl
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from contract.batch import read_body, read_envelope, seal
from contract.errors import error_text
from contract.windows import window_start_s
from producers.clock import UNKNOWN_UNCERTAINTY_US, Clock
from producers.drainer import Drainer
from producers.event_log import EventLog
from producers.journal import SEGMENT_SUFFIX, Tail
from producers.seal import Sealer
from producers.spool import LOCK, SUFFIX, UNBORN, VERSION, Flush, write_flush

log = EventLog(__name__)

EXPIRE_S: Final = 7 * 86400.0
"""As long as the ledger remembers a producer: what is older would be parked, whoever sends it."""
_NAME: Final = re.compile(rf"{re.escape(UNBORN)}?[0-9a-f]{{32}}")
"""A producer's directory; whatever else lies there is somebody else's."""
_decoder = msgspec.msgpack.Decoder(Flush)

RESEND_S: Final = 2.0
"""What was acknowledged is sent again for so long, where Redis turns out to be another server: it may have lost it."""

Deliver = Callable[[bytes, Sequence[bytes]], bytes | None]
"""(producer id, batches in order of seq) -> the server that acknowledged all of them; None: not now. With no batches it
says who would. Raises what the sender raises."""


class _Delivered(NamedTuple):
    """An estate that was acknowledged and may have to be sent again."""

    at_s: float
    server: bytes
    hold: ExitStack
    """Its lock."""


class Estates:
    """What the dead left in one spool, as one finder sees it. Used by one thread."""

    def __init__(self, root: Path, clock: Clock, resend_s: float = RESEND_S) -> None:
        self.delivered: dict[Path, _Delivered] = {}
        self._root = root
        self._clock = clock
        self._resend_s = resend_s

    def settle(self, deliver: Deliver) -> int:
        """Send what is there, remove what was acknowledged long enough ago; returns how many went. Never raises."""
        try:
            folders = sorted(folder for folder in self._root.iterdir() if _NAME.fullmatch(folder.name))
        except OSError:
            return 0
        settled = 0
        for folder in folders:
            try:
                if folder not in self.delivered:
                    self._find(folder, deliver)
                if folder in self.delivered:
                    settled += self._remove(folder, deliver)
            except Exception as error:  # noqa: BLE001 - one estate that cannot be read or sent concerns nobody else
                log.warning("estate_left", extra={"folder": str(folder), "error": error_text(error)})
        return settled

    def abandon(self) -> None:
        """End, or in a forked child leave it to the parent: the locks are not ours any more."""
        while self.delivered:
            self.delivered.popitem()[1].hold.close()

    def _find(self, folder: Path, deliver: Deliver) -> None:
        with ExitStack() as stack:
            if not stack.enter_context(claim(folder)) or (batches := _batches(folder, self._clock)) is None:
                return
            server = deliver(_producer(batches), batches) if batches else b""
            if server is None:
                return
            if batches:
                log.warning("estate_settled", extra={"producer": folder.name, "batches": len(batches)})
            self.delivered[folder] = _Delivered(time.monotonic(), server, stack.pop_all())

    def _remove(self, folder: Path, deliver: Deliver) -> bool:
        at_s, server, hold = self.delivered[folder]
        batches = _batches(folder, self._clock) or []
        if batches and time.monotonic() - at_s < self._resend_s:
            return False
        if batches and deliver(_producer(batches), []) != server:
            # Its successor took part of it with it, perhaps: found anew, it is sent again.
            self.delivered.pop(folder).hold.close()
            return False
        shutil.rmtree(folder, ignore_errors=True)
        del self.delivered[folder]
        hold.close()
        return True


def _producer(batches: Sequence[bytes]) -> bytes:
    return read_envelope(batches[0]).producer_id


@contextmanager
def claim(folder: Path) -> Generator[bool, None, None]:
    """Hold a directory whose owner is dead: one of several finders does, the others get False."""
    found = folder.lstat()
    is_old = time.time() - found.st_mtime > EXPIRE_S
    # Others may write to a shared directory: what they put there is not ours to send.
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not is_ours or (folder.name.startswith(UNBORN) and not is_old):
        yield False
        return
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        if is_old:
            shutil.rmtree(folder, ignore_errors=True)
        yield False
        return
    try:
        yield _lock(lock, folder / LOCK)
    finally:
        os.close(lock)


def _lock(lock: int, path: Path) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another finder may have settled and removed it between our open and our lock.
        return os.fstat(lock).st_ino == path.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _batches(folder: Path, clock: Clock) -> list[bytes] | None:
    """Return what is to be sent of an estate; None where it is not ours, or too old."""
    files = sorted(folder.glob(f"*{SUFFIX}"))
    if files and time.time() - files[-1].stat().st_mtime > EXPIRE_S:
        log.warning("estate_expired", extra={"folder": str(folder), "files": len(files)})
        shutil.rmtree(folder, ignore_errors=True)
        return None
    flushes = [_decoder.decode(file.read_bytes()) for file in files]
    if any(flush.version != VERSION for flush in flushes):
        log.info("estate_of_another_version", extra={"folder": str(folder)})
        return None
    if flushes:
        flushes[-1] = _freeze(folder, int(files[-1].stem), flushes[-1], clock)
    return [data for flush in flushes for data in flush.sealed]


def _freeze(folder: Path, number: int, last: Flush, clock: Clock) -> Flush:
    """Make drafts and tail batches, on disk before one is sent: whoever goes on must send the same bytes."""
    journal = list(folder.glob(f"*{SEGMENT_SUFFIX}"))
    if last.closed or not (last.drafts or journal):
        return last
    drafts = [_date(data, clock) for data in last.drafts]
    tail = _replay(folder, last, clock) if journal else []
    frozen = msgspec.structs.replace(last, sealed=[*last.sealed, *drafts, *tail], drafts=[], closed=True)
    write_flush(folder, number, frozen)
    return frozen


def _replay(folder: Path, last: Flush, clock: Clock) -> list[bytes]:
    """Return the batches of what was emitted after the last flush, and the farewell if that was all."""
    tail = Tail(folder, last.positions)
    at = last.numbering
    events = sum(read_envelope(data).events for data in last.drafts)
    # What cannot be recovered stays a gap in the sequence: it is counted as lost when the gap closes.
    sealer = Sealer(clock, last.service, last.run_id, bytes.fromhex(folder.name))
    sealer.numbering = msgspec.structs.replace(
        at, seq=at.seq + len(last.drafts) + (tail.unknown > 0), sealed_events=at.sealed_events + events + tail.unknown
    )
    sealer.dropped = dict(last.dropped)
    drainer = Drainer(sealer, clock)
    drainer.take_levels(tail.children, last.levels)
    drainer.drain(tail.children)
    batches = drainer.tick((), sys.maxsize) if drainer.has_pending() else []
    if tail.is_whole and not _said_farewell(last):
        batches.append(sealer.fin(clock.now_ms()))
    return [each.data for each in batches]


def _said_farewell(last: Flush) -> bool:
    return any(read_body(read_envelope(data), data).fin for data in last.sealed)


def _date(data: bytes, clock: Clock) -> bytes:
    """Return the batch, booked to now if its producer never learned the time."""
    envelope = read_envelope(data)
    body = read_body(envelope, data)
    if body.clock_uncertainty_us != UNKNOWN_UNCERTAINTY_US:
        return data
    now_ms = clock.now_ms()
    dated = msgspec.structs.replace(
        body,
        window_start_s=window_start_s(now_ms),
        span_start_ms=now_ms,
        flushed_ms=now_ms,
        clock_offset_us=clock.offset_us(),
        clock_uncertainty_us=clock.uncertainty_us(),
    )
    return seal(envelope.producer_id, envelope.seq, envelope.events, dated)
